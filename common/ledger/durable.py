"""Writes that survive a power cut: the order of fsync and rename lives here and nowhere else.

A file appears under its name only when it is complete and on the disk. A failed
write is never retried on the same descriptor: after an fsync error the kernel
may have dropped the pages and report success the next time.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

from common.errors import CairnError, ExitCode

TEMPORARY_PREFIX = ".tmp-"


class StorageError(CairnError):
    """The disk did not take a write; nothing that depended on it may be sent."""

    exit_code = ExitCode.BAD_INPUT


def storage_error(error: OSError, path: Path) -> StorageError:
    """Return the error a person sees when the disk fails under ``path``."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            "the disk is full",
            field=str(path),
            expected="room for the ledger",
            got=error.strerror or "no space",
            advice="Nothing was sent. Free some space and start again",
        )
    return StorageError(
        "the disk refused a write",
        field=str(path),
        expected="a durable write",
        got=error.strerror or "an error",
        advice="Nothing was sent. Check the volume and start again",
    )


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte; ``os.write`` may write fewer.

    Raises:
        OSError: the disk refused.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def fsync_directory(folder: Path) -> None:
    """Make the names in ``folder`` durable.

    Raises:
        OSError: the disk refused.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_durably(path: Path, data: bytes, *, mode: int = 0o640) -> None:
    """Put ``data`` under ``path``, whole or not at all: temporary, fsync, rename, fsync folder.

    Only one writer per folder; the temporary name is ``.tmp-`` and the name.

    Raises:
        OSError: the disk refused; ``path`` is as it was, unless the folder's own
            fsync failed.
    """
    _replace(path, data, mode)
    fsync_directory(path.parent)


def replace_all_durably(folder: Path, files: Mapping[str, bytes], *, mode: int = 0o640) -> None:
    """Put files into one folder, each as ``replace_durably`` does, with one fsync of the folder.

    When it returns, all of them are durable. What a crash before that leaves is any of them,
    each whole: for files that belong to nothing until something later names them.

    Raises:
        OSError: the disk refused; some of them may be there.
    """
    for name, data in files.items():
        _replace(folder / name, data, mode)
    fsync_directory(folder)


def _replace(path: Path, data: bytes, mode: int) -> None:
    """Give the name to a whole file; the name itself is not durable yet."""
    temporary = path.with_name(TEMPORARY_PREFIX + path.name)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def append_line(path: Path, line: bytes) -> None:
    """Add one line to a file for good; half a line that a power cut left is cut off first.

    Raises:
        OSError: the disk refused.
    """
    known = path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    try:
        end = os.lseek(descriptor, 0, os.SEEK_END)
        if end and os.pread(descriptor, 1, end - 1) != b"\n":
            os.ftruncate(descriptor, path.read_bytes().rfind(b"\n") + 1)
        write_all(descriptor, line + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if not known:
        fsync_directory(path.parent)


def remove_temporaries(folder: Path) -> None:
    """Remove what an interrupted ``replace_durably`` left in ``folder``.

    Raises:
        OSError: the disk refused.
    """
    for leftover in folder.glob(TEMPORARY_PREFIX + "*"):
        leftover.unlink()
