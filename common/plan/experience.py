"""The section of a plan about experience: how situations are named, counted and kept."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from common.settings import Frozen

Subject = Literal["experience", "errors"]
"""What a table of a plan counts: what was met, or what was replayed, with its errors."""
ERROR_UNITS: Final = 256
"""Units of one that errors of values are rounded to, so that their sums are exact."""
MOST_ERROR: Final = 4 * ERROR_UNITS
"""Most that one replay adds to a sum of errors; rewards lie within -1 to 1."""


class Experience(Frozen):
    """The count sketch of experience; equal everywhere or tables cannot be added.

    It leaves the sites only where it is read: by ``rare-first`` or ``wrong-first`` replay,
    or beside the model that a run ends with (``kept``).

    Attributes:
        rows, columns: of the sketch.
        key: what situations are called: by ``offset`` from what is looked for, in steps of
            their level, or by ``place`` in the image.
        reach_steps: steps on either side of the target that offsets tell apart.
        position_bins: places along each axis of an image.
        kept: the merged table goes with the model; holders of the federation key can ask it.
    """

    rows: Annotated[int, Field(ge=1, le=64)] = 5
    columns: Annotated[int, Field(ge=16, le=2_000_000)] = 20_000
    key: Literal["offset", "place"] = "offset"
    reach_steps: Annotated[int, Field(ge=1, le=32)] = 6
    position_bins: Annotated[int, Field(ge=2, le=64)] = 24
    kept: bool = False
