"""Worker and courier as two processes of the operating system, kept running.

They share nothing but the spool folder; this process reads neither images nor
keys, and what its children write it only passes on. A child that dies is started
again after a pause that doubles. One that found a broken ledger, a wrong certificate
or a revoked key is not: trying again would not help, and a person must look.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from common.errors import ExitCode
from common.extras import python_with
from common.screen import VARIABLE as SCREEN
from site_client.notify import VARIABLE, notify

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
HEALTHY_S = 60.0
GRACE_S = 20.0
POLL_S = 0.2
LAST_WORDS_S = 2.0
FINAL = frozenset({int(ExitCode.USAGE), int(ExitCode.VERIFICATION_FAILED)})
Say = Callable[[str], None]


class Child:
    """One kept process.

    Args:
        name: for the status line.
        command: its command line.
        say: takes one line when something changes.
        show: takes, then too, how the process stands now.
        hear: takes each line that the process writes; it writes where we do when omitted.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        say: Say,
        show: Say | None = None,
        hear: Say | None = None,
    ) -> None:
        self.name = name
        self._command = list(command)
        self._say = say
        self._show = show
        self._hear = hear
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: threading.Thread | None = None
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
                self._process = self._start()
                self._since = now
                self._say(f"{self.name} started (process {self._process.pid})")
                self._set(f"runs (process {self._process.pid})")
            return None
        code = self._process.poll()
        if code is None:
            return None
        self._hear_out()
        self._process = None
        if code in FINAL:
            self._tell(f"ended with exit {code}; a restart would not help")
            return code
        if now - self._since > HEALTHY_S:
            self._pause = FIRST_PAUSE_S
        self._next = now + self._pause
        self._tell(f"ended with exit {code}; again in {self._pause:.0f} s")
        self._pause = min(2 * self._pause, LONGEST_PAUSE_S)
        return None

    def ask_to_stop(self) -> None:
        """SIGTERM."""
        if self._process is not None and self._process.poll() is None:
            self._set("stopping")
            self._process.terminate()

    def wait(self, deadline: float) -> None:
        """Wait until ``deadline`` (monotonic), then SIGKILL."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._tell("did not stop in time and was killed")
            self._process.kill()
            self._process.wait()
        self._hear_out()
        self._set(f"ended with exit {self._process.returncode}")

    def _start(self) -> subprocess.Popen[bytes]:
        # Only this process speaks to systemd: it alone knows when both run.
        environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
        if self._hear is None:
            return subprocess.Popen(self._command, env=environment)
        process = subprocess.Popen(
            self._command,
            env=environment | {SCREEN: "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._listener = threading.Thread(
            target=_listen, args=(process, self._hear), daemon=True, name=f"{self.name} says"
        )
        self._listener.start()
        return process

    def _hear_out(self) -> None:
        """Hear what it said last, before anybody says that it ended."""
        if self._listener is not None:
            self._listener.join(LAST_WORDS_S)

    def _tell(self, what: str) -> None:
        self._set(what)
        self._say(f"{self.name} {what}")

    def _set(self, state: str) -> None:
        if self._show is not None:
            self._show(state)


def _listen(process: subprocess.Popen[bytes], hear: Say) -> None:
    """Pass on what a process writes, line by line, until it has closed its output."""
    if process.stdout is not None:
        with process.stdout as lines:
            for line in lines:
                hear(line.decode("utf-8", errors="replace").rstrip("\r\n"))


def commands(root: Path, carrier: str = "courier") -> dict[str, list[str]]:
    """The two command lines of a site.

    Each by an interpreter that has what it needs: this one, or of an installed release the one
    of its own environment. With ``-P``, so that a file of the folder one stands in is never
    taken for a module.

    Args:
        root: the site's folder.
        carrier: who holds the connection to the aggregator.

    Raises:
        MissingExtraError: what one of them needs is not installed.
    """
    lines = {
        role: [python_with(role), "-P", "-m", "site_client.cli", role, "--site-dir", str(root)]
        for role in ("worker", "courier")
    }
    lines["courier"] += ["--carrier", carrier]
    return lines


def keep_running(children: Sequence[Child], stop: threading.Event, say: Say) -> int:
    """Until ``stop`` is set, or a child ends for a reason that a restart cannot mend.

    Returns:
        The exit code to end with.
    """
    final, announced = int(ExitCode.OK), False
    while not stop.is_set():
        codes = [code for code in [child.look() for child in children] if code is not None]
        if codes:
            final = codes[0]
            break
        if not announced and all(child.pid is not None for child in children):
            announced = True
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
