"""Made lesions: shaded and mottled, between structures as bright as they are.

Whether a region grows to the lesion depends on where its seed lies: from its darker parts
it misses the bright ones, from spots in it nearly all, from beside it the ground. What a
figure on these says of a patient's lesions is not known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Lesion:
    """One made image.

    Attributes:
        pixels: uint8, axes (z,) y, x; 1 mm apart.
        mask: bool, the lesion.
    """

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def make_lesion(rng: np.random.Generator, dim: int, side: int = 64) -> Lesion:
    """Draw one lesion of a sixth to a quarter of the image's side as its radius."""
    size = (side,) * dim
    grid = np.stack(np.meshgrid(*[np.arange(side)] * dim, indexing="ij"), axis=-1)
    middle = rng.uniform(0.3, 0.7, dim) * side
    mask = _blob(rng, grid, middle, rng.uniform(0.17, 0.25) * side)
    away = (grid - middle) @ _direction(rng, dim) / (0.25 * side)
    pixels = np.full(size, 75.0) + rng.normal(0, 4, size)
    # Other structures: as bright as the lesion, smaller, some of them touching it.
    for _ in range(5):
        other = _blob(rng, grid, rng.uniform(0, 1, dim) * side, rng.uniform(0.06, 0.12) * side)
        pixels[other] = rng.uniform(110, 170) + rng.normal(0, 4, int(other.sum()))
    shaded = 140 + 22 * np.clip(away, -1, 1) + rng.normal(0, 4, size)
    pixels[mask] = shaded[mask]
    # Spots of another grey: a seed in one grows to hardly more than the spot.
    for _ in range(4):
        at = middle + rng.normal(0, 0.1 * side, dim)
        spot = _blob(rng, grid, at, 0.05 * side) & mask
        pixels[spot] = rng.choice([75.0, 215.0])
    return Lesion(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), mask)


def _blob(
    rng: np.random.Generator, grid: NDArray[np.int64], middle: NDArray[np.float64], radius: float
) -> NDArray[np.bool_]:
    """An ellipsoid with a waved rim."""
    axes = radius * rng.uniform(0.8, 1.25, len(middle))
    away = (grid - middle) / axes
    angle = np.arctan2(away[..., 0], away[..., 1])
    waves = 1 + 0.1 * np.sin(rng.integers(2, 5) * angle + rng.uniform(0, 6))
    return np.asarray(np.linalg.norm(away, axis=-1) < waves)


def _direction(rng: np.random.Generator, dim: int) -> NDArray[np.float64]:
    direction = rng.normal(0, 1, dim)
    return np.asarray(direction / np.linalg.norm(direction))
