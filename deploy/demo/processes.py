"""The demonstration's processes: started with a log each, watched, and always ended again.

Only processes started here are ended, by their ids, also when the
demonstration fails or is interrupted.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import click
import psutil

from common.errors import CairnError, InternalError

NICE = 10
STOP_S = 15.0
SAMPLE_S = 1.0


class Processes:
    """Commands of one demonstration.

    Args:
        folder: where the commands run; logs go to ``logs/`` below it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._logs = folder / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.peak_mb: dict[str, float] = {}
        self.cpu_s: dict[str, float] = {}
        self._done = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        self._sampler.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._sampler.join()
        self.stop()

    def run(self, *words: str, quiet: bool = True) -> str:
        """Run a command to its end, as a person would type it, and return what it printed.

        Raises:
            InternalError: it failed; its last lines are shown.
        """
        click.secho(f"$ {shlex.join(words)}", dim=True)
        done = subprocess.run(
            words,
            cwd=self._folder,
            env=environment(),
            stdout=subprocess.PIPE if quiet else None,
            stderr=subprocess.PIPE if quiet else None,
            encoding="utf-8",
            check=False,
        )
        if done.returncode != 0:
            said = ((done.stdout or "") + (done.stderr or "")).strip().splitlines()[-5:]
            raise InternalError(
                "a command of the demonstration failed",
                field=shlex.join(words[:3]),
                expected="exit status 0",
                got=f"{done.returncode}",
                advice=" | ".join(said),
            )
        return done.stdout or ""

    def run_each(self, commands: Iterable[Sequence[str]]) -> list[str]:
        """Run commands that do not wait for each other, as people at several sites would.

        Returns:
            what each printed, in the order given.

        Raises:
            InternalError: one failed.
        """
        with ThreadPoolExecutor() as people:
            return list(people.map(lambda words: self.run(*words), commands))

    def start(self, name: str, *words: str, nice: int = 0) -> None:
        """Start a long-lived command; its output goes to ``logs/NAME.log``.

        Args:
            name: of the log, and in ``wait``.
            *words: the command.
            nice: how far it steps back behind others.
        """
        click.secho(f"$ {shlex.join(words)} &", dim=True)
        with (self._logs / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                (["nice", "-n", str(nice)] if nice else []) + list(words),
                cwd=self._folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_for_text(self, name: str, text: str, seconds: float) -> None:
        """Until a command's log holds ``text``.

        Raises:
            InternalError: it ended, or said nothing in time.
        """
        until = time.monotonic() + seconds
        path = self._logs / f"{name}.log"
        while text not in path.read_text(encoding="utf-8", errors="replace"):
            if self._running[name].poll() is not None or time.monotonic() > until:
                raise self._failed(name, f"the words {text!r}")
            time.sleep(0.1)

    def wait(self, name: str, seconds: float) -> None:
        """Until a command ends well.

        Raises:
            InternalError: it failed or did not end in time.
        """
        try:
            code = self._running[name].wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        if code != 0:
            raise self._failed(name, "exit status 0")
        del self._running[name]

    def require_alive(self) -> None:
        """Every long-lived command still runs.

        Raises:
            InternalError: names the one that ended.
        """
        for name, process in self._running.items():
            if process.poll() not in (None, 0):
                raise self._failed(name, "to go on running")

    def stop(self) -> None:
        """End whatever still runs: politely, then for good."""
        for process in self._running.values():
            if process.poll() is None:
                process.terminate()
        until = time.monotonic() + STOP_S
        for process in self._running.values():
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()

    def _failed(self, name: str, expected: str) -> CairnError:
        log = self._logs / f"{name}.log"
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:]
        return InternalError(
            f"{name} did not do its part", expected=expected, advice=" | ".join(last)
        )

    def _sample(self) -> None:
        """Largest memory and newest processor time of each command with its children."""
        while not self._done.wait(SAMPLE_S):
            total = 0.0
            for name, process in list(self._running.items()):
                size, cpu_s = usage(process.pid)
                total += size
                self.peak_mb[name] = max(size, self.peak_mb.get(name, 0.0))
                self.cpu_s[name] = max(cpu_s, self.cpu_s.get(name, 0.0))
            self.peak_mb["all"] = max(total, self.peak_mb.get("all", 0.0))


def usage(pid: int) -> tuple[float, float]:
    """Resident memory (MB) and processor time (s) of a process and its descendants."""
    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return 0.0, 0.0
    size, cpu_s = 0, 0.0
    for process in family:
        try:
            size += process.memory_info().rss
            times = process.cpu_times()
            cpu_s += times.user + times.system
        except psutil.Error:
            continue
    return size / 1e6, cpu_s


def environment() -> dict[str, str]:
    """Build the environment of every command here: our programs first, one thread each."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
