"""The section of a plan about experience: how transitions are counted."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from common.settings import Frozen


class Experience(Frozen):
    """The count sketch of experience tuples; equal everywhere or tables cannot be added."""

    rows: Annotated[int, Field(ge=1, le=64)] = 5
    columns: Annotated[int, Field(ge=16, le=2_000_000)] = 20_000
    position_bins: Annotated[int, Field(ge=2, le=64)] = 24
    reward_bins: Annotated[int, Field(ge=2, le=16)] = 5
