"""Runs the tests that reach a mutant, in a child that has the heavy libraries already.

The child is forked, so that torch, numpy and pytest are imported once. It puts the
mutant in place of the module as it is imported; no file of the tree is written. What
fails with the mutant is run once more without it, and counts only if it passes then:
else a test that always fails would notice everything.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

import pytest

Outcome = Literal["killed", "survived", "timed out", "not reached", "spoilt"]
"""Spoilt: what failed fails without the mutant, too."""
_CODES: dict[int, Outcome] = {0: "survived", 1: "killed", 2: "spoilt"}

# A change may make a loop endless or a buffer enormous.
MOST_MEMORY = 8 << 30


@dataclass(frozen=True)
class Changed:
    """A module and the source it is to have.

    Attributes:
        module: dotted name.
        source: text in place of the file's.
    """

    module: str
    source: str


class _Loader(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, changed: Changed, path: Path) -> None:
        self._changed, self._path = changed, path

    def find_spec(
        self, name: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._changed.module:
            return None
        spec = importlib.machinery.ModuleSpec(name, self, origin=str(self._path))
        spec.has_location = True
        if self._path.name == "__init__.py":
            spec.submodule_search_locations = [str(self._path.parent)]
        return spec

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._changed.source, str(self._path), "exec"), module.__dict__)  # noqa: S102


def preload() -> None:
    """Import what every child needs and no mutant changes; pytest's plug-ins it imports itself."""
    import numpy as np  # noqa: F401
    import torch

    torch.set_num_threads(1)


def start(changed: Changed | None, path: Path, tests: Sequence[str]) -> int:
    """Fork a child that runs the tests until the first that fails; its process number."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    outcome: Outcome = "spoilt"
    folder = Path(tempfile.mkdtemp(prefix="mutant-"))
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
        quiet = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(quiet, descriptor)
        failed = _failed(changed, path, tests, folder / "with")
        if not failed:
            outcome = "survived"
        elif not _failed(None, path, failed, folder / "without"):
            outcome = "killed"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(next(code for code, name in _CODES.items() if name == outcome))


def _failed(
    changed: Changed | None, path: Path, tests: Sequence[str], folder: Path
) -> Sequence[str]:
    """Run tests in a process of their own; which failed: none, the first, or all unnamed."""
    folder.mkdir()
    child = os.fork()
    if not child:
        code = 70
        try:
            os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(folder / "hypothesis")
            if changed is not None:
                sys.meta_path.insert(0, _Loader(changed, path))
            words = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
            first = _First(folder / "first")
            code = int(pytest.main([*words, f"--basetemp={folder}/tests", *tests], [first]))
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) == 0:
        return ()
    first_failed = folder / "first"
    # Where the mutant cannot even be imported, no test comes to fail.
    return [first_failed.read_text()] if first_failed.exists() else list(tests)


class _First:
    """Notes the first test that fails."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self._path.exists():
            self._path.write_text(report.nodeid)


def outcome_of(status: int) -> Outcome:
    """What a child's end says; one that was killed says nothing of the change."""
    return _CODES.get(os.waitstatus_to_exitcode(status), "spoilt")


def wait(children: dict[int, float]) -> tuple[int, Outcome]:
    """Wait for one of the children, or end one that has overstayed.

    Args:
        children: process number -> when it must have ended, by ``time.monotonic``.
    """
    while True:
        for child, deadline in children.items():
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return child, outcome_of(status)
            if time.monotonic() > deadline:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return child, "timed out"
        time.sleep(0.02)
