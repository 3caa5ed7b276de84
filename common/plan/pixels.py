"""The section of a plan that counts the pixels of slides: their keys, sketches and floors."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from common.plan.prefixes import band_ladder, component_ladder
from common.settings import Frozen

BandName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _./+-]{0,63}$")]
MAX_PREFIXES = 1 << 24


class Pixels(Frozen):
    """The way from pixels of multi-band slides to keys, and the keys that may be named.

    Attributes:
        bands: names as the slides have them; their order is that of the Gram matrix.
        codec: ``reduced`` takes principal components of the bands, each of them a digit of
            the key; ``all-bands`` makes a digit of every band, in a few grey levels.
            It needs a sketch more for every few digits: at 35 bands five of them.
        components: of ``reduced``: how many.
        bins: of ``reduced``: of every component.
        tail: of ``reduced``: share of pixels that may lie beyond either end of the bins.
        levels: of ``all-bands``: grey levels of every band; a band is brighter than its
            root mean square at level 1, three times as bright at level 2, and so on. Levels
            to the power of bands must fit 64 bits: 40 bands at 3 levels, 64 at 2.
        floor: squared intensity at which tissue begins; 0 has it found in the histogram.
        smoothing: standard deviation of the Gaussian by which every band of a slide is
            smoothed before anything else, in pixels, in steps of 0.001; 0 is none. A pixel
            as counted holds a few counts, and its key little. Slides are mirrored at their
            edges; background takes part, so tissue's rim fades into it, and ``floor``
            means the smoothed intensity.
        value_scale: integers per unit of intensity; 1 unless slides hold floats or are
            smoothed, which makes fractions of counts: 16 keeps sixteenths.
        rows, columns: of the sketches.
        presence_floor: pixels that a key needs at a site to count as present there. Half
            of a tissue's different keys occur once or twice; counting those as present
            fills the presence sketch until it cannot tell one site from two, and the
            sites then name nothing. Below 10 only for small images of few keys.
        top: most keys that are recovered.
        key_pixels: fewest pixels in the federation for a key to be named (k).
        key_sites: fewest sites at which it must be present (m); a key of one site never is.
        min_slides, min_pixels: least that must stand behind a site's statistics and sketches.
    """

    bands: Annotated[tuple[BandName, ...], Field(min_length=3, max_length=256, strict=False)]
    codec: Literal["reduced", "all-bands"] = "reduced"
    components: Annotated[int, Field(ge=3, le=64)] = 8
    bins: Annotated[int, Field(ge=2, le=4096)] = 22
    tail: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    levels: Annotated[int, Field(ge=2, le=11)] = 3
    floor: Annotated[int, Field(ge=0, lt=2**40)] = 0
    smoothing: Annotated[float, Field(ge=0, le=5)] = 0.0
    value_scale: Annotated[int, Field(ge=1, le=2**29)] = 1
    rows: Annotated[int, Field(ge=3, le=64)] = 15
    columns: Annotated[int, Field(ge=16, le=2_000_000)] = 150_000
    presence_floor: Annotated[int, Field(ge=1, le=2**31)] = 10
    top: Annotated[int, Field(ge=1, le=2**20)] = 20_000
    key_pixels: Annotated[int, Field(ge=2, le=2**40)] = 50
    key_sites: Annotated[int, Field(ge=2, le=1000)] = 2
    min_slides: Annotated[int, Field(ge=1, le=10**6)] = 1
    min_pixels: Annotated[int, Field(ge=1, le=2**40)] = 10_000

    @property
    def digits(self) -> tuple[int, int]:
        """The number of digits of a key, and the radix of each."""
        if self.codec == "all-bands":
            return len(self.bands), self.levels
        return self.components, self.bins

    @property
    def smoothing_thousandths(self) -> int:
        """The smoothing as codecs and statistics have it: a whole number."""
        return round(1000 * self.smoothing)

    @property
    def keys(self) -> int:
        """Number of possible keys."""
        count, radix = self.digits
        return int(radix**count)

    @property
    def ladder(self) -> tuple[int, ...]:
        """Highest digits that the prefix counts keep, then those of every prefix sketch."""
        return (
            band_ladder(*self.digits)
            if self.codec == "all-bands"
            else component_ladder(self.components)
        )

    @property
    def prefixes(self) -> int:
        """Number of short prefixes: cells of the prefix counts."""
        return int(self.digits[1] ** self.ladder[0])

    @property
    def prefix_tables(self) -> tuple[str, ...]:
        """Names of the prefix sketches, shortest prefixes first."""
        rungs = self.ladder[1:]
        return ("prefix",) if len(rungs) == 1 else tuple(f"prefix_{rung}" for rung in rungs)

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of all sketches."""
        return ("full", *self.prefix_tables, "presence")

    @model_validator(mode="after")
    def _keys_can_be_found_again(self) -> Self:
        if len(set(self.bands)) != len(self.bands):
            raise ValueError("bands must differ from each other")
        if abs(1000 * self.smoothing - self.smoothing_thousandths) > 1e-6:
            raise ValueError("smoothing in steps of 0.001 pixels")
        if alien := self._of_the_other_codec() & self.model_fields_set:
            raise ValueError(f"codec {self.codec} without {min(alien)}")
        if self.codec == "all-bands":
            if self.keys > 2**64:
                raise ValueError(
                    f"at most {int(64 / math.log2(self.levels))} bands at {self.levels} levels, "
                    f'fewer levels, or codec "reduced"'
                )
            return self
        if self.components > len(self.bands):
            raise ValueError("components must be at most as many as the bands")
        if self.keys > 2**64 or self.prefixes > MAX_PREFIXES:
            raise ValueError("bins to the power of components of at most 2**64, prefixes of 2**24")
        return self

    def _of_the_other_codec(self) -> frozenset[str]:
        """Fields that say nothing under this codec."""
        if self.codec == "all-bands":
            return frozenset({"components", "bins", "tail"})
        return frozenset({"levels"})

    @model_serializer(mode="wrap")
    def _of_its_codec(self, serialize: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Without the fields of the other codec, so that it parses back, and without a
        smoothing that is 0: plans that smooth nothing keep their fingerprint.
        """
        whole: dict[str, object] = serialize(self)
        alien = self._of_the_other_codec() | (set() if self.smoothing else {"smoothing"})
        return {name: value for name, value in whole.items() if name not in alien}
