"""Feeding checked keys to the kernels: chunks and threads. The only user of the compiled loops.

Memory is bounded by the tables (one more per thread) and fixed buffers, however
long the stream. Every thread but one counts into a private table that is added at
the end, so the result does not depend on their number or timing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.sketching import kernels
from common.sketching.hashing import HashFunctions
from common.sketching.hot_keys import STEP, HotKeys
from common.sketching.inputs import checked_integers, pieces, readonly

BLOCK: Final = 4096  # cell indices in flight; stay in the first-level cache with a row's counters
CHUNK: Final = 32_768  # keys premixed at a time
# A row of wide tables outgrows the second-level cache: longer chunks visit it less often.
WIDE_COLUMNS: Final = 65_536
WIDE_CHUNK: Final = 1 << 19
FEW: Final = 1 << 20  # keys that may go straight to the table, however wide it is
MANY: Final = 1 << 18  # keys that repay looking for the frequent ones among them

U64 = NDArray[np.uint64]
U32 = NDArray[np.uint32]
I64 = NDArray[np.int64]


class Lane:
    """One thread's counters and buffers."""

    def __init__(self, functions: HashFunctions, table: I64) -> None:
        self.table = table
        self._functions = functions
        columns = table.shape[1]
        self._chunk = WIDE_CHUNK if columns > WIDE_COLUMNS else CHUNK
        self._few = min(columns // 2 if columns > WIDE_COLUMNS else 2 * columns, FEW)
        self._mixed = np.empty(0, np.uint64)
        self._index = np.empty(BLOCK, np.uint32)
        self._low: kernels.Low | None = None
        self._hot: HotKeys | None = None
        self._rest = np.empty(0, np.uint64)  # what the hot keys left, until it is a chunk
        self._waiting = 0
        self._taken = 0

    def take(self, keys: NDArray[np.integer], weights: NDArray[np.integer] | None) -> None:
        """Count ``keys``. ``settle`` and ``finish`` must follow before the table is read."""
        self._taken += keys.size
        if weights is None and self._taken < self._few:
            weights = np.ones(keys.size, np.int64)
        for part, amounts in pieces(keys, weights):
            if amounts is not None:
                self._add(part, amounts)
            elif self._taken < MANY:
                self._count(part)
            else:
                self._sift(part)

    def _sift(self, keys: U64) -> None:
        """Count ``keys``, the frequent ones among them by their tallies."""
        if self._hot is None:
            self._hot = HotKeys()
            self._rest = np.empty(self._chunk + STEP, np.uint64)
        start = 0
        while start < keys.size:
            if passing := self._hot.skip(keys.size - start):
                self._count(keys[start : start + passing])
                start += passing
                continue
            step = keys[start : start + STEP]
            start += step.size
            passed, moved, counts = self._hot.sift(step, self._rest[self._waiting :])
            self._add(moved, counts)
            self._waiting += passed
            if self._waiting >= self._chunk:
                self._count_waiting()
            if self._hot.full:
                self._add(*self._hot.settle())

    def _count_waiting(self) -> None:
        self._count(readonly(self._rest[: self._waiting]))
        self._waiting = 0

    def _count(self, keys: U64) -> None:
        """One for every key."""
        kernels.count(keys, self._counters(), self.table, *self._hashing(keys.size))

    def _add(self, keys: U64, weights: I64) -> None:
        """Add a weight for every key; the first few do not repay clearing low counters."""
        if not keys.size:
            return
        hashing = self._hashing(keys.size)
        few = self._low is None and self._taken < self._few
        kernels.add(keys, weights, None if few else self._counters(), self.table, *hashing)

    def _counters(self) -> kernels.Low:
        if self._low is None:
            self._low = np.zeros((self.table.shape[0], 2 * self.table.shape[1]), np.uint8)
        return self._low

    def _hashing(self, size: int) -> tuple[np.uint64, np.uint64, U64, U64, np.uint64, U64, U32]:
        f = self._functions
        chunk = min(size, self._chunk)
        if self._mixed.size < chunk:
            self._mixed = np.empty(chunk, np.uint64)
        return f.k0, f.k1, f.a, f.b, f.cells, self._mixed, self._index

    def settle(self) -> None:
        """Count what was kept aside. Lanes may do so at once."""
        if self._waiting:
            self._count_waiting()
        if self._hot is not None:
            self._add(*self._hot.settle())
            self._hot = None

    def finish(self, table: I64) -> None:
        """After ``settle``, add everything counted to ``table``: one lane after the other.

        The low counters go there directly, because a private table is mostly
        untouched pages, and writing to them would cost as much as the merge.
        """
        if self._low is not None:
            kernels.fold(self._low, table)
            self._low = None
        if table is not self.table:
            table += self.table


def update(
    table: I64,
    functions: HashFunctions,
    keys: NDArray[np.integer],
    weights: NDArray[np.integer] | None,
    threads: int,
) -> None:
    """Add checked keys to ``table``."""
    threads = max(1, min(threads, keys.size // CHUNK))
    if threads == 1:
        lane = Lane(functions, table)
        lane.take(keys, weights)
        lane.settle()
        lane.finish(table)
        return
    others = [Lane(functions, np.zeros_like(table)) for _ in range(threads - 1)]
    lanes = [Lane(functions, table), *others]
    with ThreadPoolExecutor(threads) as pool:
        _share(pool, lanes, keys, weights)
        _finish(pool, lanes, table)


def update_stream(
    table: I64,
    functions: HashFunctions,
    chunks: Iterable[ArrayLike],
    threads: int,
    progress: Callable[[int], None] | None,
) -> int:
    """Add every chunk to ``table``, all or none; returns the number of keys."""
    total = 0
    lanes = [Lane(functions, np.zeros_like(table)) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        for chunk in chunks:
            keys = checked_integers(chunk, "keys", signed=False)
            _share(pool, lanes, keys, None)
            total += keys.size
            if progress is not None:
                progress(total)
        _finish(pool, lanes, table)
    return total


def _share(
    pool: ThreadPoolExecutor,
    lanes: list[Lane],
    keys: NDArray[np.integer],
    weights: NDArray[np.integer] | None,
) -> None:
    """Split one batch between the lanes and wait for all of them."""
    if len(lanes) == 1:
        lanes[0].take(keys, weights)
        return
    step = -(-keys.size // len(lanes))
    jobs = [
        pool.submit(
            lane.take,
            keys[start : start + step],
            None if weights is None else weights[start : start + step],
        )
        for lane, start in zip(lanes, range(0, keys.size, max(step, 1)), strict=False)
    ]
    for job in jobs:
        job.result()


def _finish(pool: ThreadPoolExecutor, lanes: list[Lane], table: I64) -> None:
    for _ in pool.map(Lane.settle, lanes):
        pass
    for lane in lanes:
        lane.finish(table)


def estimate(
    table: I64, functions: HashFunctions, keys: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Median estimates of checked keys, float64[n]."""
    f = functions
    out = np.empty(keys.size, np.float64)
    mixed = np.empty(min(CHUNK, max(keys.size, 1)), np.uint64)
    done = 0
    for part, _ in pieces(keys, None):
        target = out[done : done + part.size]
        kernels.estimate(part, table, f.k0, f.k1, f.a, f.b, f.cells, mixed, target)
        done += part.size
    return out


def select(
    table: I64, functions: HashFunctions, keys: NDArray[np.integer], threshold: float
) -> tuple[U64, NDArray[np.float64]]:
    """Pick those of the checked keys whose estimate reaches ``threshold``, with their estimates."""
    f = functions
    selected, estimates = np.empty(keys.size, np.uint64), np.empty(keys.size, np.float64)
    mixed = np.empty(min(CHUNK, max(keys.size, 1)), np.uint64)
    count = 0
    for part, _ in pieces(keys, None):
        room = (selected[count:], estimates[count:])
        shared = (f.k0, f.k1, f.a, f.b, f.cells, mixed)
        count += kernels.select(part, float(threshold), table, *shared, *room)
    return selected[:count].copy(), estimates[:count].copy()
