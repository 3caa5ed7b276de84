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
from common.errors import InputDataError
from common.keys.mixed_radix import MixedRadix
from common.keys.pixel_statistics import (
    RANGE_UNITS,
    ComponentRanges,
    PixelSurvey,
    as_integers,
    background_floor,
    check_bands,
)
from common.keys.prefixes import component_ladder

COMPONENTS: Final = 8
BINS: Final = 22  # 22**8 keys: 36 bits
BANDS: Final = 35
LEVELS: Final = 3  # 3**35 is the largest power of 3 with 35 bands below 2**64
UNIT: Final = 2**30  # fixed-point 1 of a projection
VERSION: Final = 1

F64 = NDArray[np.float64]


def reduced_bands(components: int = COMPONENTS, bins: int = BINS) -> MixedRadix:
    """A pixel as ``components`` principal components of ``bins`` bins each.

    Raises:
        InputDataError: does not fit into 64 bits.
    """
    return MixedRadix([bins] * components, [f"component-{i}" for i in range(components)])


def all_bands(bands: int = BANDS, levels: int = LEVELS) -> MixedRadix:
    """A pixel as all of its ``bands``, ``levels`` grey levels each.

    Raises:
        InputDataError: does not fit into 64 bits.
    """
    return MixedRadix([levels] * bands, [f"band-{i}" for i in range(bands)])


@dataclass(frozen=True, eq=False)
class PixelProjection:
    """Principal directions of the bands, and where tissue begins.

    Attributes:
        bands: names, in the order of the weights.
        scale: integers per unit of intensity; 1 unless slides are float32.
        weights: int32[components, bands], unit vectors times 2**30.
        floor: squared intensity (sum of squares over the bands) from which a pixel is
            foreground; at least 1.

    Raises:
        InputDataError: a value out of range.
    """

    bands: tuple[str, ...]
    scale: int
    weights: NDArray[np.int32]
    floor: int

    def __post_init__(self) -> None:
        check_bands(self.bands)
        shape = (self.weights.shape[0] if self.weights.ndim == 2 else 0, len(self.bands))
        if self.weights.dtype != np.int32 or self.weights.shape != shape or not shape[0]:
            raise _wrong("weights", f"int32[components, {len(self.bands)}]", "another array")
        # Sums of weight times pixel stay exact in float64, in whatever order they are added.
        if int(np.abs(self.weights.astype(np.int64)).sum(axis=1).max()) * 65535 >= 2**53:
            raise _wrong("weights", "rows of length 1 in units of 2**-30", "a longer one")
        if type(self.scale) is not int or not 1 <= self.scale <= 2**29:
            raise _wrong("scale", "an integer from 1 to 2**29", "another")
        if type(self.floor) is not int or not 1 <= self.floor < 2**40:
            raise _wrong("floor", "an integer from 1 to 2**40", "another")

    @classmethod
    def fit(
        cls, survey: PixelSurvey, components: int = COMPONENTS, floor: int | None = None
    ) -> PixelProjection:
        """Eigenvectors of the uncentred band covariance, largest eigenvalue first.

        Args:
            survey: of all sites together.
            components: how many.
            floor: squared intensity from which a pixel is foreground; when omitted it
                is found by ``background_floor``.

        Raises:
            InputDataError: fewer independent bands than components, or no floor found.
        """
        values, vectors = np.linalg.eigh(survey.gram.astype(np.float64))
        values, vectors = values[::-1], vectors[:, ::-1]
        independent = int(np.count_nonzero(values > 1e-9 * max(values[0], 1.0)))
        if not 1 <= components <= independent:
            raise InputDataError(
                "too many components for these bands",
                field="components",
                expected=f"1 to {independent}",
                got=f"{components}",
            )
        kept = vectors[:, :components].T
        # A vector and its opposite are both right: the largest entry shall be positive.
        largest = np.abs(kept).argmax(axis=1)
        kept = kept * np.sign(kept[np.arange(components), largest])[:, None]
        weights = np.rint(kept * UNIT).astype(np.int32)
        found = background_floor(survey.histogram) if floor is None else floor
        return cls(survey.bands, survey.scale, weights, found)

    def as_dict(self) -> dict[str, object]:
        """Integers and strings only, to be frozen into a plan."""
        return {
            "bands": list(self.bands),
            "floor": self.floor,
            "scale": self.scale,
            "weights": self.weights.tolist(),
        }

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the canonical form, 64 hex digits."""
        return sha256_hex(
            canonical_json({"kind": "pixel-projection", "version": VERSION, **self.as_dict()})
        )

    def components(self, pixels: NDArray[np.generic]) -> tuple[F64, NDArray[np.bool_]]:
        """Components of the foreground pixels, divided by intensity: cosines.

        Args:
            pixels: uint8, uint16 or float32[n, bands].

        Returns:
            float64[foreground, components] and bool[n], which pixels are foreground.

        Raises:
            InputDataError: another shape or type, or floats that do not fit.
        """
        values = checked_pixels(pixels, len(self.bands), self.scale).astype(np.float64)
        squared = np.square(values).sum(axis=1)  # whole numbers below 2**40: exact
        foreground = squared >= self.floor
        sums = values[foreground] @ self.weights.T.astype(np.float64)  # below 2**53: exact
        length = np.sqrt(squared[foreground]) * UNIT
        return sums / length[:, None], foreground


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
                raise _wrong(name, f"{count} integers from -{RANGE_UNITS} to {RANGE_UNITS}", "else")
        if not all(low < high for low, high in zip(self.low, self.high, strict=True)):
            raise _wrong("high", "above low for every component", "an empty range")
        if type(self.bins) is not int or not 2 <= self.bins <= 2**16:
            raise _wrong("bins", "an integer from 2 to 65536", "another")
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
            raise _wrong("ranges.projection", "the projection's identity", "another")
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
            raise _wrong("kind", f"pixel-components, version {VERSION}", "another")
        inner = _fields(outer["projection"], ("bands", "floor", "scale", "weights"))
        bands, weights = inner["bands"], inner["weights"]
        if not isinstance(bands, list) or not all(isinstance(band, str) for band in bands):
            raise _wrong("bands", "a list of names", "else")
        try:
            table = np.array(weights, dtype=np.int64)
        except (TypeError, ValueError, OverflowError):
            table = np.zeros(0, np.int64)
        if table.ndim != 2 or table.size == 0 or np.abs(table).max() > 2**31 - 1:
            raise _wrong("weights", "rows of 32-bit integers", "else")
        if table.tolist() != weights:  # e.g. fractions, which the conversion would cut off
            raise _wrong("weights", "rows of 32-bit integers", "else")
        ends = (outer["low"], outer["high"])
        if not all(isinstance(end, list) for end in ends):
            raise _wrong("low and high", "lists of integers", "else")
        projection = PixelProjection(
            tuple(bands),
            inner["scale"],  # type: ignore[arg-type]  # its type is checked there
            table.astype(np.int32),
            inner["floor"],  # type: ignore[arg-type]
        )
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
            raise _wrong("components", f"finite float64[n, {len(self.low)}]", "else")
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


def checked_pixels(
    pixels: NDArray[np.generic], bands: int, scale: int
) -> NDArray[np.uint8 | np.uint16]:
    """``pixels`` as integers[n, bands].

    Raises:
        InputDataError: another shape or type, or floats that do not fit.
    """
    if pixels.ndim != 2 or pixels.shape[1] != bands:
        raise _wrong("pixels", f"[n, {bands}]", f"{list(pixels.shape)}")
    return as_integers(pixels, scale)


def _fields(data: object, names: tuple[str, ...]) -> dict[str, object]:
    if not isinstance(data, dict) or sorted(data) != sorted(names):
        raise _wrong("codec", f"exactly the fields {', '.join(names)}", "others")
    return data


def _wrong(field: str, expected: str, got: str) -> InputDataError:
    return InputDataError("not a codec of pixels", field=field, expected=expected, got=got)
