"""Sleep that ends early: when somebody rings, or a file is renamed into a watched folder.

Watching is the kernel's (inotify). Where it cannot be had, or a folder lies where changes
come from another machine, nobody is woken, and time is up as it would be anyhow.

Source: Linux's inotify(7).
"""

from __future__ import annotations

import ctypes
import os
import select
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from common.waking.stopping import LONGEST_S, Stop

POLL_VARIABLE: Final = "CAIRN_POLL"
"""Set to 1, nothing is watched and nothing is told: everybody asks, as often as ever."""
_MOVED_TO, _GONE, _ONLY_FOLDERS = 0x80, 0x2000 | 0x8000 | 0x400 | 0x800, 0x01000000
"""A rename into the folder; the watch is over (unmounted, ignored, deleted, moved away)."""
_HEAD_BYTES: Final = 16
SLICE_S: Final = 0.25
"""How late a sleeper notices an event that wakes nobody; a `Stop` wakes at once."""


class Alarm:
    """One sleeper's alarm; may be rung by any thread of this process.

    Args:
        folders: to watch; they exist. A file that is renamed into one of them rings.

    Attributes:
        watches: whether the kernel tells of these folders; without any: True.
    """

    def __init__(self, *folders: Path) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._inotify = -1 if os.environ.get(POLL_VARIABLE) == "1" else _watch(folders)
        self.watches = self._inotify >= 0 or not folders
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def ring(self) -> None:
        """Wake the sleeper, now or at its next ``wait``; rung twice, it is woken once."""
        with self._lock, suppress(BlockingIOError):
            if not self._closed:
                os.write(self._write, b"\0")

    def wait(self, seconds: float, stop: threading.Event | None = None) -> bool:
        """Sleep.

        Args:
            seconds: at most.
            stop: ends the sleep: a `Stop` at once, another event is looked at four times
                a second.

        Returns:
            True if it was rung, by whomever; False if time is up.
        """
        until = time.monotonic() + seconds
        own = stop.descriptor if isinstance(stop, Stop) else -1
        longest = SLICE_S if stop is not None and own < 0 else LONGEST_S
        while stop is None or not stop.is_set():
            remaining = until - time.monotonic()
            if self._poll(max(0.0, min(remaining, longest)), own):
                return True
            if remaining <= 0:
                return False
        return False

    def close(self) -> None:
        """Watch no longer."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for descriptor in (self._read, self._write, self._inotify):
                if descriptor >= 0:
                    os.close(descriptor)

    def _poll(self, seconds: float, stop: int) -> bool:
        """Sleep until something was rung or ``stop`` can be read; True if it was rung."""
        poll = select.poll()
        for descriptor in (self._read, self._inotify, stop):
            if descriptor >= 0:
                poll.register(descriptor, select.POLLIN)
        rung = [descriptor for descriptor, _ in poll.poll(1000 * seconds) if descriptor != stop]
        for descriptor in rung:
            with suppress(BlockingIOError):
                data = os.read(descriptor, 1 << 16)
                if descriptor == self._inotify and _is_over(data):
                    # Where it lay is gone: from now on time alone wakes us.
                    os.close(self._inotify)
                    self._inotify, self.watches = -1, False
        return bool(rung)


def _watch(folders: Sequence[Path]) -> int:
    """Return a descriptor that tells of renames into these folders; -1 where there is none."""
    if not folders or sys.platform != "linux":
        return -1
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    if descriptor < 0:
        return -1
    for folder in folders:
        path = ctypes.c_char_p(os.fsencode(folder))
        if libc.inotify_add_watch(descriptor, path, _MOVED_TO | _GONE & 0xFFF | _ONLY_FOLDERS) < 0:
            os.close(descriptor)
            return -1
    return descriptor


def _is_over(data: bytes) -> bool:
    """Tell whether one of these events says that a watch has ended."""
    offset = 0
    while offset + _HEAD_BYTES <= len(data):
        mask = int.from_bytes(data[offset + 4 : offset + 8], sys.byteorder)
        if mask & _GONE:
            return True
        offset += _HEAD_BYTES + int.from_bytes(data[offset + 12 : offset + 16], sys.byteorder)
    return False
