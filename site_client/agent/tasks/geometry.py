"""Poses and ladders: the geometry that all searches share, in two and three dimensions.

A pose turns, scales, shifts and re-contrasts an image as it is sampled:
``posed = shift + scale · R · native``, both in millimetres from the image's middle.
It is drawn per episode and stored with the situation in half precision; it is
rounded before use, so that what is remembered is what was seen.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from site_client.agent.settings import PoseSettings

# Of each cut, the axes along its columns, its rows, and through it: across x, y and z.
ORTHOGONAL_CUTS = np.array([[1, 2, 0], [0, 2, 1], [0, 1, 2]])


@dataclass(frozen=True)
class Ladder:
    """The levels of a search, coarse to fine.

    Attributes:
        strides_mm: distance of neighbouring samples of the region of interest.
        steps_mm: length of one step.
    """

    strides_mm: tuple[float, ...]
    steps_mm: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.steps_mm or len(self.strides_mm) != len(self.steps_mm):
            raise InputDataError(
                "every level has a stride and a step",
                field="ladder",
                expected="as many strides as steps",
                got=f"{len(self.strides_mm)} strides and {len(self.steps_mm)} steps",
            )
        check_falling("ladder.steps_mm", self.steps_mm)
        if not all(0 < stride < np.inf for stride in self.strides_mm):
            raise InputDataError(
                "no such stride", field="ladder.strides_mm", expected="positive numbers"
            )

    def __len__(self) -> int:
        return len(self.steps_mm)


def check_falling(field: str, steps: tuple[float, ...]) -> None:
    """Refuse steps that are not positive or do not become finer from level to level.

    Raises:
        InputDataError: they are not.
    """
    if not steps or not all(0 < step < np.inf for step in steps):
        raise InputDataError("no such step", field=field, expected="positive numbers")
    if any(fine > coarse for coarse, fine in itertools.pairwise(steps)):
        raise InputDataError("levels go from coarse to fine", field=field, expected="falling steps")


def pose_length(dim: int) -> int:
    """Numbers in a pose: rotation, scale, shift, gamma."""
    return 5 if dim == 2 else 8


def native_poses(n: int, dim: int) -> NDArray[np.float16]:
    """float16[n, pose] that change nothing: rotation (degrees), scale, shift (mm), gamma."""
    turns = 1 if dim == 2 else 3
    poses = np.zeros((n, pose_length(dim)), np.float16)
    poses[:, [turns, -1]] = 1
    return poses


def draw_poses(
    rng: np.random.Generator, extent: PoseSettings, n: int, dim: int
) -> NDArray[np.float16]:
    """float16[n, pose] random poses."""
    turns = 1 if dim == 2 else 3
    poses = native_poses(n, dim).astype(np.float64)
    poses[:, :turns] = rng.uniform(-1, 1, (n, turns)) * extent.rotation_deg
    poses[:, turns] += rng.uniform(-1, 1, n) * extent.scale_fraction
    poses[:, turns + 1 : -1] = rng.uniform(-1, 1, (n, dim)) * extent.shift_mm
    # Symmetric in the logarithm: darkening is as likely as brightening.
    poses[:, -1] = np.exp(rng.uniform(-1, 1, n) * np.log1p(extent.gamma_contrast))
    return poses.astype(np.float16)


def rotations(degrees: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rotation matrices of angles [n, 1] in the plane or [n, 3] about x, then y, then z."""
    angles = np.deg2rad(np.asarray(degrees, dtype=np.float64))
    if angles.shape[1] == 1:
        c, s = np.cos(angles[:, 0]), np.sin(angles[:, 0])
        return np.moveaxis(np.array([[c, -s], [s, c]]), 2, 0)
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles).T, np.sin(angles).T
    turned = np.array(
        [
            [cy * cz, sx * sy * cz - cx * sz, cx * sy * cz + sx * sz],
            [cy * sz, sx * sy * sz + cx * cz, cx * sy * sz - sx * cz],
            [-sy, sx * cy, cx * cy],
        ]
    )
    return np.moveaxis(turned, 2, 0)


@dataclass(frozen=True, eq=False)
class Poses:
    """Poses unpacked for use.

    Attributes:
        rotation: float64[n, d, d].
        scale: float64[n].
        shift: float64[n, d], mm.
        gamma: float64[n].
    """

    rotation: NDArray[np.float64]
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]
    gamma: NDArray[np.float64]

    @staticmethod
    def of(packed: NDArray[np.float16]) -> Poses:
        """Unpack float16[n, pose]."""
        wide = packed.astype(np.float64)
        turns = 1 if wide.shape[1] == 5 else 3
        return Poses(
            rotations(wide[:, :turns]), wide[:, turns], wide[:, turns + 1 : -1], wide[:, -1]
        )

    def posed(self, native: NDArray[np.float64]) -> NDArray[np.float64]:
        """Native offsets (mm) float64[n, ..., d] as they lie after the pose."""
        scale, shift = self._lifted(native)
        return np.asarray(shift + scale * np.einsum("nij,n...j->n...i", self.rotation, native))

    def native(self, posed: NDArray[np.floating]) -> NDArray[np.float64]:
        """The inverse of `posed`."""
        scale, shift = self._lifted(posed)
        return np.asarray(np.einsum("nji,n...j->n...i", self.rotation, (posed - shift) / scale))

    def native_vectors(self, posed: NDArray[np.float64]) -> NDArray[np.float64]:
        """Displacements (mm) float64[n, ..., d] of the posed frame, before the pose."""
        scale, _ = self._lifted(posed)
        return np.asarray(np.einsum("nji,n...j->n...i", self.rotation, posed / scale))

    def _lifted(
        self, like: NDArray[np.floating]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        between = (1,) * (like.ndim - 2)
        n, d = self.shift.shape
        return self.scale.reshape(n, *between, 1), self.shift.reshape(n, *between, d)


def steps_of_actions(dim: int) -> NDArray[np.float32]:
    """float32[2 * dim, dim]: action 2i is a step forward along axis i, 2i + 1 one back."""
    axes = np.eye(dim, dtype=np.float32)
    return np.stack([axes, -axes], axis=1).reshape(2 * dim, dim)
