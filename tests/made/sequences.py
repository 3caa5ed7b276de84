"""Made sequences: a textured patch that drifts and breathes over a ground that does not.

What a figure on these says of a patient's ultrasound is not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from site_client.imaging.landmarks import write_landmarks


@dataclass(frozen=True, eq=False)
class MadeSequence:
    """Frames of one sequence.

    Attributes:
        frames: uint8[t, y, x]; 1 mm a pixel.
        places: float64[t, 2], x and y of the landmark.
    """

    frames: NDArray[np.uint8]
    places: NDArray[np.float64]


def make_sequence(rng: np.random.Generator, count: int = 8, side: int = 64) -> MadeSequence:
    """Draw a sequence; the landmark is the middle of the patch."""
    ground = 60 + 25 * _cloud(rng, side, 2.5)
    patch = 150 + 45 * _cloud(rng, side, 1.5)
    velocity = rng.uniform(-2.2, 2.2, 2)
    swing, pace, phase = rng.uniform(2, 5, 2), rng.uniform(0.5, 1.1), rng.uniform(0, 6)
    t = np.arange(count)[:, None]
    places = velocity * t + swing * (np.sin(pace * t + phase) - np.sin(phase))
    places += side / 2 - (places.min(axis=0) + places.max(axis=0)) / 2 + rng.uniform(-4, 4, 2)
    y, x = np.mgrid[:side, :side]
    frames = []
    for at in places:
        away = np.hypot(x - at[0], y - at[1])
        # The texture moves with the patch: sampled where it came from.
        moved = _shifted(patch, at - side / 2)
        inside = np.clip(9 - away, 0, 1)
        frame = ground * (1 - inside) + moved * inside
        frames.append(frame + rng.normal(0, 10, frame.shape))
    pixels = np.clip(np.rint(np.stack(frames)), 0, 255).astype(np.uint8)
    return MadeSequence(pixels, places)


def write_sequences(folder: Path, count: int, seed: int, pixel_mm: float) -> None:
    """Write sequences of three frames as PNG, landmarks beside each."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for k in range(count):
        made = make_sequence(rng, 3, 40)
        for t, (frame, at) in enumerate(zip(made.frames, made.places, strict=True)):
            sitk.WriteImage(sitk.GetImageFromArray(frame), str(folder / f"sub-{k}_{t:03}.png"))
            marks = {"tip": np.array([*at * pixel_mm, 0.0])}
            write_landmarks(folder / f"sub-{k}_{t:03}.mrk.json", marks)


def _cloud(rng: np.random.Generator, side: int, smooth: float) -> NDArray[np.float64]:
    noise = sitk.GetImageFromArray(rng.normal(0, 1, (side, side)))
    values = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(noise, smooth))
    return np.asarray(values / values.std())


def _shifted(values: NDArray[np.float64], by: NDArray[np.float64]) -> NDArray[np.float64]:
    image, move = sitk.GetImageFromArray(values), sitk.TranslationTransform(2, (-by).tolist())
    ground = float(values.mean())
    return np.asarray(sitk.GetArrayFromImage(sitk.Resample(image, move, sitk.sitkLinear, ground)))
