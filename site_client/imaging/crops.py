"""Tri-planar crops: three orthogonal cuts through a point, sampled from volumes in one call.

The random pose is applied here, inside the sampler, by slanting the sampling
axes; no rotated copy of a volume is ever made. Points outside a volume read 0.
"""
# ruff: noqa: ANN001, ANN202  # compiled functions infer their types from the call

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(cache=True, nogil=True, inline="always")
def _trilinear(  # type: ignore[no-untyped-def]  # compiled, arguments below
    voxels,  # uint8[:], all volumes end to end
    start,  # int64, first voxel of this volume
    nx,
    ny,
    nz,
    x,  # float64, continuous index
    y,
    z,
):
    if x < 0.0 or y < 0.0 or z < 0.0 or x > nx - 1 or y > ny - 1 or z > nz - 1:
        return np.float32(0.0)
    x0 = int(x)
    y0 = int(y)
    z0 = int(z)
    a = np.float32(x - x0)
    b = np.float32(y - y0)
    c = np.float32(z - z0)
    dx = 1 if x0 < nx - 1 else 0
    dy = nx if y0 < ny - 1 else 0
    dz = nx * ny if z0 < nz - 1 else 0
    p = start + (z0 * ny + y0) * nx + x0
    v000 = np.float32(voxels[p])
    v010 = np.float32(voxels[p + dy])
    v001 = np.float32(voxels[p + dz])
    v011 = np.float32(voxels[p + dy + dz])
    f00 = v000 + a * (np.float32(voxels[p + dx]) - v000)
    f10 = v010 + a * (np.float32(voxels[p + dy + dx]) - v010)
    f01 = v001 + a * (np.float32(voxels[p + dz + dx]) - v001)
    f11 = v011 + a * (np.float32(voxels[p + dy + dz + dx]) - v011)
    f0 = f00 + b * (f10 - f00)
    f1 = f01 + b * (f11 - f01)
    return f0 + c * (f1 - f0)


@numba.njit(cache=True, nogil=True)
def _sample(voxels, starts, sizes, case, centre, axes, curve, out):  # type: ignore[no-untyped-def]
    n, _, roi, _ = out.shape
    half = roi // 2
    table = np.empty(256, np.uint8)
    for i in range(n):
        for v in range(256):
            table[v] = np.uint8(255.0 * (v / 255.0) ** curve[i] + 0.5)
        start = starts[case[i]]
        nx = sizes[case[i], 0]
        ny = sizes[case[i], 1]
        nz = sizes[case[i], 2]
        for plane in range(3):
            u = 1 if plane == 0 else 0
            w = 1 if plane == 2 else 2
            for r in range(roi):
                x = centre[i, 0] + (r - half) * axes[i, w, 0] - half * axes[i, u, 0]
                y = centre[i, 1] + (r - half) * axes[i, w, 1] - half * axes[i, u, 1]
                z = centre[i, 2] + (r - half) * axes[i, w, 2] - half * axes[i, u, 2]
                for s in range(roi):
                    value = _trilinear(
                        voxels,
                        start,
                        nx,
                        ny,
                        nz,
                        x + s * axes[i, u, 0],
                        y + s * axes[i, u, 1],
                        z + s * axes[i, u, 2],
                    )
                    out[i, plane, r, s] = table[int(value + np.float32(0.5))]


def triplanar_crops(
    voxels: NDArray[np.uint8],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    case: NDArray[np.int64],
    centre: NDArray[np.float64],
    axes: NDArray[np.float64],
    gamma: NDArray[np.float64],
    roi: int,
) -> NDArray[np.uint8]:
    """Sample the cuts across x, y and z through n points.

    Args:
        voxels: uint8[total], the volumes in C order [z, y, x], end to end.
        starts: int64[cases], where each volume begins.
        sizes: int64[cases, 3], voxels along x, y, z.
        case: int64[n], volume of each point.
        centre: float64[n, 3], continuous (x, y, z) index of each point.
        axes: float64[n, 3, 3], index step of one sample along the rotated x, y, z axis.
        gamma: float64[n], exponent of the contrast curve, 1 for none.
        roi: samples along each side.

    Returns:
        uint8[n, 3, roi, roi]: channel k is the cut with the k-th axis as its normal.
    """
    out = np.empty((len(case), 3, roi, roi), np.uint8)
    _sample(voxels, starts, sizes, case, centre, axes, gamma, out)
    return out
