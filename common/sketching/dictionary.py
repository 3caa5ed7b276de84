"""Exact counts of the first distinct keys of a stream, in an open-addressed table.

Grows up to a limit and then says it is full: the caller moves what was counted into a
sketch, clears the table and goes on. Holds keys in the clear: it stays where the data is.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.errors import SketchError
from common.sketching import dictionary_kernels as kernels
from common.sketching.hot_keys import STEP, HotKeys
from common.sketching.inputs import readonly

MAX_LIMIT: Final = 1 << 26
_FIRST_SLOTS: Final = 1 << 12
_MANY: Final = 1 << 18  # keys that repay looking for the frequent ones among them

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]


class KeyDictionary:
    """Counts of at most ``limit`` distinct keys.

    Args:
        limit: distinct keys before the dictionary is full, 1 to 2**26.
        salt: any secret number; scatters slots, so that no stream can aim at one.
    """

    def __init__(self, limit: int, salt: np.uint64) -> None:
        if type(limit) is not int or not 1 <= limit <= MAX_LIMIT:
            raise SketchError(
                "unusable dictionary",
                field="limit",
                expected=f"an integer from 1 to {MAX_LIMIT}",
                got=f"{limit}" if type(limit) is int else type(limit).__name__,
            )
        self.limit: Final = limit
        self._salt = salt
        self.clear()

    def clear(self) -> None:
        """Forget everything and give the memory back."""
        self._slots = np.zeros((_FIRST_SLOTS, 2), np.uint64)  # key, count; a count of 0 is empty
        self._used = 0
        self._taken = 0
        self._hot: HotKeys | None = None
        self._rest = np.empty(0, np.uint64)

    def __len__(self) -> int:
        return self._used

    def count(self, keys: U64) -> int:
        """Count keys until a new one finds no room; returns how many were counted."""
        self._taken += keys.size
        if self._taken < _MANY or self.limit < 2 * STEP:
            return self._count(keys)
        done = 0
        while done < keys.size:
            step = keys[done : done + STEP]
            counted = self._sift(step)
            done += counted
            if counted < step.size:
                break
        return done

    def _sift(self, step: U64) -> int:
        """As ``_count``; keeps the frequent keys aside while any step would find room."""
        if self._used + step.size > self.limit:
            return self._count(step)
        if self._hot is None:
            self._hot, self._rest = HotKeys(), np.empty(STEP, np.uint64)
        if self._hot.skip(step.size):
            return self._count(step)
        passed, moved, counts = self._hot.sift(step, self._rest)
        self._count(readonly(self._rest[:passed]))
        self._add(moved, counts)
        if self._hot.full:
            self._settle()
        return step.size

    def _settle(self) -> None:
        """Bring home the tallies of the keys kept aside."""
        if self._hot is not None:
            self._add(*self._hot.settle())

    def _add(self, keys: U64, counts: I64) -> None:
        self._used += kernels.add_counts(keys, counts, self._slots, self._salt)

    def _room(self) -> int:
        return min(self.limit, self._slots.shape[0] * 5 // 8)

    def _count(self, keys: U64) -> int:
        done = 0
        while True:
            room = self._room()
            counted, self._used = kernels.count_keys(
                keys[done:], self._slots, self._salt, self._used, room
            )
            done += counted
            if done == keys.size or room == self.limit:
                return done
            self._grow()

    def items(self) -> tuple[U64, I64]:
        """Keys uint64[n] and their counts int64[n], in no order that means anything."""
        self._settle()
        keys, counts = np.empty(self._used + 1, np.uint64), np.empty(self._used + 1, np.int64)
        used = kernels.collect(self._slots, keys, counts)
        return keys[:used], counts[:used]

    def _grow(self) -> None:
        larger = np.zeros((2 * self._slots.shape[0], 2), np.uint64)
        kernels.move(self._slots, larger, self._salt)
        self._slots = larger
