"""Exact counts of different keys, sorted, on disk where memory ends: merged a block at a time.

A *run* is sorted different keys, each with its count. Runs of one stream, of several
slides or of several shards merge into one, whatever their order, and the result is the
same. Keys lie here in the clear: files have no name where they can do without, and are the
owner's alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Final
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from common.sketching.compiling import compiled
from common.sketching.dictionary import KeyDictionary

PAIR: Final = 16  # bytes of a key and its count
FAN: Final = 16  # runs of one size before they are merged into one
_TOGETHER: Final = 1 << 21  # keys of all runs in memory while they are merged
_FEWEST: Final = 1 << 10  # of one run

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
Counted = tuple[U64, I64]


@dataclass(frozen=True)
class Run:
    """A run in a file.

    Attributes:
        place: the file, open or by its path; one by its path is opened for every read.
        offset: bytes before the first key.
        size: number of keys.
    """

    place: Path | IO[bytes]
    offset: int
    size: int

    def read(self, start: int, stop: int) -> Counted:
        """Keys and counts number ``start`` to ``stop``.

        Raises:
            InputDataError: the file ends early.
        """
        length = PAIR * (stop - start)
        with self._opened() as file:
            file.seek(self.offset + PAIR * start)
            data = file.read(length)
        if len(data) != length:
            raise InputDataError(
                "a file of counts is cut short",
                field=str(self.place) if isinstance(self.place, Path) else "temporary file",
                expected=f"{length} bytes",
                got=f"{len(data)}",
            )
        pairs = np.frombuffer(data, "<u8").reshape(-1, 2)
        return pairs[:, 0].astype(np.uint64), pairs[:, 1].astype(np.int64)

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        if isinstance(self.place, Path):
            with self.place.open("rb") as file:
                yield file
        else:
            yield self.place


def as_bytes(keys: U64, counts: I64) -> bytes:
    """Return keys uint64[n] and counts int64[n] as a run has them."""
    return np.stack([keys, counts.view(np.uint64)], axis=1).astype("<u8", copy=False).tobytes()


def merged(runs: Sequence[Run]) -> Iterator[Counted]:
    """Yield the different keys of all runs, ascending, with their counts added up.

    Memory does not grow with the runs' sizes.

    Raises:
        InputDataError: a file ends early, or its keys do not ascend.
    """
    step = max(_FEWEST, _TOGETHER // max(1, len(runs)))
    done = [0] * len(runs)
    counted: list[Counted] = [(np.empty(0, np.uint64), np.empty(0, np.int64)) for _ in runs]
    while True:
        for k, run in enumerate(runs):
            if not counted[k][0].size and done[k] < run.size:
                stop = min(done[k] + step, run.size)
                counted[k] = run.read(done[k], stop)
                if (counted[k][0][1:] <= counted[k][0][:-1]).any():
                    raise InputDataError(
                        "not a run of counts", field="keys", expected="ascending", got="another"
                    )
                done[k] = stop
        filled = [k for k, (keys, _) in enumerate(counted) if keys.size]
        if not filled:
            return
        # Up to the smallest last key, nothing can come any more from any run.
        last = min(counted[k][0][-1] for k in filled)
        parts = []
        for k in filled:
            keys, counts = counted[k]
            cut = int(np.searchsorted(keys, last, side="right"))
            parts.append((keys[:cut], counts[:cut]))
            counted[k] = (keys[cut:], counts[cut:])
        yield _added(parts)


def _added(parts: list[Counted]) -> Counted:
    """Add sorted runs in memory, two by two."""
    while len(parts) > 1:
        pairs = [_both(*parts[k], *parts[k + 1]) for k in range(0, len(parts) - 1, 2)]
        parts = pairs + parts[2 * len(pairs) :]
    return parts[0]


def _both(keys: U64, counts: I64, others: U64, theirs: I64) -> Counted:
    all_keys = np.empty(keys.size + others.size, np.uint64)
    all_counts = np.empty(all_keys.size, np.int64)
    size = _merge(keys, counts, others, theirs, all_keys, all_counts)
    return all_keys[:size], all_counts[:size]


@compiled
def _merge(keys: U64, counts: I64, others: U64, theirs: I64, out: U64, sums: I64) -> int:
    """Merge two sorted runs; returns how many keys there are."""
    i = j = n = 0
    while i < keys.size and j < others.size:
        one, other = keys[i], others[j]
        count = 0
        if one <= other:
            count += counts[i]
            i += 1
        if other <= one:
            count += theirs[j]
            j += 1
        out[n] = min(one, other)
        sums[n] = count
        n += 1
    while i < keys.size:
        out[n], sums[n] = keys[i], counts[i]
        i += 1
        n += 1
    while j < others.size:
        out[n], sums[n] = others[j], theirs[j]
        j += 1
        n += 1
    return n


class KeyTally:
    """Counts keys exactly, however many differ: a dictionary, and runs on disk when it is full.

    Args:
        distinct: keys in memory at a time.
        salt: any secret number; scatters the dictionary's slots.
        folder: where runs lie, in files without a name; the system's own when omitted.

    Raises:
        SketchError: a limit out of range.
    """

    def __init__(self, distinct: int, salt: np.uint64, folder: Path | None = None) -> None:
        self._exact = KeyDictionary(distinct, salt)
        self._folder = folder
        self._levels: list[list[Run]] = [[]]
        finalize(self, _close, self._levels)  # of a tally that nobody drains

    def add(self, keys: U64) -> None:
        """Count keys, uint64[n].

        Raises:
            InputDataError: no room on disk.
        """
        rest = keys
        while (done := self._exact.count(rest)) < rest.size:
            rest = rest[done:]
            self.spill()

    def spill(self) -> None:
        """Move what is in memory to disk."""
        keys, counts = self._exact.items()
        self._exact.clear()
        if not keys.size:
            return
        order = np.argsort(keys)
        self._keep(0, [(keys[order], counts[order])])

    def _keep(self, level: int, parts: Sequence[Counted] | Iterator[Counted]) -> None:
        if level == len(self._levels):
            self._levels.append([])
        self._levels[level].append(self._write(parts))
        if len(self._levels[level]) == FAN:
            runs = list(self._levels[level])
            self._keep(level + 1, merged(runs))
            _close([runs])
            self._levels[level].clear()

    def _write(self, parts: Sequence[Counted] | Iterator[Counted]) -> Run:
        size = 0
        try:
            file = TemporaryFile(dir=self._folder)  # noqa: SIM115  # as long as the run
            for keys, counts in parts:
                file.write(as_bytes(keys, counts))
                size += keys.size
            file.flush()
        except OSError as error:
            raise InputDataError(
                "no room for the counts of keys",
                field=str(self._folder or "temporary folder"),
                expected=f"room for {PAIR} bytes a different key",
                got=os.strerror(error.errno or 0),
                advice="Make room, or set TMPDIR to a disk of this site that has some",
            ) from error
        return Run(file, 0, size)

    def drain(self) -> Iterator[Counted]:
        """Yield all keys, ascending, with their counts; the tally is empty when it is done."""
        if not any(self._levels):
            keys, counts = self._exact.items()
            order = np.argsort(keys)
            yield keys[order], counts[order]
        else:
            self.spill()
            yield from merged([run for level in self._levels for run in level])
        self._exact.clear()
        _close(self._levels)


def _close(levels: list[list[Run]]) -> None:
    """Close the files of runs, which are gone then, and forget them."""
    for runs in levels:
        for run in runs:
            if not isinstance(run.place, Path):
                run.place.close()
        runs.clear()
