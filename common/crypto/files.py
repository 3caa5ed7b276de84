"""Secrets on disk: written once, for their owner alone, refused when others can read them.

Nothing here may overwrite a file, follow a half-written one, or quote a byte of
a secret in an error.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from common.errors import InputDataError

MAX_KEY_FILE_BYTES = 64 * 1024


def write_new_file(path: Path, data: bytes, *, mode: int) -> None:
    """Create ``path`` durably with exactly ``data``; an existing file is never touched.

    Args:
        path: where; its folder must exist.
        data: the whole content.
        mode: permission bits, e.g. ``0o600``; the umask may only take bits away.

    Raises:
        InputDataError: the file exists already, or cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    except FileExistsError as error:
        raise InputDataError(
            "a key file would be overwritten",
            field=str(path),
            expected="absent",
            got="an existing file",
            advice="Move it away first if it is no longer wanted",
        ) from error
    except OSError as error:
        raise _cannot("write", path, error) from error
    try:
        try:
            _write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        path.unlink(missing_ok=True)  # a half-written key is worse than none
        raise _cannot("write", path, error) from error


def write_secret(path: Path, data: bytes) -> None:
    """Create ``path`` with mode 0600.

    Raises:
        InputDataError: the file exists already, or cannot be written.
    """
    write_new_file(path, data, mode=0o600)


def write_public(path: Path, data: bytes) -> None:
    """Create ``path`` with mode 0644: a public key or a certificate.

    Raises:
        InputDataError: the file exists already, or cannot be written.
    """
    write_new_file(path, data, mode=0o644)


def read_secret(path: Path) -> bytes:
    """Return the bytes of a secret file.

    Raises:
        InputDataError: absent, not a plain file, too large, or open to group or others.
    """
    return _read(path, private=True)


def read_public(path: Path) -> bytes:
    """Return the bytes of a public key or certificate file.

    Raises:
        InputDataError: absent, not a plain file, or too large.
    """
    return _read(path, private=False)


def _read(path: Path, *, private: bool) -> bytes:
    try:
        # O_NONBLOCK: a named pipe in the place of a key must not hang the program.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:  # noqa: PTH123
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputDataError(
                    "not a key file", field=str(path), expected="a plain file", got="something else"
                )
            if private and status.st_mode & 0o077:
                raise InputDataError(
                    "a private key is open to others",
                    field=str(path),
                    expected="mode 600",
                    got=f"mode {stat.S_IMODE(status.st_mode):o}",
                    advice=f"Run: chmod 600 {path}",
                )
            data = stream.read(MAX_KEY_FILE_BYTES + 1)
    except OSError as error:
        raise _cannot("read", path, error) from error
    if len(data) > MAX_KEY_FILE_BYTES:
        raise InputDataError(
            "not a key file",
            field=str(path),
            expected=f"at most {MAX_KEY_FILE_BYTES} bytes",
            got="more",
        )
    return data


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _cannot(verb: str, path: Path, error: OSError) -> InputDataError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return InputDataError(
        f"cannot {verb} a key file",
        field=str(path),
        got=error.strerror or "an error",
        advice="Make room, then type the same again" if full else "",
    )
