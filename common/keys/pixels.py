"""From a multi-band pixel to its 64-bit key and back: the definition that every site shares.

Whole numbers and four correctly rounded operations of float64: a pixel has the
same key on every machine, whatever its BLAS. Faster ways to the same keys live
at the sites (``site_client.pixels``) and must equal this bit for bit. No slide is
opened here, and nothing here counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.canonical import canonical_json, sha256_hex
from common.keys.mixed_radix import MixedRadix
from common.keys.pixel_projection import COMPONENTS, VERSION, PixelProjection, wrong_codec
from common.keys.pixel_statistics import RANGE_UNITS, ComponentRanges
from common.plan.prefixes import component_ladder

BINS: Final = 22  # 22**8 keys: 36 bits
BANDS: Final = 35
LEVELS: Final = 3  # 3**35 is the largest power of 3 with 35 bands below 2**64

F64 = NDArray[np.float64]


def reduced_bands(components: int = COMPONENTS, bins: int = BINS) -> MixedRadix:
    """Return a pixel as ``components`` principal components of ``bins`` bins each.

    Raises:
        InputDataError: does not fit into 64 bits.
    """
    return MixedRadix([bins] * components, [f"component-{i}" for i in range(components)])


def all_bands(bands: int = BANDS, levels: int = LEVELS) -> MixedRadix:
    """Return a pixel as all of its ``bands``, ``levels`` grey levels each.

    Raises:
        InputDataError: does not fit into 64 bits.
    """
    return MixedRadix([levels] * bands, [f"band-{i}" for i in range(bands)])


@dataclass(frozen=True, eq=False)
class PixelCodec:
    """Bijection between quantised components of a pixel and 64-bit keys.

    Component i of a key is digit i, least significant first; ``digits`` is the
    mixed-radix code that recovery and codebooks take keys apart with.

    Attributes:
        projection: from bands to components.
        low, high: ends of every component's range, in units of 1 / 2048; what lies
            outside falls into the outer bins.
        bins: bins of every component.

    Raises:
        InputDataError: ends that do not fit, or more than 64 bits.
    """

    projection: PixelProjection
    low: tuple[int, ...]
    high: tuple[int, ...]
    bins: int = BINS

    def __post_init__(self) -> None:
        count = self.projection.weights.shape[0]
        for name, ends in (("low", self.low), ("high", self.high)):
            if len(ends) != count or any(
                type(end) is not int or abs(end) > RANGE_UNITS for end in ends
            ):
                raise wrong_codec(
                    name, f"{count} integers from -{RANGE_UNITS} to {RANGE_UNITS}", "else"
                )
        if not all(low < high for low, high in zip(self.low, self.high, strict=True)):
            raise wrong_codec("high", "above low for every component", "an empty range")
        if type(self.bins) is not int or not 2 <= self.bins <= 2**16:
            raise wrong_codec("bins", "an integer from 2 to 65536", "another")
        reduced_bands(count, self.bins)

    @classmethod
    def fit(
        cls,
        projection: PixelProjection,
        ranges: ComponentRanges,
        bins: int = BINS,
        tail: float = 0.0,
        *,
        shared: bool = True,
    ) -> PixelCodec:
        """Freeze the ranges of all sites together.

        Args:
            projection: what the ranges were counted with.
            ranges: of all sites together.
            bins: bins of every component.
            tail: share of pixels that may fall beyond either end; 0 is the common
                minimum and maximum.
            shared: one range for all components (as the paper's authors do) or one each.

        Raises:
            InputDataError: ranges of another projection, or of no pixels.
        """
        if ranges.projection != projection.identity:
            raise wrong_codec("ranges.projection", "the projection's identity", "another")
        low, high = ranges.limits(tail, shared=shared)
        return cls(projection, tuple(low), tuple(high), bins)

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the projection's bands."""
        return self.projection.bands

    @property
    def scale(self) -> int:
        """The projection's integers per unit of intensity."""
        return self.projection.scale

    @property
    def smoothing(self) -> int:
        """The projection's: thousandths of a pixel by which bands are smoothed first."""
        return self.projection.smoothing

    @cached_property
    def digits(self) -> MixedRadix:
        """The number system of the keys."""
        return reduced_bands(len(self.low), self.bins)

    @property
    def ladder(self) -> tuple[int, ...]:
        """Lengths of the prefixes that are counted; see ``prefixes``."""
        return component_ladder(len(self.low))

    def as_dict(self) -> dict[str, object]:
        """Integers and strings only, to be frozen into a plan; ``from_dict`` reads it."""
        return {
            "bins": self.bins,
            "high": list(self.high),
            "kind": "pixel-components",
            "low": list(self.low),
            "projection": self.projection.as_dict(),
            "version": VERSION,
        }

    @classmethod
    def from_dict(cls, data: object) -> PixelCodec:
        """Read what ``as_dict`` gave.

        Raises:
            InputDataError: an unknown, missing or wrong field.
        """
        outer = _fields(data, ("bins", "high", "kind", "low", "projection", "version"))
        if outer["kind"] != "pixel-components" or outer["version"] != VERSION:
            raise wrong_codec("kind", f"pixel-components, version {VERSION}", "another")
        inner = _fields(outer["projection"], ("bands", "floor", "scale", "weights"), "smoothing")
        bands, weights = inner["bands"], inner["weights"]
        if not isinstance(bands, list) or not all(isinstance(band, str) for band in bands):
            raise wrong_codec("bands", "a list of names", "else")
        try:
            table = np.array(weights, dtype=np.int64)
        except (TypeError, ValueError, OverflowError):
            table = np.zeros(0, np.int64)
        if table.ndim != 2 or table.size == 0 or np.abs(table).max() > 2**31 - 1:
            raise wrong_codec("weights", "rows of 32-bit integers", "else")
        if table.tolist() != weights:  # e.g. fractions, which the conversion would cut off
            raise wrong_codec("weights", "rows of 32-bit integers", "else")
        ends = (outer["low"], outer["high"])
        if not all(isinstance(end, list) for end in ends):
            raise wrong_codec("low and high", "lists of integers", "else")
        projection = PixelProjection(
            tuple(bands),
            inner["scale"],  # type: ignore[arg-type]  # its type is checked there
            table.astype(np.int32),
            inner["floor"],  # type: ignore[arg-type]
            inner.get("smoothing", 0),  # type: ignore[arg-type]
        )
        if projection.as_dict() != inner:  # no smoothing is said by leaving it out, in one way
            raise wrong_codec("smoothing", "above 0, or left out", "0")
        return cls(projection, tuple(ends[0]), tuple(ends[1]), outer["bins"])  # type: ignore[arg-type]

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the canonical form: the domain of sketches that count these keys."""
        return sha256_hex(canonical_json(self.as_dict()))

    def encode(self, pixels: NDArray[np.generic]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """Keys of the foreground pixels.

        Args:
            pixels: uint8, uint16 or float32[n, bands].

        Returns:
            uint64[foreground] and bool[n], which pixels are foreground.

        Raises:
            InputDataError: another shape or type, or floats that do not fit.
        """
        components, foreground = self.projection.components(pixels)
        return self.encode_components(components), foreground

    def encode_components(self, components: F64) -> NDArray[np.uint64]:
        """Keys of normalised components, float64[n, components] -> uint64[n].

        Raises:
            InputDataError: another shape, or not finite.
        """
        if (
            components.shape != (components.shape[0], len(self.low))
            or not np.isfinite(components).all()
        ):
            raise wrong_codec("components", f"finite float64[n, {len(self.low)}]", "else")
        low, step = self.bin_steps()
        place = np.clip(np.floor((components - low) * step), 0, self.bins - 1)
        return self.digits.encode(place.astype(np.int64))

    def decode(self, keys: NDArray[np.uint64]) -> F64:
        """Centres of the bins of keys, uint64[n] -> float64[n, components].

        Encoding them gives the same keys.

        Raises:
            InputDataError: not uint64[n], or keys of another codec.
        """
        low, step = self.bin_steps()
        return low + (self.digits.decode(keys).astype(np.float64) + 0.5) / step

    def bin_steps(self) -> tuple[F64, F64]:
        """Lower end and bins per unit of every component, float64[components] each."""
        low, high = np.array(self.low, np.float64), np.array(self.high, np.float64)
        return low / RANGE_UNITS, self.bins * RANGE_UNITS / (high - low)


def _fields(data: object, names: tuple[str, ...], option: str = "") -> dict[str, object]:
    """Return ``data`` with exactly these fields, and perhaps the one that may be left out."""
    if not isinstance(data, dict) or sorted({*data} - {option}) != sorted(names):
        raise wrong_codec("codec", f"exactly the fields {', '.join(names)}", "others")
    return data
