"""Common to all sections: a frozen value without unknown keys, and shared fields."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
LandmarkName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.+-]{0,63}$")]
Names = Annotated[tuple[LandmarkName, ...], Field(max_length=255, strict=False)]
Rungs = Annotated[tuple[Positive, ...], Field(min_length=1, max_length=6, strict=False)]
"""One value per level of a search, coarse to fine."""


class Frozen(BaseModel):
    """A value that refuses unknown keys and cannot change."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, ser_json_inf_nan="strings")
