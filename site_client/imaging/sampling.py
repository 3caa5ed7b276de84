"""Cutting regions of interest out of image pyramids: any pose, any stride, one pass.

The random pose is applied here by slanting the sampling axes, and a large stride
reads from a coarser level of the pyramid, so that no rotated or shrunk copy of an
image is ever made and fine detail does not alias into coarse views. What lies
outside an image reads 0. Nothing here knows what is looked for.

Serves every search but the federation's tri-planar one, whose crops (`crops`) are
rounded in their own way and must stay as they are, bit for bit.
"""
# Compiled functions infer their types from the call.
# ruff: noqa: ANN001, ANN202
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from site_client.imaging.pyramids import Pyramids

# 0 has no logarithm; it stays 0 whatever the contrast curve.
_LOGARITHMS = np.log(np.maximum(np.arange(256), 1) / 255.0)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _contrast(gamma, table):
    """The curve v -> 255 (v / 255)^gamma, rounded, into table uint8[256]."""
    if gamma == 1.0:
        for v in range(256):
            table[v] = v
        return
    table[0] = 0
    for v in range(1, 256):
        table[v] = np.uint8(255.0 * np.exp(gamma * _LOGARITHMS[v]) + 0.5)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _narrow(first, last, origin, step, low, high):
    """The part of the samples first..last for which low <= at + s * step <= high."""
    if step > 1e-12:
        first = max(first, int(np.ceil((low - origin) / step - 1e-9)))
        last = min(last, int(np.floor((high - origin) / step + 1e-9)))
    elif step < -1e-12:
        first = max(first, int(np.ceil((high - origin) / step - 1e-9)))
        last = min(last, int(np.floor((low - origin) / step + 1e-9)))
    elif origin < low - 1e-9 or origin > high + 1e-9:
        last = first - 1
    return first, last


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _level(stride, levels):
    """The coarsest pyramid level whose pixels are no larger than the stride."""
    level = 0
    # Rotations leave strides a rounding error short of a power of two.
    while level + 1 < levels and stride >= 0.999 * 2.0 ** (level + 1):
        level += 1
    return level


# Positions are integers of 2^-24 pixels and weights of 2^-16: faster than floats here.
_POSITION, _WEIGHT = 24, 16
_BITS_2D, _BITS_3D = 2 * _WEIGHT, 3 * _WEIGHT
_HALF_2D, _HALF_3D = 1 << (_BITS_2D - 1), 1 << (_BITS_3D - 1)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _fixed(origin, step, shrink, first):
    """(position of sample `first`, step) on a level of the pyramid, from level 0's index."""
    begin = (origin + first * step + 0.5) * shrink - 0.5
    unit = 2.0**_POSITION
    return np.int64(np.floor(begin * unit + 0.5)), np.int64(np.floor(step * shrink * unit + 0.5))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _split(position, size):
    """(lower neighbour, weight of the upper one) of a position, clamped to 0..size - 1."""
    position = max(position, 0)
    # Beyond the last pixel there is no neighbour: step back, weigh it fully.
    low = min(position >> _POSITION, size - 2)
    weight = (position - (low << _POSITION)) >> (_POSITION - _WEIGHT)
    return low, min(weight, 1 << _WEIGHT)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _nearest(position, size):
    return min(max((position + (1 << (_POSITION - 1))) >> _POSITION, 0), size - 1)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _between(pixels, p, weight):
    """Between pixel p and the next one, times 2^16."""
    # Unsigned indices: signed ones would be tested for counting from the end.
    low = np.int64(pixels[np.uintp(p)])
    return (low << _WEIGHT) + weight * (np.int64(pixels[np.uintp(p + 1)]) - low)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _sample_2d(pixels, starts, sizes, levels, bounds, case, origin, axes, gamma, out):
    n, cuts, channels, roi, _ = out.shape
    half = roi // 2
    table = np.empty(256, np.uint8)
    for i in range(n):
        _contrast(gamma[i], table)
        c = case[i]
        for j in range(cuts):
            ux, uy = axes[i, j, 0, 0], axes[i, j, 0, 1]
            vx, vy = axes[i, j, 1, 0], axes[i, j, 1, 1]
            m = _level(np.sqrt(abs(ux * vy - uy * vx)), levels[c])
            shrink = 1.0 / 2.0**m
            nx, ny = sizes[c, m, 0], sizes[c, m, 1]
            for r in range(roi):
                x = origin[i, j, 0] + (r - half) * vx - half * ux
                y = origin[i, j, 1] + (r - half) * vy - half * uy
                # Which samples of the row lie inside is settled once, not for each of them.
                first, last = _narrow(0, roi - 1, x, ux, bounds[c, 0, 0], bounds[c, 1, 0])
                first, last = _narrow(first, last, y, uy, bounds[c, 0, 1], bounds[c, 1, 1])
                for k in range(channels):
                    out[i, j, k, r, :] = 0
                at_x, step_x = _fixed(x, ux, shrink, first)
                at_y, step_y = _fixed(y, uy, shrink, first)
                for s in range(first, last + 1):
                    x0, a = _split(at_x, nx)
                    y0, b = _split(at_y, ny)
                    p = starts[c, m] + y0 * nx + x0
                    for k in range(channels):
                        low = _between(pixels, p, a)
                        high = _between(pixels, p + nx, a)
                        value = (low << _WEIGHT) + b * (high - low)
                        out[i, j, k, r, s] = table[np.uintp((value + _HALF_2D) >> _BITS_2D)]
                        p += nx * ny
                    at_x += step_x
                    at_y += step_y


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _sample_3d(voxels, starts, sizes, levels, bounds, case, origin, axes, gamma, nearest, out):
    n, cuts, channels, depth, roi, _ = out.shape
    half, back = roi // 2, depth // 2
    table = np.empty(256, np.uint8)
    for i in range(n):
        _contrast(gamma[i], table)
        c = case[i]
        for j in range(cuts):
            ux, uy, uz = axes[i, j, 0, 0], axes[i, j, 0, 1], axes[i, j, 0, 2]
            vx, vy, vz = axes[i, j, 1, 0], axes[i, j, 1, 1], axes[i, j, 1, 2]
            ax, ay, az = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
            m = _level((ax * ax + ay * ay + az * az) ** 0.25, levels[c])
            shrink = 1.0 / 2.0**m
            nx, ny, nz = sizes[c, m, 0], sizes[c, m, 1], sizes[c, m, 2]
            slice_, whole = nx * ny, nx * ny * nz
            for row in range(depth * roi):
                d, r = row // roi, row % roi
                up, over = d - back, r - half
                x = origin[i, j, 0] + up * axes[i, j, 2, 0] + over * vx - half * ux
                y = origin[i, j, 1] + up * axes[i, j, 2, 1] + over * vy - half * uy
                z = origin[i, j, 2] + up * axes[i, j, 2, 2] + over * vz - half * uz
                first, last = _narrow(0, roi - 1, x, ux, bounds[c, 0, 0], bounds[c, 1, 0])
                first, last = _narrow(first, last, y, uy, bounds[c, 0, 1], bounds[c, 1, 1])
                first, last = _narrow(first, last, z, uz, bounds[c, 0, 2], bounds[c, 1, 2])
                for k in range(channels):
                    out[i, j, k, d, r, :] = 0
                at_x, step_x = _fixed(x, ux, shrink, first)
                at_y, step_y = _fixed(y, uy, shrink, first)
                at_z, step_z = _fixed(z, uz, shrink, first)
                for s in range(first, last + 1):
                    if nearest:
                        p = starts[c, m] + _nearest(at_z, nz) * slice_
                        p += _nearest(at_y, ny) * nx + _nearest(at_x, nx)
                        for k in range(channels):
                            out[i, j, k, d, r, s] = table[voxels[np.uintp(p + k * whole)]]
                    else:
                        x0, a = _split(at_x, nx)
                        y0, b = _split(at_y, ny)
                        z0, e = _split(at_z, nz)
                        p = starts[c, m] + z0 * slice_ + y0 * nx + x0
                        for k in range(channels):
                            v00 = _between(voxels, p, a)
                            v10 = _between(voxels, p + nx, a)
                            v01 = _between(voxels, p + slice_, a)
                            v11 = _between(voxels, p + slice_ + nx, a)
                            v0 = (v00 << _WEIGHT) + b * (v10 - v00)
                            v1 = (v01 << _WEIGHT) + b * (v11 - v01)
                            value = (v0 << _WEIGHT) + e * (v1 - v0)
                            out[i, j, k, d, r, s] = table[np.uintp((value + _HALF_3D) >> _BITS_3D)]
                            p += whole
                    at_x += step_x
                    at_y += step_y
                    at_z += step_z


def _arrays(
    images: Pyramids,
    case: NDArray[np.int64],
    *geometry: NDArray[np.float64],
) -> tuple[NDArray[np.generic], ...]:
    """Return what the kernels take; contiguous, for every other layout would be compiled anew."""
    return (
        images.pixels,
        images.starts,
        images.sizes,
        images.levels,
        images.bounds,
        np.ascontiguousarray(case, dtype=np.int64),
        *(np.ascontiguousarray(part, dtype=np.float64) for part in geometry),
    )


def sample_2d(
    images: Pyramids,
    case: NDArray[np.int64],
    origin: NDArray[np.float64],
    axes: NDArray[np.float64],
    gamma: NDArray[np.float64],
    roi: int,
) -> NDArray[np.uint8]:
    """Sample squares of 2-D images by bilinear interpolation.

    Args:
        images: pyramids of 2-D images.
        case: int64[n], image of each request.
        origin: float64[n, cuts, 2], continuous (x, y) index of each square's middle.
        axes: float64[n, cuts, 2, 2], index step of one sample along columns, then rows.
        gamma: float64[n], exponent of the contrast curve, 1 for none.
        roi: samples along each side.

    Returns:
        uint8[n, cuts, channels, roi, roi].
    """
    out = np.empty((*origin.shape[:2], images.channels, roi, roi), np.uint8)
    _sample_2d(*_arrays(images, case, origin, axes, gamma), out)
    return out


def sample_3d(
    images: Pyramids,
    case: NDArray[np.int64],
    origin: NDArray[np.float64],
    axes: NDArray[np.float64],
    gamma: NDArray[np.float64],
    shape: tuple[int, int],
    *,
    nearest: bool = False,
) -> NDArray[np.uint8]:
    """Sample cuts or cubes of volumes.

    Args:
        images: pyramids of volumes.
        case: int64[n], volume of each request.
        origin: float64[n, cuts, 3], continuous (x, y, z) index of each middle.
        axes: float64[n, cuts, 3, 3], index step of one sample along columns, rows, slices.
        gamma: float64[n], exponent of the contrast curve, 1 for none.
        shape: (slices, samples along each side); one slice makes a flat cut.
        nearest: take the nearest voxel instead of interpolating between eight.

    Returns:
        uint8[n, cuts, channels, slices, roi, roi].
    """
    depth, roi = shape
    out = np.empty((*origin.shape[:2], images.channels, depth, roi, roi), np.uint8)
    _sample_3d(*_arrays(images, case, origin, axes, gamma), nearest, out)
    return out
