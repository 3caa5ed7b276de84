"""Made vessels: a winding vessel with gaps, thinner branches and strangers, in noise.

The centreline of the main vessel is known exactly. No data set of angiographies was at
hand: what a figure on these says of a patient's vessels is not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from site_client.imaging.answers import write_curve_markups

_STEP = 0.5


@dataclass(frozen=True, eq=False)
class Vessel:
    """One made image.

    Attributes:
        pixels: uint8, axes (z,) y, x; 1 mm apart.
        line: float64[points, d], index x, y (, z) along the main vessel, seed first.
    """

    pixels: NDArray[np.uint8]
    line: NDArray[np.float64]


def make_vessel(rng: np.random.Generator, dim: int, side: int = 64, branches: int = 4) -> Vessel:
    """Draw one vessel that runs from near a side for more than half the image's side.

    Along two stretches of a few millimetres little of its contrast is left.
    """
    size = np.full(dim, side)
    while True:
        seed = rng.uniform(0.15, 0.85, dim) * side
        seed[rng.integers(dim)] = 0.12 * side
        heading = side / 2 + rng.uniform(-0.2, 0.2, dim) * side - seed
        line = _winding(rng, seed, heading, 1.6 * side, side)
        if len(line) * _STEP >= 0.6 * side:
            break
    pixels = rng.normal(0, 1, size[::-1])
    pixels = _smoothed(pixels, 3.0) * 120 + 70
    radius = np.linspace(rng.uniform(2.0, 2.6), rng.uniform(1.3, 1.7), len(line))
    grey = rng.uniform(100, 150)
    drawn = np.zeros(size[::-1])
    bright = np.ones(len(line))
    for _ in range(2):
        at, long = int(rng.integers(10, len(line) - 10)), int(rng.integers(6, 14))
        bright[at : at + long] = rng.uniform(0.1, 0.4)
    _draw(drawn, line, radius, bright)
    for _ in range(branches):
        at = int(rng.integers(len(line) // 6, len(line) - len(line) // 6))
        away = rng.normal(0, 1, dim)
        branch = _winding(rng, line[at], away, rng.uniform(0.3, 0.8) * side, side)
        thin = np.linspace(rng.uniform(0.5, 0.85), 0.4, len(branch)) * radius[at]
        _draw(drawn, branch, thin, np.ones(len(branch)))
    for _ in range(2):
        begin, away = rng.uniform(0.1, 0.9, dim) * side, rng.normal(0, 1, dim)
        stranger = _winding(rng, begin, away, side, side)
        thick = np.full(len(stranger), rng.uniform(1.2, 2.2))
        _draw(drawn, stranger, thick, np.ones(len(stranger)))
    pixels = pixels + grey * drawn + rng.normal(0, 12, pixels.shape)
    return Vessel(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), line)


def write_vessels(
    folder: Path, count: int, dim: int, seed: int, side: int = 32, pixel_mm: float = 1.0
) -> None:
    """Write made vessels as NIfTI or PNG, a curve of 3D Slicer beside each."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for k in range(count):
        vessel = make_vessel(rng, dim, side)
        image = sitk.GetImageFromArray(vessel.pixels)
        image.SetSpacing((pixel_mm,) * dim)
        name = f"vessel{k}" + (".png" if dim == 2 else ".nii.gz")
        sitk.WriteImage(image, str(folder / name))
        points = np.zeros((len(vessel.line), 3))
        points[:, :dim] = vessel.line * pixel_mm
        # What a person would click: every few millimetres, and the end.
        clicked = np.concatenate([points[:-1:6], points[-1:]])
        write_curve_markups(folder / f"vessel{k}.mrk.json", [("main", clicked)])


def _winding(
    rng: np.random.Generator,
    begin: NDArray[np.float64],
    heading: NDArray[np.float64],
    longest: float,
    side: int,
) -> NDArray[np.float64]:
    """A random walk whose direction changes smoothly, until it nears the border."""
    place, heading = begin.astype(np.float64), heading / np.linalg.norm(heading)
    bend, line = np.zeros(len(begin)), [begin]
    for _ in range(int(longest / _STEP)):
        bend = 0.97 * bend + 0.012 * rng.normal(0, 1, len(begin))
        heading = heading + bend * _STEP
        heading /= np.linalg.norm(heading)
        place = place + _STEP * heading
        if (place < 3).any() or (place > side - 4).any():
            break
        line.append(place)
    return np.array(line)


def _draw(
    pixels: NDArray[np.float64],
    line: NDArray[np.float64],
    radius: NDArray[np.float64],
    bright: NDArray[np.float64],
) -> None:
    """Fill a tube of a radius and a brightness per point, with an edge of a pixel."""
    d = line.shape[1]
    around = np.stack(np.meshgrid(*[np.arange(-5, 6)] * d, indexing="ij"), axis=-1).reshape(-1, d)
    for place, wide, grey in zip(line, radius, bright, strict=True):
        index = np.rint(place).astype(int) + around
        index = index[((index >= 0) & (index < pixels.shape[::-1])).all(axis=1)]
        inside = grey * np.clip(wide + 0.5 - np.linalg.norm(index - place, axis=1), 0, 1)
        at = tuple(index[:, ::-1].T)
        pixels[at] = np.maximum(pixels[at], inside)


def _smoothed(pixels: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    image = sitk.SmoothingRecursiveGaussian(sitk.GetImageFromArray(pixels), sigma)
    return sitk.GetArrayFromImage(image)
