"""Feeding keys to the kernels: validation, chunks, threads. The only user of the compiled loops.

Memory is bounded by the tables (one more per thread) and fixed buffers, however
long the stream. Threads count into private tables that are added at the end,
so the result does not depend on their number or timing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.errors import SketchError
from common.sketching import kernels
from common.sketching.hashing import HashFunctions

MAX_THREADS: Final = 64
BLOCK: Final = 2048  # cell indices in flight; stays in the first-level cache
CHUNK: Final = 32_768  # keys premixed at a time
# A row of wide tables outgrows the second-level cache: bytes instead of words halve
# it, and longer chunks visit it less often.
WIDE_COLUMNS: Final = 65_536
WIDE_CHUNK: Final = 1 << 20
FEW: Final = 1 << 20  # keys that may go straight to the table, however wide it is
CONVERT: Final = 1 << 20  # keys converted at a time when their type is not uint64

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
_Word = TypeVar("_Word", np.uint64, np.int64)


def checked_threads(threads: int) -> int:
    """``threads`` itself, refused unless it is an integer from 1 to 64."""
    if type(threads) is not int or not 1 <= threads <= MAX_THREADS:
        raise SketchError(
            "unusable thread count",
            field="threads",
            expected=f"an integer from 1 to {MAX_THREADS}",
            got=f"{threads}" if type(threads) is int else type(threads).__name__,
        )
    return threads


def checked_integers(values: ArrayLike, name: str, signed: bool) -> NDArray[np.integer]:
    """``values`` as a one-dimensional integer array that fits 64 bits.

    Raises:
        SketchError: another type or shape; negative keys; weights beyond int64.
    """
    array = np.asarray(values)
    if array.size == 0 and array.ndim == 1:
        return np.zeros(0, np.int64 if signed else np.uint64)
    if array.ndim != 1 or array.dtype.kind not in "ui":
        raise SketchError(
            "unusable sketch input",
            field=name,
            expected="int64[n]" if signed else "uint64[n]",
            got=f"{array.dtype}[{', '.join(map(str, array.shape))}]",
        )
    if not signed and array.dtype.kind == "i" and array.min() < 0:
        raise SketchError(
            "unusable sketch input", field=name, expected="uint64[n]", got="negative numbers"
        )
    if signed and array.dtype == np.uint64 and array.max() > np.uint64(2**63 - 1):
        raise SketchError(
            "unusable sketch input", field=name, expected="int64[n]", got="numbers beyond int64"
        )
    return array


def checked_weights(values: ArrayLike, count: int) -> NDArray[np.integer]:
    """``values`` as ``count`` integers that fit int64.

    Raises:
        SketchError: another type, shape or length.
    """
    weights = checked_integers(values, "weights", signed=True)
    if weights.size != count:
        raise SketchError(
            "lengths differ",
            field="weights",
            expected=f"int64[{count}]",
            got=f"{weights.size} weights",
        )
    return weights


def _plain(array: NDArray[np.integer], dtype: type[_Word]) -> NDArray[_Word]:
    """A read-only, contiguous, aligned view or copy: one type, so one compiled kernel."""
    view = np.require(array, dtype=dtype, requirements=["C", "A"]).view()
    view.flags.writeable = False
    return view


def pieces(
    keys: NDArray[np.integer], weights: NDArray[np.integer] | None, most: int | None = None
) -> Iterator[tuple[U64, I64 | None]]:
    """The input in kernel types, at most ``most`` at a time.

    Input of other types is converted piece by piece, so that memory stays bounded.
    """
    same = keys.dtype == np.uint64 and keys.flags.c_contiguous
    if weights is not None:
        same = same and weights.dtype == np.int64 and weights.flags.c_contiguous
    step = most or (max(1, keys.size) if same else CONVERT)
    for start in range(0, keys.size, step):
        part = _plain(keys[start : start + step], np.uint64)
        amounts = None if weights is None else _plain(weights[start : start + step], np.int64)
        yield part, amounts


class Lane:
    """One thread's counters and buffers."""

    def __init__(self, functions: HashFunctions, table: I64) -> None:
        self.table = table
        self._functions = functions
        self._wide = table.shape[1] > WIDE_COLUMNS
        self._mixed = np.empty(0, np.uint64)
        self._index = np.empty(BLOCK, np.uint32)
        self._low: kernels.Low | None = None
        self._taken = 0

    def take(self, keys: NDArray[np.integer], weights: NDArray[np.integer] | None) -> None:
        """Count ``keys``. ``finish`` must follow before the table is read."""
        f = self._functions
        chunk = min(keys.size, WIDE_CHUNK if self._wide else CHUNK)
        if self._mixed.size < chunk:
            self._mixed = np.empty(chunk, np.uint64)
        self._taken += keys.size
        if weights is None and self._taken < min(2 * self.table.shape[1], FEW):
            weights = np.ones(keys.size, np.int64)  # not worth the low counters yet
        for part, amounts in pieces(keys, weights):
            shared = (f.k0, f.k1, f.a, f.b, f.cells, self._mixed, self._index)
            if amounts is not None:
                kernels.add(part, amounts, self.table, *shared)
                continue
            if self._low is None:
                self._low = self._counters()
            kernels.count(part, self._low, self.table, *shared)

    def _counters(self) -> kernels.Low:
        rows, columns = self.table.shape
        if self._wide:
            return np.zeros((rows, 2 * columns), np.uint8)
        return np.zeros((rows, 2 * columns), np.uint16)

    def finish(self) -> I64:
        """Settle the counters and return the table."""
        if self._low is not None:
            kernels.fold(self._low, self.table)
            self._low = None
        return self.table


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
        lane.finish()
        return
    lanes = [Lane(functions, np.zeros_like(table)) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        _share(pool, lanes, keys, weights)
        for private in pool.map(Lane.finish, lanes):
            table += private


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
        for private in pool.map(Lane.finish, lanes):
            table += private
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
            keys[at : at + step],
            None if weights is None else weights[at : at + step],
        )
        for lane, at in zip(lanes, range(0, keys.size, max(step, 1)), strict=False)
    ]
    for job in jobs:
        job.result()


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
    """Those of the checked keys whose estimate reaches ``threshold``, with their estimates."""
    f = functions
    found, estimates = np.empty(keys.size, np.uint64), np.empty(keys.size, np.float64)
    mixed = np.empty(min(CHUNK, max(keys.size, 1)), np.uint64)
    count = 0
    for part, _ in pieces(keys, None):
        room = (found[count:], estimates[count:])
        shared = (f.k0, f.k1, f.a, f.b, f.cells, mixed)
        count += kernels.select(part, float(threshold), table, *shared, *room)
    return found[:count].copy(), estimates[:count].copy()
