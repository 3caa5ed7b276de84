"""Faults of a site's images, told apart by type. Opens nothing, imports nothing heavy.

The words of these errors name files and landmarks and count bytes. They stay at the
site: what leaves is a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from common.errors import InputDataError

_NAMED: Final = 10


class CutShortError(InputDataError):
    """A file ends before what its own header promises."""


class EmptyImageError(InputDataError):
    """An image that shows nothing: no bytes, or one value everywhere."""


class UnusableCasesError(InputDataError):
    """Several cases cannot be used; says of each why.

    Attributes:
        each: what was wrong, in the order of the cases.
    """

    def __init__(self, folder: Path, each: Sequence[InputDataError]) -> None:
        self.each = tuple(each)
        shown = "; ".join(error.diagnosis for error in each[:_NAMED])
        super().__init__(
            f"{len(each)} cases cannot be used",
            field=str(folder),
            got=shown + (f"; and {len(each) - _NAMED} more" if len(each) > _NAMED else ""),
            advice="See all of them: cairn-site check --data",
        )


def each_of(error: InputDataError) -> tuple[InputDataError, ...]:
    """The faults that an error stands for: one, or several."""
    return error.each if isinstance(error, UnusableCasesError) else (error,)
