"""Made slides: large pictures in which little is where something is to be found.

A tissue of dots; in a few wide patches the dots stand denser, which shows from afar; in one
or two of these lies a small nest of rings, which only shows closely. What a figure on these
says of a patient's slides is not known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Slide:
    """One made slide.

    Attributes:
        pixels: uint8[y, x].
        mask: bool[y, x], the nests.
    """

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def make_slide(rng: np.random.Generator, side: int = 1024, patches: int = 3) -> Slide:
    """Draw one slide; a nest covers about a thousandth of it."""
    y, x = np.mgrid[:side, :side]
    pixels = np.full((side, side), 225.0) + rng.normal(0, 6, (side, side))
    dense = rng.uniform(0.12, 0.88, (patches, 2)) * side
    spots = [rng.uniform(0, side, (int(0.0015 * side * side), 2))]
    spots += [
        middle + rng.normal(0, 0.05 * side, (int(0.0006 * side * side), 2)) for middle in dense
    ]
    for place in np.concatenate(spots):
        _disc(pixels, place, 2.2, rng.uniform(90, 160))
    mask = np.zeros((side, side), bool)
    for middle in dense[: rng.integers(1, 3)]:
        nest = middle + rng.normal(0, 0.01 * side, 2)
        mask |= np.hypot(x - nest[0], y - nest[1]) < 0.018 * side
        for place in nest + rng.normal(0, 0.008 * side, (12, 2)):
            _disc(pixels, place, 5.0, 60)
            _disc(pixels, place, 2.5, 215)
    return Slide(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), mask)


def _disc(
    pixels: NDArray[np.float64], place: NDArray[np.float64], radius: float, grey: float
) -> None:
    reach = int(radius) + 1
    around = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    at = np.rint(place[::-1]).astype(int)[:, None, None] + around
    inside = (around**2).sum(axis=0) <= radius**2
    inside &= ((at >= 0) & (at < np.array(pixels.shape)[:, None, None])).all(axis=0)
    pixels[at[0][inside], at[1][inside]] = grey
