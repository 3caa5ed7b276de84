"""Writing a file whole or not at all, results as JSON among them; knows no other room."""

from __future__ import annotations

import json
import math
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path


def atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Have ``write`` write and fsync another file, then give it this name, durably.

    The file is whole or absent, also after a crash, and however many write at once.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_atomically(path: Path, data: bytes) -> None:
    """Write, fsync, rename, fsync the folder: see ``atomically``."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    atomically(path, write)


def remove_whatever(path: Path) -> None:
    """Remove what lies under a name, a folder too; a link is removed and not followed.

    For names that others may write under: what cannot be removed would be met for ever.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError:
        shutil.rmtree(path, ignore_errors=True)


def write_json(path: Path, value: object) -> None:
    """Write a result; JSON has no NaN, a figure that is not known is null."""
    text = json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def plain(value: object) -> object:
    """Put None in the place of every number that is not finite."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
