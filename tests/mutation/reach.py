"""Which tests reach which line of a room, and how long each takes.

One run of the tests under ``coverage``, a context per test. What a shared fixture
runs counts for every test of its file, because the first that asks for it runs it.
What runs at import (bounds, constants) counts for every test that reaches the module.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import coverage
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Reach:
    """Tests by line.

    Attributes:
        lines: module -> line -> tests that run it.
        seconds: test -> how long it takes.
    """

    lines: dict[str, dict[int, frozenset[str]]]
    seconds: dict[str, float]

    def tests_of(self, module: str, line: int, most_s: float) -> list[str]:
        """The tests that can notice a change there, quick ones first, up to ``most_s`` seconds."""
        reached = self.lines.get(module, {})
        tests = reached.get(line, frozenset())
        if not tests:
            tests = frozenset().union(*reached.values())
        chosen, spent = [], 0.0
        for test in sorted(tests, key=lambda name: (self.seconds.get(name, 0.0), name)):
            spent += self.seconds.get(test, 0.0)
            if chosen and spent > most_s:
                break
            chosen.append(test)
        return chosen


def measure(rooms: Sequence[str], tests: Sequence[str], folder: Path, jobs: int = 1) -> Reach:
    """Run the tests once and note what they reach.

    Args:
        rooms: files that matter, as patterns from the top.
        tests: folders whose tests pytest is to run.
        folder: where the notes are kept.
        jobs: processes; each runs whole files.

    A test that fails without any change tells nothing of one, and is left out.

    Raises:
        RuntimeError: the tests could not be run.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    settings = folder / "coveragerc"
    settings.write_text(
        f"[run]\ninclude = {','.join(rooms)}\ndata_file = {folder / 'coverage'}\nparallel = true\n"
    )
    files = sorted(
        (path for test in tests for path in (REPOSITORY / test).rglob("test_*.py")),
        key=lambda path: (-path.stat().st_size, path),
    )
    shares = [files[first::jobs] for first in range(jobs)]
    running = [
        subprocess.Popen(_command(settings, folder / f"seconds-{n}.json", share), cwd=REPOSITORY)
        for n, share in enumerate(shares)
    ]
    codes = [process.wait() for process in running]
    if not set(codes) <= {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
        raise RuntimeError(f"the tests cannot be run: {codes}")
    combine = [sys.executable, "-m", "coverage", "combine", "-q", f"--rcfile={settings}"]
    subprocess.run(combine, cwd=REPOSITORY, check=True)
    return read(folder)


def _command(settings: Path, seconds: Path, files: Sequence[Path]) -> list[str]:
    return [
        sys.executable, "-m", "coverage", "run", f"--rcfile={settings}",
        "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider",
        "-p", "tests.mutation.reach", "--hypothesis-seed=0", f"--reach-seconds={seconds}",
        *map(str, files),
    ]  # fmt: skip


def read(folder: Path) -> Reach:
    """Read what ``measure`` kept."""
    seconds: dict[str, float] = {}
    for path in sorted(folder.glob("seconds-*.json")):
        seconds |= json.loads(path.read_text())["passed"]
    data = coverage.CoverageData(str(folder / "coverage"))
    data.read()
    by_file: dict[str, set[str]] = defaultdict(set)
    for name in seconds:
        by_file[name.split("::")[0]].add(name)
    lines: dict[str, dict[int, frozenset[str]]] = {}
    for file in data.measured_files():
        module = Path(file).relative_to(REPOSITORY).as_posix()
        lines[module] = {
            line: frozenset(_tests(contexts, by_file)) & seconds.keys()
            for line, contexts in data.contexts_by_lineno(file).items()
        }
    return Reach(lines, seconds)


def _tests(contexts: Sequence[str], by_file: dict[str, set[str]]) -> Iterator[str]:
    for context in contexts:
        test, _, phase = context.rpartition("|")
        if phase == "setup":
            yield from by_file[test.split("::")[0]]
        elif test:
            yield test


# As a plug-in of pytest: tells coverage which test runs, and how long each took.


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reach-seconds", type=Path, default=None)


class _Contexts:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._seconds: dict[str, float] = {}
        self._failed: set[str] = set()

    def _switch(self, item: pytest.Item, phase: str) -> None:
        running = coverage.Coverage.current()
        if running is not None:
            running.switch_context(f"{item.nodeid}|{phase}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self._switch(item, "setup")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        self._switch(item, "call")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self._failed.add(report.nodeid)
        else:
            spent = self._seconds.get(report.nodeid, 0.0) + report.duration
            self._seconds[report.nodeid] = spent

    def pytest_sessionfinish(self) -> None:
        passed = {t: s for t, s in self._seconds.items() if t not in self._failed}
        told = {"passed": passed, "failed": sorted(self._failed)}
        self._path.write_text(json.dumps(told))


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--reach-seconds")
    if path is not None:
        config.pluginmanager.register(_Contexts(path))
