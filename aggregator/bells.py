"""Bells between the aggregator's own processes: something waits, go and look.

The ServerApp rings for sites that it has an order for; the desk hears and tells them. The
guard before the SuperLink rings when a reply is complete; the ServerApp hears. A bell is an
empty file with a name, renamed into place, so that the kernel wakes whoever watches. One
that nobody hears, or that cannot be rung, costs time and nothing else.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

from common.waking import Alarm

LOOK_S = 0.25
"""Between two looks where the kernel tells nothing."""
LONGEST_S = 30.0
_LOG = logging.getLogger(__name__)


def ring(folder: Path, names: Iterable[str]) -> None:
    """Ring the bells of these names; a disk that refuses is said in the log, and no error.

    Args:
        folder: of the bells; made where it is not there.
        names: of bells: sites' names.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            temporary = folder / f".{uuid.uuid4().hex}"
            temporary.touch()
            temporary.replace(folder / name)
    except OSError as error:
        _LOG.warning("a bell could not be rung: %s", error.strerror)


def make_folder(folder: Path) -> Path:
    """Return a folder of bells that is there and empty: what rang before is over."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in list(folder.iterdir()):
        path.unlink(missing_ok=True)
    return folder


class Bells:
    """Hears the bells of one folder, for as many listeners as there are.

    Args:
        folder: of the bells; exists.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._alarm = Alarm(folder)
        self._seen = self._look()
        self._rung: dict[str, int] = {}
        self._changed = threading.Condition()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._hear, name="bells", daemon=True)

    def start(self) -> None:
        """Begin to hear."""
        self._thread.start()

    def stop(self) -> None:
        """Hear no longer; whoever listens goes on at once."""
        self._over.set()
        self._alarm.ring()
        with self._changed:
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        self._alarm.close()

    @property
    def over(self) -> bool:
        """Tell whether nobody hears any longer."""
        return self._over.is_set()

    def times(self, name: str) -> int:
        """Count how often a bell was heard."""
        with self._changed:
            return self._rung.get(name, 0)

    def wait(
        self, name: str, before: int, seconds: float, ends: Callable[[], bool] = lambda: False
    ) -> int:
        """Sleep until a bell was heard again.

        Args:
            name: of the bell.
            before: how often it was heard before.
            seconds: at most.
            ends: whether to sleep no longer; asked when somebody calls ``wake``.

        Returns:
            How often it was heard by now.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self.over or ends() or self._rung.get(name, 0) > before, seconds
            )
            return self._rung.get(name, 0)

    def wake(self) -> None:
        """Have all listeners look whether they are still wanted."""
        with self._changed:
            self._changed.notify_all()

    def _hear(self) -> None:
        while not self._over.is_set():
            self._alarm.wait(LONGEST_S if self._alarm.watches else LOOK_S)
            now = self._look()
            rung = [name for name, file in now.items() if self._seen.get(name) != file]
            self._seen = now
            if rung:
                with self._changed:
                    for name in rung:
                        self._rung[name] = self._rung.get(name, 0) + 1
                    self._changed.notify_all()

    def _look(self) -> dict[str, tuple[int, int]]:
        """Return each bell's file, by name: one that was rung again is another file."""
        files: dict[str, tuple[int, int]] = {}
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    if not entry.name.startswith("."):
                        files[entry.name] = (entry.stat().st_mtime_ns, entry.inode())
        except OSError:
            return {}
        return files
