"""How the suite is divided among workers, and where its folders lie.

Whole files go to a worker (``--dist loadfile``), the long ones first: a long one that begins
last would be waited for. What starts real processes waits more than it computes, so `make
test` starts three workers for two cores. Files that share what is dear to make go to one.

Folders lie in memory where there is enough of it. Every record of a ledger is written
through to the disk, and a thousand made-up ledgers spend more time on that than on all else.
Files, renames and locks are the same there; what survives a power cut is tested by what was
asked of the system, in ``tests/faults``.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

import psutil
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

MEMORY: Final = Path("/dev/shm")
ROOM_BYTES: Final = 6 << 30
REAL: Final = (
    "tests/flower/test_default_policy.py",
    "tests/flower/test_pixels_over_flower.py",
    "tests/flower/test_real_federation.py",
    "tests/flower/test_runs_in_a_row.py",
)
"""Files that share a running federation, the fixture ``real``."""
TOGETHER: Final = (REAL, ("tests/aggregator/embedding/",))
"""Files that go to one worker: of the second group each would compile UMAP for itself."""
FIRST: Final = (
    *REAL,
    "tests/flower/test_first_run_faults.py",
    "tests/federation/",
    "tests/flower/test_desk_over_flower.py",
    "tests/aggregator/embedding/",
    "tests/site_client/worker/",
    "tests/flower/",
    "tests/site_client/agent_app/",
    "tests/site_client/pixels/",
    "tests/deploy/",
    "tests/aggregator/",
)
"""What takes longest, and what waits between what computes; after these, and within each,
files of many tests first.
"""
THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return
    if config.option.dist != "no":
        # Workers share the cores: threads of one would only be in the way of the others.
        os.environ.update({name: "1" for name in THREADS if name not in os.environ})
    if (
        config.option.basetemp is None
        and "PYTEST_DEBUG_TEMPROOT" not in os.environ
        and has_room(MEMORY)
    ):
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(MEMORY)


def has_room(folder: Path) -> bool:
    """Whether it lies in memory, programs may run from it, and both have room."""
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return False
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        return False
    return min(shutil.disk_usage(folder).free, psutil.virtual_memory().available) > ROOM_BYTES


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> WholeFiles | None:
    if config.option.dist != "loadfile":
        return None
    config.option.loadscopereorder = False  # the order is the collection's, made below
    return WholeFiles(config, log)


class WholeFiles(LoadFileScheduling):
    """A file is one piece of work, and so is each group of ``TOGETHER``."""

    def _split_scope(self, nodeid: str) -> str:
        for group in TOGETHER:
            if nodeid.startswith(group):
                return group[0]
        return super()._split_scope(nodeid)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        items[:] = longest_first(items)


def longest_first(items: list[pytest.Item]) -> list[pytest.Item]:
    """Files by the places that ``FIRST`` gives them, then those of many tests; none is split."""
    files: dict[str, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.nodeid.partition("::")[0], []).append(item)

    def place(name: str) -> tuple[int, int, str]:
        ranks = (rank for rank, start in enumerate(FIRST) if name.startswith(start))
        return next(ranks, len(FIRST)), -len(files[name]), name

    return [item for name in sorted(files, key=place) for item in files[name]]
