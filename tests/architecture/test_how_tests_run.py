"""What the suite itself stands on: another order of it, its division, commands as forks."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import typed
from tests.division import FIRST, REAL, TOGETHER, longest_first
from tests.shuffle import shuffled

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Item:
    nodeid: str


ITEMS = [Item(f"tests/{file}.py::test_{n}") for file in "abcdefgh" for n in range(6)]


def files_of(items) -> list[str]:
    return [item.nodeid.partition("::")[0] for item in items]


def test_a_seed_names_an_order_that_loses_no_test_and_parts_no_file():
    orders = {tuple(shuffled(list(ITEMS), seed)) for seed in range(5)}
    assert len(orders) == 5
    for order in orders:
        assert set(order) == set(ITEMS)
        changes = sum(a != b for a, b in zip(files_of(order), files_of(order)[1:], strict=False))
        assert changes == 7, "each file's tests stand together"


def test_the_order_does_not_depend_on_how_the_tests_were_named():
    assert shuffled(list(ITEMS), 3) != shuffled(list(ITEMS), 4)
    grouped = sorted(ITEMS, key=lambda item: item.nodeid[6], reverse=True)
    assert files_of(shuffled(grouped, 3)) == files_of(shuffled(list(ITEMS), 3))


def test_what_takes_longest_comes_first_and_every_name_of_it_is_there():
    for name in FIRST:
        assert (ROOT / name).exists(), name
    for name in sum(TOGETHER, ()):
        assert (ROOT / name).exists(), name
    many = [Item(f"{REAL[0]}::test_{n}") for n in range(2)]
    assert longest_first([*ITEMS, *many])[:2] == many


def test_files_that_go_to_one_worker_are_those_that_share_the_running_federation():
    sharing = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests" / "flower").glob("test_*.py")
        if "(real)" in path.read_text(encoding="utf-8")
    }
    assert sharing == set(REAL)


def test_a_command_in_a_fork_ends_as_one_that_was_started(tmp_path):
    env = os.environ | {"PYTHONIOENCODING": "utf-8"}
    for words, code in (
        (("cairn-audit", "verify", "nothing", "--key", "none"), 6),
        (("cairn-site", "--version"), 0),
        (("cairn-aggregator", "no-such-command"), 2),
    ):
        forked = typed.run(words, tmp_path, env, 60)
        started = subprocess.run(
            words, cwd=tmp_path, env=env, capture_output=True, encoding="utf-8", check=False
        )
        assert (forked.returncode, started.returncode) == (code, code), forked
        assert (forked.stdout, forked.stderr) == (started.stdout, started.stderr)


def test_a_command_in_a_fork_that_does_not_end_is_killed(tmp_path):
    words = ("cairn-aggregator", "codebook", "build", "never", "-o", "out", "--wait", "600")
    with pytest.raises(subprocess.TimeoutExpired):
        typed.run(words, tmp_path, os.environ, 1.0)
