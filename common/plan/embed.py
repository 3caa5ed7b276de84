"""The section of a plan that maps slides with a codebook made before."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from common.settings import Frozen

GroupName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _./+-]{0,63}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Embed(Frozen):
    """The codebook that the sites embed their slides with.

    Attributes:
        codec, codebook: SHA-256 of their canonical JSON; the run hands both to the sites.
        groups: names of the codebook's groups by number; their order is part of it.
        min_slides, min_pixels: least that must stand behind a site's counts.
        group_pixels: a group with fewer pixels at a site is reported as 0.
    """

    codec: Sha256
    codebook: Sha256
    groups: Annotated[tuple[GroupName, ...], Field(min_length=1, max_length=255, strict=False)]
    min_slides: Annotated[int, Field(ge=1, le=10**6)] = 1
    min_pixels: Annotated[int, Field(ge=1, le=2**40)] = 10_000
    group_pixels: Annotated[int, Field(ge=1, le=2**40)] = 100
