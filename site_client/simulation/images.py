"""Images that are made up: smooth noise, and a blob at every landmark that the plan names.

Landmarks lie where the same seed puts them at every site, each case shifted a little, so
that an agent has something to learn and sites have something in common. They look like
nothing: what a simulation says of errors says nothing of patients.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from common.plan import FederationPlan
from common.settings import KINDS
from site_client.imaging.landmarks import write_landmarks
from site_client.imaging.synthesis import Grid, RawImage, write_raw

_SIZE: Final = (44, 48, 40)  # voxels along x, y, z
_SPACING_MM: Final = 2.0
_INNER: Final = 0.25  # landmarks keep this share of the image from its borders
_SHIFT_MM: Final = 5.0
_BLOB_MM: Final = 7.0


def make_images(folder: Path, plan: FederationPlan, images: int, seed: tuple[int, str]) -> None:
    """Write so many images with their landmarks.

    Args:
        folder: of the site.
        plan: whose landmarks they have.
        images: so many.
        seed: of the simulation, and the site's name.

    Raises:
        InputDataError: a kind of task that these images are none for.
    """
    kind = KINDS[plan.task.kind]
    if kind.dim != 3 or kind.named != "landmarks" or not plan.task.landmarks:
        raise InputDataError(
            "no images can be made up for this kind of task",
            field="task.kind",
            expected="landmarks in volumes, e.g. landmark-3d",
            got=plan.task.kind,
            advice="Simulate it with --learner none",
        )
    places = _places(plan.task.landmarks, seed[0])
    site = int.from_bytes(hashlib.sha256(seed[1].encode()).digest()[:6], "big")
    for number in range(images):
        rng = np.random.default_rng([seed[0], site, number])
        _write_case(folder / f"case-{number}", places, rng)


def _places(names: tuple[str, ...], seed: int) -> dict[str, NDArray[np.float64]]:
    """Where each landmark lies in the image, float64[3] in mm from its first voxel."""
    rng = np.random.default_rng([seed])
    extent = np.array(_SIZE) * _SPACING_MM
    return {name: extent * rng.uniform(_INNER, 1 - _INNER, 3) for name in names}


def _write_case(
    path: Path, places: Mapping[str, NDArray[np.float64]], rng: np.random.Generator
) -> None:
    index = np.indices(_SIZE[::-1]).transpose(1, 2, 3, 0)[..., ::-1] * _SPACING_MM
    voxels = rng.normal(100.0, 4.0, _SIZE[::-1])
    shift = rng.uniform(-_SHIFT_MM, _SHIFT_MM, 3)
    landmarks: dict[str, NDArray[np.float64]] = {}
    for number, (name, place) in enumerate(places.items()):
        landmarks[name] = place + shift
        near = np.square(index - landmarks[name]).sum(axis=-1) / (2 * _BLOB_MM**2)
        voxels += (-1) ** number * (60.0 + 8.0 * number) * np.exp(-near)
    grid = Grid(_SIZE, (_SPACING_MM,) * 3, (0.0, 0.0, 0.0), np.eye(3))
    write_raw(path.with_name(f"{path.name}.nii.gz"), RawImage(voxels.astype(np.int16), grid))
    write_landmarks(path.with_name(f"{path.name}.mrk.json"), landmarks)
