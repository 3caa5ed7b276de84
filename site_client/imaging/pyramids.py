"""Images laid out for sampling: one buffer, each image with its halved copies behind it.

A pyramid is built once, is read-only, and is shared by every task over the same
images (folds, levels, landmarks). The buffer has a ceiling: images are pooled no
finer than the finest stride can see, and what still does not fit is refused
instead of filling the machine's memory. Positions are millimetres from the
middle of the image along the patient's (or, in 2-D, the image's) axes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError

_SMALLEST = 8
_MOST_LEVELS = 12
DEFAULT_LIMIT_MIB = 1024


@dataclass(frozen=True, eq=False)
class Raster:
    """One image as it is given.

    Attributes:
        pixels: uint8[channels, (z,) y, x].
        spacing_mm: distance of neighbouring pixels along x, y (and z).
        direction: float64[d, d], columns are the directions of the x, y (and z) index.
    """

    pixels: NDArray[np.uint8]
    spacing_mm: tuple[float, ...]
    direction: NDArray[np.float64]

    def __repr__(self) -> str:
        return f"Raster(shape={self.pixels.shape})"


@dataclass(frozen=True, eq=False)
class Pyramids:
    """Images of one dimension d, end to end in one buffer.

    Attributes:
        pixels: uint8[total]; each level in C order [channels, (z,) y, x].
        starts: int64[cases, levels], where a level begins; levels halve the size.
        sizes: int64[cases, levels, d], pixels along x, y (and z).
        levels: int64[cases], how many of the levels an image has.
        bounds: float64[cases, 2, d], first and last index of level 0 inside the image.
        spacing_mm: float64[cases, d] of level 0.
        first_mm: float64[cases, d], where index 0 of level 0 is along the image's own
            axes, from the image's middle.
        directions: float64[cases, d, d].
        channels: channels of every image.
    """

    pixels: NDArray[np.uint8]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    levels: NDArray[np.int64]
    bounds: NDArray[np.float64]
    spacing_mm: NDArray[np.float64]
    first_mm: NDArray[np.float64]
    directions: NDArray[np.float64]
    channels: int

    def __len__(self) -> int:
        return len(self.starts)

    def __repr__(self) -> str:
        return f"Pyramids(cases={len(self)}, mib={self.pixels.nbytes / 2**20:.1f})"

    @property
    def dim(self) -> int:
        """2 or 3."""
        return int(self.sizes.shape[2])

    def subset(self, cases: NDArray[np.int64]) -> Pyramids:
        """The same pixels, another choice or order of cases."""
        return replace(
            self,
            starts=self.starts[cases],
            sizes=self.sizes[cases],
            levels=self.levels[cases],
            bounds=self.bounds[cases],
            spacing_mm=self.spacing_mm[cases],
            first_mm=self.first_mm[cases],
            directions=self.directions[cases],
        )

    def index(self, native: NDArray[np.float64], case: NDArray[np.int64]) -> NDArray[np.float64]:
        """Continuous level-0 indices of offsets from the middle, mm; both float64[n, ..., d]."""
        along = np.einsum("n...j,nji->n...i", native, self.directions[case])
        lift = (len(case), *(1,) * (native.ndim - 2), self.dim)
        first, spacing = self.first_mm[case], self.spacing_mm[case]
        return np.asarray((along - first.reshape(lift)) / spacing.reshape(lift))

    def index_steps(
        self, vectors: NDArray[np.float64], case: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Index steps of native displacements, mm; both float64[n, ..., d]."""
        along = np.einsum("n...j,nji->n...i", vectors, self.directions[case])
        lift = (len(case), *(1,) * (vectors.ndim - 2), self.dim)
        return np.asarray(along / self.spacing_mm[case].reshape(lift))

    def at_fractions(
        self, fractions: NDArray[np.float64], case: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Offsets from the middle (mm) of fractions of the image; both float64[n, d]."""
        low, high = self.bounds[case, 0], self.bounds[case, 1]
        along = (low + fractions * (high - low)) * self.spacing_mm[case] + self.first_mm[case]
        return np.asarray(np.einsum("nj,nij->ni", along, self.directions[case]))

    def fractions(
        self, native: NDArray[np.float64], case: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Locate offsets float64[n, ..., d] in the image: 0..1 inside, beyond it outside."""
        lift = (len(case), *(1,) * (native.ndim - 2), self.dim)
        low, high = self.bounds[case, 0].reshape(lift), self.bounds[case, 1].reshape(lift)
        return np.asarray((self.index(native, case) - low) / (high - low))


def build_pyramids(
    images: Iterable[Raster], finest_mm: float = 0.0, limit_mib: int = DEFAULT_LIMIT_MIB
) -> Pyramids:
    """Lay images out, pooled so far that the finest stride still sees every detail it can.

    Args:
        images: at least one; consumed one by one, so that they may be read as they are needed.
        finest_mm: smallest stride they will be sampled at; 0 keeps them as they are.
        limit_mib: ceiling of the buffer.

    Raises:
        InputDataError: no images, other channels or dimensions than the first, or too large.
    """
    # Untouched pages of a large empty array cost no memory.
    buffer = np.empty(limit_mib * 2**20, np.uint8)
    used = 0
    starts: list[list[int]] = []
    sizes: list[list[tuple[int, ...]]] = []
    places: list[tuple[NDArray[np.float64], ...]] = []
    shape: tuple[int, int] | None = None
    for raster in images:
        _check(raster, shape)
        shape = (raster.pixels.shape[0], raster.pixels.ndim)
        pixels, factor = raster.pixels, 1
        spacing = np.array(raster.spacing_mm, dtype=np.float64)
        while 2 * factor * spacing.max() <= finest_mm and min(pixels.shape[1:]) >= 2 * _SMALLEST:
            pixels, factor = _halved(pixels), 2 * factor
        places.append(_place(raster, spacing, factor))
        starts.append([])
        sizes.append([])
        for _ in range(_MOST_LEVELS):
            if used + pixels.size > buffer.size:
                raise InputDataError(
                    "the images do not fit into memory",
                    expected=f"at most {limit_mib} MiB at the finest stride",
                    got=f"more from image {len(starts)} on",
                    advice="Use a larger finest stride, fewer images, or raise the limit",
                )
            buffer[used : used + pixels.size] = pixels.ravel()
            starts[-1].append(used)
            sizes[-1].append(pixels.shape[:0:-1])
            used += pixels.size
            if min(pixels.shape[1:]) < 2 * _SMALLEST:
                break
            pixels = _halved(pixels)
    if shape is None:
        raise InputDataError("cannot search", field="images", expected="at least one", got="none")
    return _assembled(buffer[:used], starts, sizes, places, shape[0])


def _assembled(
    pixels: NDArray[np.uint8],
    starts: list[list[int]],
    sizes: list[list[tuple[int, ...]]],
    places: list[tuple[NDArray[np.float64], ...]],
    channels: int,
) -> Pyramids:
    levels = np.array([len(of_case) for of_case in starts], dtype=np.int64)
    most = int(levels.max())
    pixels.setflags(write=False)
    spacing, first, bounds, directions = (np.stack(part) for part in zip(*places, strict=True))
    return Pyramids(
        pixels=pixels,
        starts=np.array([c + c[-1:] * (most - len(c)) for c in starts], dtype=np.int64),
        sizes=np.array([c + c[-1:] * (most - len(c)) for c in sizes], dtype=np.int64),
        levels=levels,
        bounds=bounds,
        spacing_mm=spacing,
        first_mm=first,
        directions=directions,
        channels=channels,
    )


def _place(
    raster: Raster, spacing: NDArray[np.float64], factor: int
) -> tuple[NDArray[np.float64], ...]:
    """(spacing, first, bounds, direction) of level 0, pooled by a factor."""
    last = np.array(raster.pixels.shape[:0:-1]) - 1.0
    # A pooled pixel's middle lies between those it was made of.
    first = ((factor - 1) / 2 - last / 2) * spacing
    bounds = np.stack([(0 * last + 0.5) / factor - 0.5, (last + 0.5) / factor - 0.5])
    return spacing * factor, first, bounds, np.asarray(raster.direction, dtype=np.float64)


def _halved(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Means of 2 x 2 (x 2) neighbours; an odd last row or column is its own neighbour."""
    for axis in range(1, pixels.ndim):
        n = pixels.shape[axis]
        low = pixels.take(np.arange(0, n, 2), axis)
        high = pixels.take(np.minimum(np.arange(1, n + 1, 2), n - 1), axis)
        # Ties are rounded up along one axis and down along the next, so that none adds up.
        pixels = ((low.astype(np.uint16) + high + axis % 2) >> 1).astype(np.uint8)
    return pixels


def _check(raster: Raster, shape: tuple[int, int] | None) -> None:
    """Refuse what cannot be sampled beside the images before it."""
    pixels = raster.pixels
    d = pixels.ndim - 1
    spacing = np.array(raster.spacing_mm, dtype=np.float64)
    if pixels.dtype != np.uint8 or d not in (2, 3) or min(pixels.shape) < 1:
        raise InputDataError(
            "cannot use the image",
            field="pixels",
            expected="uint8[channels, y, x] or uint8[channels, z, y, x]",
            got=f"{pixels.dtype} with {pixels.ndim} dimensions",
        )
    if min(pixels.shape[1:]) < 2:
        raise InputDataError("cannot use the image", expected="2 pixels or more along every axis")
    if spacing.shape != (d,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise InputDataError(
            "cannot use the image", field="spacing_mm", expected=f"{d} positive numbers"
        )
    if np.shape(raster.direction) != (d, d):
        raise InputDataError("cannot use the image", field="direction", expected=f"{d} x {d}")
    if shape is not None and shape != (pixels.shape[0], pixels.ndim):
        raise InputDataError(
            "images of one task must look alike",
            expected=f"{shape[0]} channels and {shape[1] - 1} dimensions",
            got=f"{pixels.shape[0]} channels and {d} dimensions",
        )
