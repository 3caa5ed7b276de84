"""Lines in millimetres: even points along them, and distances between them.

Knows no image, no pose and no search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Distance of the points that a line is kept as.
_SPACING_MM = 0.5
_MEASURED = 64  # points of a line at which its distance from another is measured


@dataclass(frozen=True, eq=False)
class Lines:
    """Lines as even points, padded with their last.

    Attributes:
        points: float64[lines, most, d], mm.
        counts: int64[lines], how many of them are the line's own.
        lengths: float64[lines], mm.
    """

    points: NDArray[np.float64]
    counts: NDArray[np.int64]
    lengths: NDArray[np.float64]

    @staticmethod
    def of(lines: Sequence[NDArray[np.float64]]) -> Lines:
        """Lay lines float64[points, d] of two points or more out."""
        lengths = np.array([length_of(line) for line in lines])
        counts = np.maximum(2, np.ceil(lengths / _SPACING_MM).astype(np.int64) + 1)
        points = np.empty((len(lines), int(counts.max()), lines[0].shape[1]))
        for k, line in enumerate(lines):
            points[k, : counts[k]] = resampled(line, int(counts[k]))
            points[k, counts[k] :] = points[k, counts[k] - 1]
        return Lines(points, counts, lengths)

    def own(self, line: int) -> NDArray[np.float64]:
        """float64[points, d]: one line without its padding."""
        return self.points[line, : self.counts[line]]

    def at(self, line: NDArray[np.integer], arc_mm: NDArray[np.floating]) -> NDArray[np.float64]:
        """float64[n, d]: the points at distances float[n] along lines int[n], ends included."""
        last = (self.counts[line] - 1).astype(np.float64)
        place = np.clip(arc_mm / np.maximum(self.lengths[line], 1e-9), 0, 1) * last
        low = np.minimum(place.astype(np.int64), self.counts[line] - 2)
        share = (place - low)[:, None]
        return np.asarray(self.points[line, low] * (1 - share) + self.points[line, low + 1] * share)

    def arcs(self, line: NDArray[np.integer], places: NDArray[np.float64]) -> NDArray[np.float64]:
        """float64[n]: how far along lines int[n] the points nearest to float64[n, d] lie, mm."""
        apart = self.points[line] - places[:, None]
        nearest = np.einsum("npi,npi->np", apart, apart).argmin(axis=1)
        return np.asarray(nearest * self.lengths[line] / (self.counts[line] - 1))


def length_of(line: NDArray[np.float64]) -> float:
    """Add up the length of a line float64[points, d]."""
    return float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())


def resampled(line: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """float64[count, d]: points at equal distances along a line float64[points, d]."""
    ends = np.linalg.norm(np.diff(line, axis=0), axis=1)
    arc = np.concatenate([[0.0], np.cumsum(ends)])
    arcs = np.linspace(0, arc[-1], count)
    return np.stack([np.interp(arcs, arc, axis) for axis in line.T], axis=1)


def distances(points: NDArray[np.float64], line: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[n]: distances of points float64[n, d] from a line float64[points, d], mm."""
    if len(line) == 1:
        return np.asarray(np.linalg.norm(points - line[0], axis=1))
    begin, along = line[:-1], np.diff(line, axis=0)
    square = np.maximum((along**2).sum(axis=1), 1e-12)
    share = np.einsum("nsi,si->ns", points[:, None] - begin, along) / square
    foot = begin + np.clip(share, 0, 1)[:, :, None] * along
    return np.asarray(np.linalg.norm(points[:, None] - foot, axis=2).min(axis=1))


def apart(
    trace: NDArray[np.float64], truth: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Measure two lines float64[points, d] at even points of each.

    Returns:
        float64[64] distances of the trace's points from the truth, and of the truth's points
        from the trace, mm.
    """
    even = resampled(trace, _MEASURED) if len(trace) > 1 else np.repeat(trace, _MEASURED, axis=0)
    return distances(even, truth), distances(resampled(truth, _MEASURED), trace)
