"""The place of a key among known keys: itself, or the nearest in digit space, exactly.

The compiled part of codebooks. A hash table finds the known keys. For any other
a balanced tree of boxes over the known points is searched, passing over boxes
that lie farther away than the best point so far. The answer depends neither on
the tree nor on what was asked before: the smallest squared Euclidean distance,
and of equally near points the first. Nothing here knows what a digit means.
"""

from __future__ import annotations

import threading
from typing import Final

import numpy as np
from numba import int32, int64
from numpy.typing import NDArray

from common.keys.mixed_radix import MixedRadix
from common.sketching.compiling import compiled

LEAF: Final = 32  # points compared one by one
_DEPTH: Final = 64  # of the stack; a balanced tree of 2**31 points needs fewer
_SEARCH: Final = 1 << 15  # unseen keys whose digits are in memory at a time
_REMEMBERED: Final = 1 << 20  # unseen keys whose answer is kept between calls

I32 = NDArray[np.int32]
U64 = NDArray[np.uint64]
U = np.uint64


class NearestKey:
    """The place of any key of a codec among some known keys.

    Answers for unseen keys are remembered, up to a million. A table that was
    published is never changed: threads read one version of it to the end, and a
    larger one replaces it.

    Args:
        digits: how a key is read; radices of at most 4096.
        keys: uint64[n], n at least 1, each once.
    """

    def __init__(self, digits: MixedRadix, keys: U64) -> None:
        self._digits = digits
        self._known = keys
        self._tree: NearestPoint | None = None
        self._lock = threading.Lock()
        self._table = _Table(keys, np.arange(keys.size, dtype=np.int32))

    def find(self, keys: U64) -> I32:
        """Index of the known key that each key is, or is nearest to, uint64[n] -> int32[n]."""
        places, absent = self._table.match(keys)
        if absent:
            unseen = np.flatnonzero(places < 0)
            distinct, back = np.unique(keys[unseen], return_inverse=True)
            indices = self._search(distinct)
            places[unseen] = indices[back]
            self._remember(distinct, indices)
        return places

    def _search(self, keys: U64) -> I32:
        with self._lock:
            if self._tree is None:
                self._tree = NearestPoint(self._digits.decode(self._known).astype(np.int32))
            tree = self._tree
        indices = np.empty(keys.size, np.int32)
        for start in range(0, keys.size, _SEARCH):
            queries = self._digits.decode(keys[start : start + _SEARCH]).astype(np.int32)
            indices[start : start + _SEARCH] = tree.find(queries)
        return indices

    def _remember(self, keys: U64, places: I32) -> None:
        """Keep new answers, where they are many enough to be worth a new table."""
        with self._lock:
            table = self._table
            if keys.size < table.keys.size // 64:
                return
            # Another thread may have kept some of them in the meantime.
            new = np.flatnonzero(table.match(keys)[0] < 0)
            new = new[: max(0, self._known.size + _REMEMBERED - table.keys.size)]
            if new.size:
                both = np.concatenate([table.keys, keys[new]])
                self._table = _Table(both, np.concatenate([table.places, places[new]]))


class _Table:
    """Distinct keys, each with a place, in an open-addressed table at most half full."""

    def __init__(self, keys: U64, places: I32) -> None:
        self.keys = keys
        self.places = places
        bits = max(4, (2 * keys.size - 1).bit_length())
        self._shift = np.uint64(64 - bits)
        self._slots = np.zeros(1 << bits, np.uint64)
        self._held = np.full(1 << bits, -1, np.int32)
        _fill(keys.copy(), places.copy(), self._slots, self._held, self._shift)

    def match(self, keys: U64) -> tuple[I32, int]:
        """Place of each key, -1 for the absent, and how many are absent."""
        indices = np.empty(keys.size, np.int32)
        absent: int = _match(_plain(keys), self._slots, self._held, self._shift, indices)
        return indices, absent


def _plain(keys: U64) -> U64:
    """Return a read-only view or copy of one layout: one compiled kernel for every caller."""
    view = np.ascontiguousarray(keys).view()
    view.flags.writeable = False
    return view


class NearestPoint:
    """A search tree over points with small whole coordinates.

    Args:
        points: int32[n, d], n at least 1; squared distances must fit 31 bits, which
            64 coordinates below 4096 do.
    """

    def __init__(self, points: I32) -> None:
        count = points.shape[0]
        order = np.arange(count, dtype=np.int32)
        rows: list[tuple[int, int, int, int]] = []  # start, stop, left, right; a leaf's right is 0
        self._grow(points, order, 0, count, rows)
        # Leaves keep the order of the points, so that the first of equals is met first.
        self._nodes = np.array(rows, np.int32).reshape(-1, 4)
        self._order = order
        self._columns = np.ascontiguousarray(points[order].T)  # a leaf is a run in every column
        starts = self._nodes[:, :2]
        self._low = np.array([self._columns[:, a:b].min(axis=1) for a, b in starts], np.int32)
        self._high = np.array([self._columns[:, a:b].max(axis=1) for a, b in starts], np.int32)
        self._first = np.array([order[a:b].min() for a, b in starts], np.int32)

    def _grow(
        self, points: I32, order: I32, start: int, stop: int, rows: list[tuple[int, int, int, int]]
    ) -> int:
        """Split ``order[start:stop]`` at the median of the widest coordinate, and so on."""
        node = len(rows)
        rows.append((start, stop, 0, 0))
        here = points[order[start:stop]]
        spread = here.max(axis=0) - here.min(axis=0)
        if stop - start <= LEAF or not spread.any():
            order[start:stop].sort()
            return node
        middle = (stop - start) // 2
        placed = np.argpartition(here[:, int(np.argmax(spread))], middle)
        order[start:stop] = order[start:stop][placed]
        left = self._grow(points, order, start, start + middle, rows)
        right = self._grow(points, order, start + middle, stop, rows)
        rows[node] = (start, stop, left, right)
        return node

    def find(self, queries: I32) -> I32:
        """Index of the nearest point of each query, int32[m, d] -> int32[m].

        Fastest when neighbouring queries are near each other.
        """
        out = np.empty(queries.shape[0], np.int32)
        tree = (self._nodes, self._order, self._columns, self._low, self._high, self._first)
        _find(np.ascontiguousarray(queries), *tree, out)
        return out


@compiled
def _outside(point: I32, low: I32, high: I32) -> np.int32:
    """Squared distance from a point to a box."""
    total: np.int32 = int32(0)
    for i in range(point.size):
        below = low[i] - point[i]
        above = point[i] - high[i]
        gap = max(below, above, int32(0))
        total += gap * gap
    return total


@compiled
def _find(
    queries: I32,
    nodes: I32,
    order: I32,
    columns: I32,
    low: I32,
    high: I32,
    first: I32,
    out: I32,
) -> None:
    stack = np.empty(_DEPTH, np.int32)
    bounds = np.empty(_DEPTH, np.int32)
    near = np.empty(columns.shape[1], np.int32)
    spot = 0  # where the previous answer lies: usually a good first guess for the next query
    for q in range(queries.shape[0]):
        point = queries[q]
        best = int32(0)
        for i in range(point.size):
            gap = columns[i, spot] - point[i]
            best += gap * gap
        winner = order[spot]
        stack[0], bounds[0], depth = 0, 0, 1
        while depth > 0:
            depth -= 1
            node = stack[depth]
            bound = bounds[depth]
            if bound > best or (bound == best and first[node] >= winner):
                continue
            start, stop, lower, upper = nodes[node]
            if upper == 0:
                count = stop - start
                reach = near[:count]
                reach[:] = 0
                for i in range(point.size):
                    column = columns[i, start:stop]
                    digit = point[i]
                    for j in range(count):
                        gap = column[j] - digit
                        reach[j] += gap * gap
                for j in range(count):
                    if reach[j] < best or (reach[j] == best and order[start + j] < winner):
                        best, winner, spot = reach[j], order[start + j], int64(start + j)
                continue
            a = _outside(point, low[lower], high[lower])
            b = _outside(point, low[upper], high[upper])
            if a <= b:  # the nearer box last, so that it is searched first
                stack[depth], bounds[depth] = upper, b
                stack[depth + 1], bounds[depth + 1] = lower, a
            else:
                stack[depth], bounds[depth] = lower, a
                stack[depth + 1], bounds[depth + 1] = upper, b
            depth += 2
        out[q] = winner


@compiled
def _fill(keys: U64, places: I32, slots: U64, slot_places: I32, shift: np.uint64) -> None:
    mask = U(slots.size - 1)
    for j in range(keys.size):
        slot = (keys[j] * U(0x9E3779B97F4A7C15)) >> shift
        while slot_places[slot] >= 0:
            slot = (slot + U(1)) & mask
        slots[slot] = keys[j]
        slot_places[slot] = places[j]


@compiled
def _match(keys: U64, slots: U64, slot_places: I32, shift: np.uint64, out: I32) -> int:
    mask = U(slots.size - 1)
    absent = 0
    for j in range(keys.size):
        slot = (keys[j] * U(0x9E3779B97F4A7C15)) >> shift
        while slot_places[slot] >= 0 and slots[slot] != keys[j]:
            slot = (slot + U(1)) & mask
        out[j] = slot_places[slot]
        if slot_places[slot] < 0:
            absent += 1
    return absent
