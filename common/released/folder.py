"""The files of a model's folder, and the only place here that reads or writes any.

::

    model.safetensors     the weights
    checkpoint.json       the agent's settings: what ``evaluate`` and ``play`` open
    card.md, card.json    for people, for machines
    plan.json             the plan, as it is fingerprinted
    provenance.json       where the model comes from
    provenance.sig        the aggregator's signature over that
    witness.pub           the aggregator's public key
    sums/0001.cairn ...   what the sites of each round sent together; optional
    start.safetensors     the model that the run started from, with sums and if it had one
"""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.arrivals.files import read_bounded
from common.checkpoint import ABOUT_FILE, MODEL_FILE
from common.errors import InputDataError, RefusedError, UsageError

CARD_FILE: Final = "card.json"
CARD_PAGE: Final = "card.md"
PLAN_FILE: Final = "plan.json"
PROVENANCE_FILE: Final = "provenance.json"
SIGNATURE_FILE: Final = "provenance.sig"
KEY_FILE: Final = "witness.pub"
START_FILE: Final = "start.safetensors"
SUMS: Final = "sums"
MAX_FILE_BYTES: Final = 1 << 31
SIGNED_FILES: Final = (MODEL_FILE, ABOUT_FILE, PLAN_FILE, CARD_FILE, CARD_PAGE)
"""Files whose digests the provenance holds."""

_FLAT: Final = frozenset({*SIGNED_FILES, PROVENANCE_FILE, SIGNATURE_FILE, KEY_FILE, START_FILE})
_SUM: Final = re.compile(SUMS + r"/([0-9]{4,6})\.cairn")


@dataclass(frozen=True)
class ModelFolder:
    """One model's folder, as it lies there; nothing in it is believed."""

    root: Path

    def read(self, name: str) -> bytes | None:
        """Read a file; None where there is none.

        Raises:
            InputDataError: it cannot be read, is no plain file, or is larger than any may be.
        """
        try:
            return read_bounded(self.root / name, MAX_FILE_BYTES, "a file of the model")
        except FileNotFoundError:
            return None

    @property
    def has_sums(self) -> bool:
        """True where sums came with it."""
        return (self.root / SUMS).is_dir()

    def sum_of(self, round_: int) -> bytes | None:
        """Read the sum of a round; None where there is none."""
        return self.read(sum_name(round_))


def open_folder(root: Path) -> ModelFolder:
    """Open a model's folder.

    Raises:
        InputDataError: it is none: it says nowhere where the model comes from.
    """
    folder = ModelFolder(root)
    if not (root / PROVENANCE_FILE).is_file():
        raise InputDataError(
            "not a model's folder",
            field=str(root),
            expected=f"{PROVENANCE_FILE}, as `cairn-aggregator model RUN -o DIR` writes it",
            got="a folder without" if root.is_dir() else "nothing there",
        )
    return folder


def sum_name(round_: int) -> str:
    """Name the file of a round's sum."""
    return f"{SUMS}/{round_:04d}.cairn"


def check_new(place: Path) -> None:
    """Refuse to write a model over anything.

    Raises:
        UsageError: something is there.
    """
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UsageError(
            "a model is not written over anything",
            field=str(place),
            expected="a folder that is new, or empty",
            got="one with files" if place.is_dir() else "a file",
        )


@contextmanager
def new_folder(place: Path, pieces: Iterable[tuple[str, bytes]]) -> Iterator[ModelFolder]:
    """Write a model's folder beside its place, and put it there once it was looked at.

    Whoever is given it may read it; if they raise, nothing stays.

    Args:
        place: where; must not be there, or be empty.
        pieces: names and parts of files; the parts of one file in order.

    Raises:
        UsageError: something is there.
        RefusedError: a name that no file of a model has.
    """
    check_new(place)
    fresh = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
    try:
        fresh.mkdir(parents=True)
        for name, piece in pieces:
            _require_name(name)
            path = fresh / name
            path.parent.mkdir(exist_ok=True)
            with path.open("ab") as file:
                file.write(piece)
        yield ModelFolder(fresh)
        if place.exists():
            place.rmdir()
        fresh.rename(place)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _require_name(name: str) -> None:
    """Refuse what would lie elsewhere: pieces may come from another machine."""
    if name not in _FLAT and _SUM.fullmatch(name) is None:
        raise RefusedError(
            "not a file of a model", field="name", expected="one of a model's folder", got="another"
        )
