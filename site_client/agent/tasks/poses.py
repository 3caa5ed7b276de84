"""Random poses and contrasts: what a search sees moved, turned, scaled, brightened.

The one place that draws and applies them, in images and in volumes:
``posed = shift + scale · R · native``, both in millimetres from the image's middle
along the patient's (2-D: the image's) axes. A pose is drawn per episode and stored
with the situation in half precision; it is rounded before use, so that what is
remembered is what was seen. No image is resampled for it: tasks slant the axes
along which they sample. The order of the draws and every rounding decide the bits
of a federation's weights; neither may change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.settings import PoseSettings


def pose_length(dim: int) -> int:
    """Numbers in a pose: rotation (degrees), scale, shift (mm), gamma."""
    return _turns(dim) + 1 + dim + 1


def native_poses(n: int, dim: int) -> NDArray[np.float16]:
    """float16[n, pose] that change nothing."""
    poses = np.zeros((n, pose_length(dim)), np.float16)
    poses[:, [_turns(dim), -1]] = 1
    return poses


def draw_poses(
    rng: np.random.Generator, extent: PoseSettings, n: int, dim: int
) -> NDArray[np.float16]:
    """float16[n, pose] random poses within an extent."""
    turns = _turns(dim)
    poses = native_poses(n, dim).astype(np.float64)
    poses[:, :turns] = rng.uniform(-1, 1, (n, turns)) * extent.rotation_deg
    poses[:, turns] += rng.uniform(-1, 1, n) * extent.scale_fraction
    poses[:, turns + 1 : -1] = rng.uniform(-1, 1, (n, dim)) * extent.shift_mm
    # Symmetric in the logarithm: darkening is as likely as brightening.
    poses[:, -1] = np.exp(rng.uniform(-1, 1, n) * np.log1p(extent.gamma_contrast))
    return poses.astype(np.float16)


def rotations(degrees: NDArray[np.floating]) -> NDArray[np.float64]:
    """float64[n, d, d] of angles [n, 1] in the plane, or [n, 3] about x, then y, then z."""
    angles = np.deg2rad(np.asarray(degrees, dtype=np.float64))
    n, turns = angles.shape
    # Assigning entries costs less than stacking: this is called for every crop and step.
    if turns == 1:
        c, s = np.cos(angles[:, 0]), np.sin(angles[:, 0])
        flat = np.empty((n, 2, 2))
        flat[:, 0, 0], flat[:, 0, 1], flat[:, 1, 0], flat[:, 1, 1] = c, -s, s, c
        return flat
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles).T, np.sin(angles).T
    turned = np.empty((n, 3, 3))
    turned[:, 0, 0], turned[:, 1, 0], turned[:, 2, 0] = cy * cz, cy * sz, -sy
    turned[:, 0, 1], turned[:, 0, 2] = sx * sy * cz - cx * sz, cx * sy * cz + sx * sz
    turned[:, 1, 1], turned[:, 1, 2] = sx * sy * sz + cx * cz, cx * sy * sz - sx * cz
    turned[:, 2, 1], turned[:, 2, 2] = sx * cy, cx * cy
    return turned


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
        turns = 1 if wide.shape[1] == pose_length(2) else 3
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


def _turns(dim: int) -> int:
    return 1 if dim == 2 else 3
