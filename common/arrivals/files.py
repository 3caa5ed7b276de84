"""Files that somebody else may have put there: plain, bounded, and read whole or not at all.

A named pipe does not hang the reader, a link leads nowhere it should not, and a size is
looked at before a byte is read.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from common.errors import InputDataError

MIB: Final = 1 << 20


def read_bounded(path: Path, most: int, what: str, *, follow: bool = True) -> bytes:
    """Return a plain file's bytes.

    Args:
        path: of the file.
        most: bytes that it may have.
        what: it is, in words.
        follow: whether the last part of the path may be a link.

    Raises:
        FileNotFoundError: it is not there.
        InputDataError: not a plain file, larger, or not readable.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _cannot(what, path, error.strerror or "an error") from error
    try:
        with open(descriptor, "rb") as stream:  # noqa: PTH123 - of a descriptor
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _cannot(what, path, "something that is no plain file")
            if status.st_size > most:
                raise _too_large(what, most, f"{status.st_size} bytes")
            data = stream.read(most + 1)
    except OSError as error:
        raise _cannot(what, path, error.strerror or "an error") from error
    if len(data) > most:
        raise _too_large(what, most, "more")
    return data


def _cannot(what: str, path: Path, got: str) -> InputDataError:
    return InputDataError(f"cannot read {what}", field=path.name, expected="a plain file", got=got)


def _too_large(what: str, most: int, got: str) -> InputDataError:
    return InputDataError(
        f"{what} is too large", expected=f"at most {most} bytes", got=got, advice="It was not read"
    )
