"""Reading files that somebody else may have put there.

A ledger's folder comes to an auditor as it is: a name in it may be a named pipe that
never answers, a link to somewhere else, a device without an end, or a sparse file of a
terabyte. So nothing here follows a link, waits for a writer, or reads more than it was
told to expect. What is no plain file does not hold, and that is said as such.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import InputDataError, VerificationError

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_CHUNK = 1 << 20
_NO_FILE = (errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EISDIR)


class IrregularError(VerificationError):
    """Something lies under a file's name that is no plain file, or is larger than may be."""


class UnreadableError(InputDataError):
    """The disk, or a mode, keeps a file from being read: that says nothing about it."""


@contextmanager
def open_regular(path: Path, what: str) -> Iterator[int]:
    """Open a plain file for reading; yields its descriptor.

    Args:
        path: of the file; its last part may not be a link.
        what: it is, for the message.

    Raises:
        FileNotFoundError: there is none.
        IrregularError: a link, a pipe, a device, a socket or a folder.
        UnreadableError: it may not be read.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _NO_FILE:
            raise _irregular(path, what, "no plain file") from error
        raise _unreadable(path, what, error) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _irregular(path, what, _kind(os.fstat(descriptor).st_mode))
        yield descriptor
    finally:
        os.close(descriptor)


def read_regular(path: Path, what: str, at_most: int) -> bytes:
    """Return the content of a plain file of at most so many bytes.

    Raises:
        UnreadableError: there is none, or it may not be read.
        IrregularError: no plain file, or larger.
    """
    data = read_if_there(path, what, at_most)
    if data is None:
        raise UnreadableError(f"cannot read the {what}", field=str(path), got="no file")
    return data


def read_if_there(path: Path, what: str, at_most: int) -> bytes | None:
    """Do the same; None without a file.

    Raises:
        UnreadableError: it may not be read.
        IrregularError: no plain file, or larger.
    """
    try:
        with open_regular(path, what) as descriptor:
            size = os.fstat(descriptor).st_size
            if size > at_most:
                raise _irregular(path, what, f"{size} bytes", f"at most {at_most} bytes")
            return _read(descriptor, at_most, path, what)
    except FileNotFoundError:
        return None


def names_in(folder: Path, what: str) -> list[str]:
    """Return the names in a folder, sorted; of none if there is no such folder.

    Raises:
        IrregularError: it is a link, or no folder.
        UnreadableError: it may not be read.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    except OSError as error:
        if error.errno in (*_NO_FILE, errno.ENOTDIR):
            raise _irregular(folder, what, "something else", "a folder") from error
        raise _unreadable(folder, what, error) from error
    try:
        return sorted(os.listdir(descriptor))  # noqa: PTH208 - of what was opened, not of a path
    finally:
        os.close(descriptor)


def _read(descriptor: int, at_most: int, path: Path, what: str) -> bytes:
    """Read to the end; a file may grow meanwhile, but not beyond its bound."""
    parts, room = list[bytes](), at_most + 1
    try:
        while room and (part := os.read(descriptor, min(room, _CHUNK))):
            parts.append(part)
            room -= len(part)
    except OSError as error:
        raise _unreadable(path, what, error) from error
    if not room:
        raise _irregular(path, what, "more", f"at most {at_most} bytes")
    return b"".join(parts)


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
    )
    return next((name for test, name in kinds if test(mode)), "a device")


def _irregular(path: Path, what: str, got: str, expected: str = "a plain file") -> IrregularError:
    return IrregularError(
        f"the {what} is no such thing", field=path.name, expected=expected, got=got
    )


def _unreadable(path: Path, what: str, error: OSError) -> UnreadableError:
    return UnreadableError(
        f"cannot read the {what}", field=str(path), got=error.strerror or "an error"
    )
