"""The outbox as the courier sees it: a folder in which anything may lie.

A file is opened once, as a plain file of one name, and read once; what was read is what
is checked and sent. Names are never followed. What does not belong there is taken out of
the way into ``spool/refused``, said, and kept for a person to look at.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.canonical import sha256_hex
from common.errors import RefusedError
from site_client.second_door.plain import NotPlainError, open_folder, read_plain
from site_client.spool import Spool

MOST_BYTES = 1 << 30
"""Of one reply: far above what any plan's caps allow, and what a machine can hold."""
MOST_KEPT = 64
"""Things kept for a person; more are removed, so that nobody fills the disk with them."""
TEMPORARY_S = 60.0
"""A file that the first door is still writing has its final name long before."""
_OURS = re.compile(r"[0-9a-f]{64}\.(reply|keys)|[0-9a-f]{16}\.checkpoint")
_TEMPORARY = re.compile(r"\.([0-9a-f]{64}\.(reply|keys)|[0-9a-f]{16}\.checkpoint)\.[0-9a-f]{32}")


class Outbox:
    """The outbox, and the folder of what was taken out of it.

    Args:
        spool: of the site.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a file of the outbox; None while there is none.

        Raises:
            RefusedError: it is no plain file, or a huge one.
        """
        with self._folder() as folder:
            try:
                return read_plain(name, MOST_BYTES, folder)
            except FileNotFoundError:
                return None
            except OSError as error:
                raise RefusedError(
                    "a file of the outbox cannot be read",
                    field=name,
                    expected="a file",
                    got=error.strerror or "an error",
                ) from error

    def strangers(self, now: float | None = None) -> list[str]:
        """Names of what does not belong into the outbox, whatever it is.

        Args:
            now: seconds since 1970; the clock's when omitted.

        Raises:
            RefusedError: the outbox is no folder.
        """
        moment = time.time() if now is None else now
        with self._folder() as folder:
            return sorted(
                name
                for name in os.listdir(folder)  # noqa: PTH208 -- of an open descriptor
                if self._is_strange(folder, name, moment)
            )

    def waiting(self, suffix: str) -> list[str]:
        """Names of files with this ending that may be read."""
        with self._folder() as folder:
            return sorted(
                name
                for name in os.listdir(folder)  # noqa: PTH208 -- of an open descriptor
                if _OURS.fullmatch(name) and name.endswith(suffix)
            )

    def remove(self, name: str) -> None:
        """Remove a file that was sent; its name, whatever lies there now."""
        with (
            suppress(NotPlainError, FileNotFoundError, IsADirectoryError),
            self._folder() as folder,
        ):
            os.unlink(name, dir_fd=folder)

    def set_aside(self, name: str) -> None:
        """Take something out of the outbox without opening it."""
        aside = self._spool.root / "refused"
        aside.mkdir(mode=0o700, exist_ok=True)
        # An outbox that was exchanged meanwhile is refused at the next look.
        with suppress(NotPlainError), self._folder() as folder:
            target = open_folder(aside)
            try:
                full = len(os.listdir(target)) >= MOST_KEPT  # noqa: PTH208
                state = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if full and not stat.S_ISDIR(state.st_mode):
                    os.unlink(name, dir_fd=folder)
                    return
                # Its name may be anything; a digest of it is not.
                place = f"{sha256_hex(os.fsencode(name))[:16]}-{time.time_ns()}"
                os.rename(name, place, src_dir_fd=folder, dst_dir_fd=target)
            except FileNotFoundError:
                return
            finally:
                os.close(target)

    def _is_strange(self, folder: int, name: str, now: float) -> bool:
        if _OURS.fullmatch(name):
            return False
        if _TEMPORARY.fullmatch(name) is None:
            return True
        with suppress(FileNotFoundError):
            return now - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime > TEMPORARY_S
        return False

    @contextmanager
    def _folder(self) -> Iterator[int]:
        try:
            root = open_folder(self._spool.root)
            try:
                folder = open_folder(Path("outbox"), root)
            finally:
                os.close(root)
        except NotPlainError:
            raise
        except OSError as error:
            raise NotPlainError(
                "the outbox is no folder",
                field="outbox",
                expected="a folder of its own",
                got=error.strerror or "an error",
                advice="Stop the courier, and look who exchanged it",
            ) from error
        try:
            yield folder
        finally:
            os.close(folder)
