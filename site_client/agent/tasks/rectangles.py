"""Rectangles that lie any way in a plane: corners, and how much of two is common.

A rectangle is float64[..., 5]: middle x and y, the logarithms of its two sides, and the
angle of the first side from x to y, radians.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SIGNS = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
_SLACK = 1e-9


def directions(angles: NDArray[np.floating]) -> NDArray[np.float64]:
    """float64[..., 2, 2]: rows are the directions of the first and the second side."""
    c, s = np.cos(angles, dtype=np.float64), np.sin(angles, dtype=np.float64)
    return np.stack([np.stack([c, s], axis=-1), np.stack([-s, c], axis=-1)], axis=-2)


def corners(rectangles: NDArray[np.floating]) -> NDArray[np.float64]:
    """float64[..., 4, 2]: corners in order."""
    sides = np.exp(rectangles[..., None, 2:4].astype(np.float64)) * _SIGNS
    return np.asarray(rectangles[..., None, :2] + sides @ directions(rectangles[..., 4]))


def overlaps(mine: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float64]:
    """float64[...]: intersection over union of rectangles [..., 5] each; NaN stays NaN.

    The common part is convex: its corners are those of one rectangle inside the other, and
    where their sides cross.
    """
    mine, other = np.broadcast_arrays(mine, other)
    a, b = corners(mine), corners(other)
    points = [a, b]
    there = [_inside(a, other), _inside(b, mine)]
    along_a, along_b = np.roll(a, -1, axis=-2) - a, np.roll(b, -1, axis=-2) - b
    gap = b[..., None, :, :] - a[..., :, None, :]
    da, db = along_a[..., :, None, :], along_b[..., None, :, :]
    turn = _cross(da, db)
    flat = np.abs(turn) < _SLACK
    safe = np.where(flat, 1.0, turn)
    share_a, share_b = _cross(gap, db) / safe, _cross(gap, da) / safe
    meet = ~flat & (share_a >= 0) & (share_a <= 1) & (share_b >= 0) & (share_b <= 1)
    crossings = a[..., :, None, :] + share_a[..., None] * da
    points.append(crossings.reshape(*crossings.shape[:-3], 16, 2))
    there.append(meet.reshape(*meet.shape[:-2], 16))
    common = _area(np.concatenate(points, axis=-2), np.concatenate(there, axis=-1))
    areas = np.exp(mine[..., 2] + mine[..., 3]) + np.exp(other[..., 2] + other[..., 3])
    return np.asarray(common / (areas - common))


def canonical(rectangles: NDArray[np.floating]) -> NDArray[np.float64]:
    """float64[..., 5]: the same rectangles, the first side the longer, the angle in 0 to pi."""
    out = rectangles.astype(np.float64)
    swap = out[..., 3] > out[..., 2]
    out[swap, 2:4] = out[swap, 3:1:-1]
    out[..., 4] = np.mod(out[..., 4] + np.where(swap, np.pi / 2, 0.0), np.pi)
    return out


def _inside(points: NDArray[np.float64], rectangles: NDArray[np.floating]) -> NDArray[np.bool_]:
    """bool[..., n]: which points [..., n, 2] lie in rectangles [..., 5]."""
    away = points - rectangles[..., None, :2]
    along = np.abs(away @ np.swapaxes(directions(rectangles[..., 4]), -1, -2))
    half = np.exp(rectangles[..., None, 2:4].astype(np.float64)) / 2
    return np.asarray((along <= half * (1 + _SLACK)).all(axis=-1))


def _area(points: NDArray[np.float64], there: NDArray[np.bool_]) -> NDArray[np.float64]:
    """float64[...]: area of the convex polygons with those corners [..., n, 2] that are there."""
    count = there.sum(axis=-1)
    middle = np.where(there[..., None], points, 0).sum(axis=-2) / np.maximum(count, 1)[..., None]
    away = points - middle[..., None, :]
    angle = np.where(there, np.arctan2(away[..., 1], away[..., 0]), np.inf)
    order = np.argsort(angle, axis=-1)
    away = np.take_along_axis(away, order[..., None], axis=-2)
    # What is not there stands behind, and lies on the first corner.
    absent = ~np.take_along_axis(there, order, axis=-1)
    away = np.where(absent[..., None], away[..., :1, :], away)
    area = _cross(away, np.roll(away, -1, axis=-2)).sum(axis=-1) / 2
    return np.asarray(np.where(count >= 3, np.abs(area), 0.0 * middle[..., 0]))


def _cross(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])
