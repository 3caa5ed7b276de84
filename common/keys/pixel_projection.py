"""From bands to principal components: the first half of a pixel's key, the same everywhere.

Weights are whole numbers, so a pixel's components are too until two correctly rounded
operations of float64 divide them by its intensity: no BLAS can change a bit of them. No
slide is opened here, and nothing here counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.canonical import canonical_json, sha256_hex
from common.errors import InputDataError
from common.keys.background import background_floor
from common.keys.pixel_statistics import PixelSurvey, as_integers, check_bands
from common.keys.smoothing import check_smoothing

COMPONENTS: Final = 8
UNIT: Final = 2**30  # fixed-point 1 of a projection
VERSION: Final = 1  # of the canonical forms of projection and codec

F64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PixelProjection:
    """Principal directions of the bands, and where tissue begins.

    Attributes:
        bands: names, in the order of the weights.
        scale: integers per unit of intensity; 1 unless slides are float32.
        weights: int32[components, bands], unit vectors times 2**30.
        floor: squared intensity (sum of squares over the bands) from which a pixel is
            foreground; at least 1.
        smoothing: standard deviation by which bands are smoothed first, thousandths of a
            pixel; 0 is none.

    Raises:
        InputDataError: a value out of range.
    """

    bands: tuple[str, ...]
    scale: int
    weights: NDArray[np.int32]
    floor: int
    smoothing: int = 0

    def __post_init__(self) -> None:
        check_smoothing(self.smoothing)
        check_bands(self.bands)
        shape = (self.weights.shape[0] if self.weights.ndim == 2 else 0, len(self.bands))
        if self.weights.dtype != np.int32 or self.weights.shape != shape or not shape[0]:
            raise wrong_codec("weights", f"int32[components, {len(self.bands)}]", "another array")
        # Sums of weight times pixel stay exact in float64, in whatever order they are added.
        if int(np.abs(self.weights.astype(np.int64)).sum(axis=1).max()) * 65535 >= 2**53:
            raise wrong_codec("weights", "rows of length 1 in units of 2**-30", "a longer one")
        if type(self.scale) is not int or not 1 <= self.scale <= 2**29:
            raise wrong_codec("scale", "an integer from 1 to 2**29", "another")
        if type(self.floor) is not int or not 1 <= self.floor < 2**40:
            raise wrong_codec("floor", "an integer from 1 to 2**40", "another")

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
        basis = vectors[:, :components].T
        # A vector and its opposite are both right: the largest entry shall be positive.
        largest = np.abs(basis).argmax(axis=1)
        basis = basis * np.sign(basis[np.arange(components), largest])[:, None]
        weights = np.rint(basis * UNIT).astype(np.int32)
        threshold = background_floor(survey.histogram) if floor is None else floor
        return cls(survey.bands, survey.scale, weights, threshold, survey.smoothing)

    def as_dict(self) -> dict[str, object]:
        """Integers and strings only, to be frozen into a plan; smoothing where there is any."""
        whole: dict[str, object] = {
            "bands": list(self.bands),
            "floor": self.floor,
            "scale": self.scale,
            "weights": self.weights.tolist(),
        }
        return whole | ({"smoothing": self.smoothing} if self.smoothing else {})

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the canonical form, 64 hex digits."""
        return sha256_hex(
            canonical_json({"kind": "pixel-projection", "version": VERSION, **self.as_dict()})
        )

    def components(self, pixels: NDArray[np.generic]) -> tuple[F64, NDArray[np.bool_]]:
        """Components of the foreground pixels, divided by intensity: cosines.

        Args:
            pixels: uint8, uint16 or float32[n, bands], smoothed already.

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


def checked_pixels(
    pixels: NDArray[np.generic], bands: int, scale: int
) -> NDArray[np.uint8 | np.uint16]:
    """``pixels`` as integers[n, bands].

    Raises:
        InputDataError: another shape or type, or floats that do not fit.
    """
    if pixels.ndim != 2 or pixels.shape[1] != bands:
        raise wrong_codec("pixels", f"[n, {bands}]", f"{list(pixels.shape)}")
    return as_integers(pixels, scale)


def wrong_codec(field: str, expected: str, got: str) -> InputDataError:
    """Return the refusal of a codec or projection that contradicts itself."""
    return InputDataError("not a codec of pixels", field=field, expected=expected, got=got)
