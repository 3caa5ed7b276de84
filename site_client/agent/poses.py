"""Random poses and contrasts: what a search sees moved, turned, scaled, brightened.

No image is ever resampled for it; tasks slant the axes along which they sample.
Positions are millimetres from the middle of the volume along the LPS axes
*after* the pose: ``posed = shift + scale · R · native``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from site_client.agent.settings import PoseSettings

POSE = ("pose", "<f2", 8)
"""The field of a situation that holds a pose: rotation (degrees), scale, shift (mm), gamma."""
ROTATION, SCALE, SHIFT, GAMMA = slice(0, 3), 3, slice(4, 7), 7


def native_poses(n: int) -> NDArray[np.float16]:
    """float16[n, 8] poses that change nothing."""
    poses = np.zeros((n, 8), np.float16)
    poses[:, [SCALE, GAMMA]] = 1
    return poses


def draw_poses(rng: np.random.Generator, extent: PoseSettings, n: int) -> NDArray[np.float16]:
    """float16[n, 8] random poses within an extent.

    Rounded to half precision before use, so that what is stored is what was seen.
    """
    poses = native_poses(n).astype(np.float64)
    poses[:, ROTATION] = rng.uniform(-1, 1, (n, 3)) * extent.rotation_deg
    poses[:, SCALE] += rng.uniform(-1, 1, n) * extent.scale_fraction
    poses[:, SHIFT] = rng.uniform(-1, 1, (n, 3)) * extent.shift_mm
    # Symmetric in the logarithm: darkening is as likely as brightening.
    poses[:, GAMMA] = np.exp(rng.uniform(-1, 1, n) * np.log1p(extent.gamma_contrast))
    return poses.astype(np.float16)


def rotation_matrices(poses: NDArray[np.float16]) -> NDArray[np.float64]:
    """float64[n, 3, 3]: rotation about x, then y, then z, from poses float16[n, 8]."""
    angles = np.deg2rad(poses[:, ROTATION].astype(np.float64))
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles).T, np.sin(angles).T
    rotation = np.empty((len(poses), 3, 3))
    # Nine assignments cost less than stacking: this is called for every crop and every step.
    rotation[:, 0, 0], rotation[:, 1, 0], rotation[:, 2, 0] = cy * cz, cy * sz, -sy
    rotation[:, 0, 1], rotation[:, 0, 2] = sx * sy * cz - cx * sz, cx * sy * cz + sx * sz
    rotation[:, 1, 1], rotation[:, 1, 2] = sx * sy * sz + cx * cz, cx * sy * sz - sx * cz
    rotation[:, 2, 1], rotation[:, 2, 2] = sx * cy, cx * cy
    return rotation


def to_posed(native: NDArray[np.float64], poses: NDArray[np.float16]) -> NDArray[np.float64]:
    """Native offsets (mm) float64[n, 3] to posed ones."""
    pose = poses.astype(np.float64)
    turned = np.einsum("nij,nj->ni", rotation_matrices(poses), native)
    return np.asarray(pose[:, SHIFT] + pose[:, SCALE, None] * turned)


def to_native(posed: NDArray[np.floating], poses: NDArray[np.float16]) -> NDArray[np.float64]:
    """Posed offsets (mm) [n, 3] to native ones; the inverse of `to_posed`."""
    pose = poses.astype(np.float64)
    centred = (posed - pose[:, SHIFT]) / pose[:, SCALE, None]
    return np.asarray(np.einsum("nji,nj->ni", rotation_matrices(poses), centred))
