"""A pixel as all of its bands in a few grey levels each: the key that keeps every band.

For 35 bands in 3 levels, 3**35 keys fit into 64 bits and can be read back. Such keys
have many digits, so recovery by prefixes takes a ladder of several sketches
(``prefixes``). No slide is opened here, and nothing here counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.canonical import canonical_json, sha256_hex
from common.errors import InputDataError
from common.keys.background import background_floor
from common.keys.mixed_radix import MixedRadix
from common.keys.pixel_projection import checked_pixels
from common.keys.pixel_statistics import PixelSurvey, check_bands
from common.keys.pixels import LEVELS, all_bands
from common.keys.smoothing import check_smoothing
from common.plan.prefixes import band_ladder

KIND: Final = "pixel-bands"
VERSION: Final = 1


@dataclass(frozen=True, eq=False)
class BandCodec:
    """Bijection between grey levels of all bands and 64-bit keys.

    Attributes:
        bands: names; band i is digit i.
        scale: integers per unit of intensity; 1 unless slides are float32.
        floor: squared intensity (sum of squares over the bands) from which a pixel is
            foreground.
        edges: of every band, the ascending intensities at which a next level begins.
        smoothing: standard deviation by which bands are smoothed first, thousandths of a
            pixel; 0 is none.

    Raises:
        InputDataError: edges that do not fit, or more than 64 bits.
    """

    bands: tuple[str, ...]
    scale: int
    floor: int
    edges: tuple[tuple[int, ...], ...]
    smoothing: int = 0

    def __post_init__(self) -> None:
        check_bands(self.bands)
        check_smoothing(self.smoothing)
        counts = {len(row) for row in self.edges}
        if len(self.edges) != len(self.bands) or len(counts) != 1 or 0 in counts:
            raise _wrong("edges", "as many for every band, at least one")
        for row in self.edges:
            if any(type(edge) is not int or not 1 <= edge <= 65535 for edge in row) or any(
                low >= high for low, high in pairwise(row)
            ):
                raise _wrong("edges", "ascending integers from 1 to 65535")
        if type(self.scale) is not int or not 1 <= self.scale <= 2**29:
            raise _wrong("scale", "an integer from 1 to 2**29")
        if type(self.floor) is not int or not 0 <= self.floor < 2**40:
            raise _wrong("floor", "an integer from 0 to 2**40")
        all_bands(len(self.bands), self.levels)

    @classmethod
    def fit(cls, survey: PixelSurvey, levels: int = LEVELS, floor: int | None = None) -> BandCodec:
        """Levels that begin at a band's root mean square, and at every triple of it.

        Args:
            survey: of all sites together.
            levels: of every band, at least 2.
            floor: squared intensity from which a pixel is foreground; when omitted it
                is found by ``background_floor``.

        Raises:
            InputDataError: no pixels, no floor found, levels beyond 16 bits or keys beyond 64.
        """
        if survey.pixels == 0 or levels < 2:
            raise _wrong("levels", "at least 2, of a survey with pixels")
        edges = []
        for energy in survey.gram.diagonal().tolist():
            row = [max(1, round((energy / survey.pixels) ** 0.5))]
            for _ in range(levels - 2):
                row.append(3 * row[-1])
            edges.append(tuple(row))
        threshold = background_floor(survey.histogram) if floor is None else floor
        return cls(survey.bands, survey.scale, threshold, tuple(edges), survey.smoothing)

    @property
    def levels(self) -> int:
        """Grey levels of every band."""
        return len(self.edges[0]) + 1

    @cached_property
    def digits(self) -> MixedRadix:
        """The number system of the keys."""
        return all_bands(len(self.bands), self.levels)

    @property
    def ladder(self) -> tuple[int, ...]:
        """Lengths of the prefixes that are counted; see ``prefixes``."""
        return band_ladder(len(self.bands), self.levels)

    def as_dict(self) -> dict[str, object]:
        """Integers and strings only, to be frozen into a plan; ``from_dict`` reads it."""
        whole: dict[str, object] = {
            "bands": list(self.bands),
            "edges": [list(row) for row in self.edges],
            "floor": self.floor,
            "kind": KIND,
            "scale": self.scale,
            "version": VERSION,
        }
        return whole | ({"smoothing": self.smoothing} if self.smoothing else {})

    @classmethod
    def from_dict(cls, data: object) -> BandCodec:
        """Read what ``as_dict`` gave.

        Raises:
            InputDataError: an unknown, missing or wrong field.
        """
        names = ["bands", "edges", "floor", "kind", "scale", "version"]
        if not isinstance(data, dict) or sorted({*data} - {"smoothing"}) != names:
            raise _wrong("codec", f"exactly the fields {', '.join(names)}")
        if data["kind"] != KIND or data["version"] != VERSION:
            raise _wrong("kind", f"{KIND}, version {VERSION}")
        bands, edges = data["bands"], data["edges"]
        if not isinstance(bands, list) or not all(isinstance(band, str) for band in bands):
            raise _wrong("bands", "a list of names")
        if not isinstance(edges, list) or not all(isinstance(row, list) for row in edges):
            raise _wrong("edges", "a list of lists")
        rows, smoothing = tuple(tuple(row) for row in edges), data.get("smoothing", 0)
        codec = cls(tuple(bands), data["scale"], data["floor"], rows, smoothing)
        if codec.as_dict() != data:  # no smoothing is said by leaving it out, in one way
            raise _wrong("smoothing", "above 0, or left out")
        return codec

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the canonical form: the domain of sketches that count these keys."""
        return sha256_hex(canonical_json(self.as_dict()))

    def encode(self, pixels: NDArray[np.generic]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """Keys of the foreground pixels, and which they are; see ``PixelCodec.encode``."""
        values = checked_pixels(pixels, len(self.bands), self.scale)
        foreground = np.square(values.astype(np.float64)).sum(axis=1) >= self.floor
        return self.encode_levels(self._levels(values[foreground])), foreground

    def _levels(self, values: NDArray[np.uint8 | np.uint16]) -> NDArray[np.uint8]:
        levels = np.zeros(values.shape, np.uint8)
        for edge in np.array(self.edges).T:
            levels += values >= edge
        return levels

    def encode_levels(self, levels: NDArray[np.integer]) -> NDArray[np.uint64]:
        """Keys of grey levels, integers[n, bands] -> uint64[n].

        Raises:
            InputDataError: another shape or type, or a level out of range.
        """
        return self.digits.encode(levels)

    def decode(self, keys: NDArray[np.uint64]) -> NDArray[np.uint8]:
        """Grey levels of keys, uint64[n] -> uint8[n, bands]; encoding them gives the keys.

        Raises:
            InputDataError: not uint64[n], or keys of another codec.
        """
        return self.digits.decode(keys).astype(np.uint8)


def _wrong(field: str, expected: str) -> InputDataError:
    return InputDataError("not a codec of bands", field=field, expected=expected, got="else")
