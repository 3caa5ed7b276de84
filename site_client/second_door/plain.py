"""Reading a file that somebody else may have put there: a plain file, once, and no more.

What is opened is looked at on the open descriptor and read from it once; its name is not
used again. So nothing can be exchanged between the look and the reading, and what is no
file (a pipe, a link, a folder, a device) is neither followed nor waited for.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from common.errors import RefusedError

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_LOOPS = frozenset({errno.ELOOP, errno.EMLINK})
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFDIR: "a folder",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class NotPlainError(RefusedError):
    """Something under a file's name that is no plain file of its own."""


def open_folder(path: Path, parent: int | None = None) -> int:
    """Open a folder that is no link; the caller closes the descriptor.

    Args:
        path: of the folder; with ``parent`` its name in there.
        parent: descriptor of the folder that it lies in.

    Raises:
        NotPlainError: something else lies there.
        OSError: nothing does, or it may not be opened.
    """
    try:
        return os.open(
            path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent
        )
    except NotADirectoryError as error:
        raise NotPlainError(
            "not a folder", field=path.name, expected="a folder", got="something else"
        ) from error


def read_plain(path: Path | str, most: int, folder: int) -> bytes:
    """Return the bytes of a plain file.

    Args:
        path: name of the file in its folder.
        most: bytes that it may have.
        folder: descriptor of that folder.

    Raises:
        NotPlainError: a link, pipe, folder, device or socket, or another name's file.
        RefusedError: more bytes than that.
        OSError: nothing there, or it may not be read.
    """
    name = Path(path).name
    # Looked at before it is opened, too: the mere opening of a device can do something.
    _require_plain(os.stat(path, dir_fd=folder, follow_symlinks=False), name)
    try:
        descriptor = os.open(path, _OPEN, dir_fd=folder)
    except OSError as error:
        if error.errno in _LOOPS:
            raise _not_plain(name, "a symbolic link") from error
        raise
    try:
        _require_plain(os.fstat(descriptor), name)
        return _read(descriptor, most, name)
    finally:
        os.close(descriptor)


def _read(descriptor: int, most: int, name: str) -> bytes:
    size = os.fstat(descriptor).st_size
    pieces: list[bytes] = []
    total = 0
    while size <= most and total <= most:
        piece = os.read(descriptor, min(most + 1 - total, 1 << 24))
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        total += len(piece)
    raise RefusedError(
        "a file is too long", field=name, expected=f"at most {most} bytes", got="more"
    )


def _require_plain(state: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(state.st_mode):
        raise _not_plain(name, _KINDS.get(stat.S_IFMT(state.st_mode), "something else"))
    if state.st_nlink != 1:
        raise _not_plain(name, "a file with several names")


def _not_plain(name: str, got: str) -> NotPlainError:
    return NotPlainError("not a plain file", field=name, expected="a plain file", got=got)
