"""A real process that appends to a ledger and "sends" as fast as it can, until it is ended.

One interpreter imports everything once and forks a writer whenever it is asked, so that a
thousand of them can be killed in minutes.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

_MAIN = """
import os, socket, sys
from datetime import UTC, datetime
from pathlib import Path
from common.crypto.identity import read_signing_key
from common.ledger.log import Ledger

folder, key, address, durable = sys.argv[1:]


def write():
    if durable == "no":
        os.fsync = lambda descriptor: None
    outside = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ledger = Ledger.open(Path(folder), "site-a/ledger", read_signing_key(Path(key)),
                         lambda: datetime.now(UTC))
    while True:
        digest = ledger.spool(os.urandom(3000))
        ledger.append("SEND", run="run-1", round=1, record_type="ModelUpdate",
                      payload_sha256=digest, bytes=3000, arrays=(), plan_fingerprint="a" * 64,
                      policy_sha256="b" * 64, phase="train", order_sha256="c" * 64)
        outside.sendto(digest.encode(), address)


child = 0
for line in sys.stdin:
    if line.strip() == "start":
        child = os.fork()
        if child == 0:
            try:
                write()
            finally:
                os._exit(1)
        print(child, flush=True)
    else:
        os.waitpid(child, 0)
        print("gone", flush=True)
"""


class Writers:
    """Starts writers, one at a time. Use as a context manager."""

    def __init__(self, ledger: Path, key: Path, address: Path, *, durable: bool = True) -> None:
        words = [str(ledger), str(key), str(address), "yes" if durable else "no"]
        self._forks = subprocess.Popen(
            [sys.executable, "-c", _MAIN, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._forks.communicate()

    def start(self) -> int:
        """Start a writer; its process number."""
        return int(self._say("start"))

    def kill(self, writer: int) -> None:
        """Kill it, and return when it is gone."""
        os.kill(writer, signal.SIGKILL)
        self._say("wait")

    def _say(self, word: str) -> str:
        assert self._forks.stdin is not None
        assert self._forks.stdout is not None
        self._forks.stdin.write(word + "\n")
        self._forks.stdin.flush()
        return self._forks.stdout.readline()


def drain(outside: socket.socket) -> set[str]:
    """Everything that was sent and not yet received."""
    outside.setblocking(False)
    received = set()
    try:
        while True:
            received.add(outside.recv(100).decode())
    except BlockingIOError:
        outside.setblocking(True)
        return received
