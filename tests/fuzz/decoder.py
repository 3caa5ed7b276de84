"""One reader under test: what it starts from, how that is bent, and what it goes through.

``covers`` names the functions of the product that a reader here goes through. A function
whose name says that it reads, and that stands neither there nor among the exceptions of
``test_fuzz``, fails the test that looks for such functions: whoever adds a decoder adds it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz import mutations

Reader = Callable[[bytes], object]


@dataclass(frozen=True)
class Decoder:
    """One reader.

    Attributes:
        name: for people.
        seeds: valid messages.
        mutate: bends one.
        read: raises nothing that is not declared, whatever it is given.
        covers: functions of the product that it goes through, by module and name.
        declared: errors beside ``CairnError`` that its caller expects.
    """

    name: str
    seeds: tuple[bytes, ...]
    mutate: mutations.Mutate
    read: Reader
    covers: tuple[str, ...]
    declared: tuple[type[Exception], ...] = ()


# In memory where there is any; what is in it goes with the process.
_KEPT = tempfile.TemporaryDirectory(
    prefix="cairn-fuzz-",
    dir="/dev/shm" if Path("/dev/shm").is_dir() else None,
)


def folder() -> Path:
    return Path(_KEPT.name)


def filed(read: Callable[[Path], object], name: str) -> Reader:
    """Read from a file what was given as bytes."""

    def reader(data: bytes) -> object:
        path = folder() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return read(path)

    return reader


def text(read: Callable[[str], object]) -> Reader:
    """Read as text, as much as the bytes are."""
    return lambda data: read(data.decode("utf-8", "replace"))
