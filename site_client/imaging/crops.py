"""Tri-planar crops: three orthogonal cuts through a point, sampled from volumes in one call.

The random pose is applied here, inside the sampler, by slanting the sampling
axes; no rotated copy of a volume is ever made. Points outside a volume read 0.

Apart from `sampling`, on purpose: it reads pyramids and interpolates with integers;
here one isotropic grid is read in full detail and interpolated with floats. What
is seen decides the bits of a federation's weights, so neither rounding may become the
other's.
"""
# Compiled functions infer their types from the call.
# ruff: noqa: ANN001, ANN202
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(cache=True, nogil=True, inline="always")
def _trilinear(
    voxels,  # uint8[:], all volumes end to end
    start,  # int64, first voxel of this volume
    nx,  # int64, voxels along x
    ny,
    nz,
    x,  # float64, continuous index, within 0..nx - 1
    y,
    z,
):
    # On the last voxel the upper neighbour would lie outside: step back by one and weigh it fully.
    x0 = min(int(x), nx - 2)
    y0 = min(int(y), ny - 2)
    z0 = min(int(z), nz - 2)
    a = np.float32(x - x0)
    b = np.float32(y - y0)
    c = np.float32(z - z0)
    p = start + (z0 * ny + y0) * nx + x0
    q = p + nx * ny
    v00 = np.float32(voxels[p])
    v10 = np.float32(voxels[p + nx])
    v01 = np.float32(voxels[q])
    v11 = np.float32(voxels[q + nx])
    f00 = v00 + a * (np.float32(voxels[p + 1]) - v00)
    f10 = v10 + a * (np.float32(voxels[p + nx + 1]) - v10)
    f01 = v01 + a * (np.float32(voxels[q + 1]) - v01)
    f11 = v11 + a * (np.float32(voxels[q + nx + 1]) - v11)
    f0 = f00 + b * (f10 - f00)
    f1 = f01 + b * (f11 - f01)
    return f0 + c * (f1 - f0)


@numba.njit(cache=True, nogil=True, inline="always")
def _narrow(first, last, origin, step, limit):
    """The part of the samples first..last for which 0 <= at + s * step <= limit."""
    if step > 1e-12:
        first = max(first, int(np.ceil(-origin / step - 1e-9)))
        last = min(last, int(np.floor((limit - origin) / step + 1e-9)))
    elif step < -1e-12:
        first = max(first, int(np.ceil((limit - origin) / step - 1e-9)))
        last = min(last, int(np.floor(-origin / step + 1e-9)))
    elif origin < -1e-9 or origin > limit + 1e-9:
        last = first - 1
    return first, last


@numba.njit(cache=True, nogil=True)
def _sample(voxels, starts, sizes, case, centre, axes, curve, out):
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
            ux = axes[i, u, 0]
            uy = axes[i, u, 1]
            uz = axes[i, u, 2]
            for r in range(roi):
                x = centre[i, 0] + (r - half) * axes[i, w, 0] - half * ux
                y = centre[i, 1] + (r - half) * axes[i, w, 1] - half * uy
                z = centre[i, 2] + (r - half) * axes[i, w, 2] - half * uz
                # Which samples of the row lie inside is settled once, not for each of them.
                first, last = _narrow(0, roi - 1, x, ux, nx - 1.0)
                first, last = _narrow(first, last, y, uy, ny - 1.0)
                first, last = _narrow(first, last, z, uz, nz - 1.0)
                out[i, plane, r, :] = table[0]
                for s in range(first, last + 1):
                    xs = max(x + s * ux, 0.0)
                    ys = max(y + s * uy, 0.0)
                    zs = max(z + s * uz, 0.0)
                    value = _trilinear(voxels, start, nx, ny, nz, xs, ys, zs)
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
