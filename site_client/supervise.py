"""Worker and courier as two processes of the operating system, kept running.

They share nothing but the spool folder; this process reads neither images nor
keys. A child that dies is started again after a pause that doubles. One that
found a broken ledger, a wrong certificate or a revoked key is not: trying again
would not help, and a person must look.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from common.errors import ExitCode
from site_client.notify import VARIABLE, notify

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
HEALTHY_S = 60.0
GRACE_S = 20.0
POLL_S = 0.2
FINAL = frozenset({int(ExitCode.USAGE), int(ExitCode.VERIFICATION_FAILED)})
Say = Callable[[str], None]


class Child:
    """One kept process.

    Args:
        name: for the status line.
        command: its command line.
        say: takes one line when something changes.
    """

    def __init__(self, name: str, command: Sequence[str], say: Say) -> None:
        self.name = name
        self._command = list(command)
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._pause = FIRST_PAUSE_S
        self._since = 0.0
        self._next = 0.0

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def look(self) -> int | None:
        """Start it if it is due; returns the exit code that no restart can help, if any."""
        now = time.monotonic()
        if self._process is None:
            if now >= self._next:
                # Only this process speaks to systemd: it alone knows when both run.
                own = {n: v for n, v in os.environ.items() if n != VARIABLE}
                self._process = subprocess.Popen(self._command, env=own)
                self._since = now
                self._say(f"{self.name} started (process {self._process.pid})")
            return None
        code = self._process.poll()
        if code is None:
            return None
        self._process = None
        if code in FINAL:
            self._say(f"{self.name} ended with exit {code}; a restart would not help")
            return code
        if now - self._since > HEALTHY_S:
            self._pause = FIRST_PAUSE_S
        self._next = now + self._pause
        self._say(f"{self.name} ended with exit {code}; again in {self._pause:.0f} s")
        self._pause = min(2 * self._pause, LONGEST_PAUSE_S)
        return None

    def ask_to_stop(self) -> None:
        """SIGTERM."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait(self, deadline: float) -> None:
        """Wait until ``deadline`` (monotonic), then SIGKILL."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._say(f"{self.name} did not stop in time and was killed")
            self._process.kill()
            self._process.wait()


def commands(root: Path) -> dict[str, list[str]]:
    """The two command lines of a site."""
    program = [sys.executable, "-m", "site_client.cli"]
    return {
        "worker": [*program, "worker", "--site-dir", str(root)],
        "courier": [*program, "courier", "--site-dir", str(root)],
    }


def keep_running(children: Sequence[Child], stop: threading.Event, say: Say) -> int:
    """Until ``stop`` is set, or a child ends for a reason that a restart cannot mend.

    Returns:
        The exit code to end with.
    """
    final, told = int(ExitCode.OK), False
    while not stop.is_set():
        codes = [code for code in [child.look() for child in children] if code is not None]
        if codes:
            final = codes[0]
            break
        if not told and all(child.pid is not None for child in children):
            told = True
            notify(ready=True, status="worker and courier run")
        stop.wait(POLL_S)
    notify(stopping=True, status="an order in hand is finished or left for the next start")
    say("stopping")
    for child in children:
        child.ask_to_stop()
    deadline = time.monotonic() + GRACE_S
    for child in children:
        child.wait(deadline)
    return final
