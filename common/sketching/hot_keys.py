"""Takes the keys that come again and again out of a stream, before they cost more.

Real streams repeat themselves: half of an image's pixels fall on a few thousand
keys. A key costs a sketch one hash and one store per row, and a dictionary a cache
line far away; here, once it is known, it costs a comparison. Everything counted
downstream is linear, so a key may as well arrive later with its tally, and no
result changes by a bit. Streams that do not repeat are noticed and left alone.
Holds keys in the clear: it stays where the data is.
"""

from __future__ import annotations

from typing import Final, TypeVar

import numpy as np
from numba import uint32
from numpy.typing import NDArray

from common.sketching.compiling import compiled
from common.sketching.inputs import readonly

U = np.uint64
U64 = NDArray[np.uint64]
U32 = NDArray[np.uint32]
I64 = NDArray[np.int64]
_Word = TypeVar("_Word", np.uint64, np.int64)

STEP: Final = 32_768  # keys looked at in one call
# 16,384 slots of 12 bytes sit in the second-level cache beside a sketch's counters;
# with twice as many, five keys fewer in a hundred pass and a look costs a fifth more.
_BITS: Final = 14
_SHIFT: Final = U(64 - _BITS)
_GOLDEN: Final = U(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: Fibonacci hashing
_BLOCK: Final = 1024
# Below one repeat in this many keys, looking costs more than it saves; then the
# next keys pass unseen, so that a stream without repeats is looked at once in 65 steps.
_WORTH: Final = 8
_SKIP: Final = 64 * STEP
_SETTLE: Final = 1 << 31  # keys, so that no 32-bit tally can wrap


@compiled
def _sift(
    keys: U64, hot: U64, tally: U32, missed: U32, rest: U64, moved: U64, counts: I64
) -> tuple[int, int]:
    """Tally the keys held, write the others to ``rest``; (how many, how many moved out).

    A slot's key is challenged by those that miss it and leaves once they are more
    than its own repeats. One miss in four challenges: enough to follow a stream, and
    a quarter of the mispredicted branches. The first loop has none to mispredict.
    """
    passed = U(0)
    gone = 0
    for start in range(0, keys.size, _BLOCK):
        block = keys[start : start + _BLOCK]
        before = passed
        for j in range(block.size):
            key = block[j]
            slot = (key * _GOLDEN) >> _SHIFT
            hit = hot[slot] == key
            tally[slot] += uint32(hit)
            rest[passed] = key
            passed += U(not hit)
        challengers = rest[before : before + (passed - before + U(3)) // U(4)]
        for j in range(challengers.size):
            slot = (challengers[j] * _GOLDEN) >> _SHIFT
            missed[slot] += uint32(1)
            if missed[slot] > tally[slot] + uint32(1):
                if tally[slot] != 0:
                    moved[gone] = hot[slot]
                    counts[gone] = tally[slot]
                    gone += 1
                hot[slot] = challengers[j]
                tally[slot] = 0
                missed[slot] = 0
    return int(passed), gone


class HotKeys:
    """A few thousand keys and how often each came again.

    A key is let through before it is held, so whoever takes what passes has met
    every key of which this ever returns a tally.
    """

    def __init__(self) -> None:
        self._held = np.zeros(1 << _BITS, np.uint64)
        self._tally = np.zeros(1 << _BITS, np.uint32)
        self._missed = np.zeros(1 << _BITS, np.uint32)
        self._moved = np.empty(STEP // 4 + STEP // _BLOCK, np.uint64)
        self._counts = np.empty(self._moved.size, np.int64)
        self._skip = 0
        self._seen = 0
        self._forget()

    def _forget(self) -> None:
        self._held[:] = 1
        self._held[int(_GOLDEN >> _SHIFT)] = 0  # where 1 belongs; 0 does not: no key is held
        self._tally[:] = 0
        self._missed[:] = 0
        self._seen = 0

    def skip(self, available: int) -> int:
        """Pass over some of the ``available`` next keys unseen; returns how many."""
        passing = min(self._skip, available)
        self._skip -= passing
        return passing

    def sift(self, keys: U64, rest: U64) -> tuple[int, U64, I64]:
        """Look at one step of keys.

        Args:
            keys: uint64[n], n at most ``STEP``.
            rest: uint64[n or more]; receives the keys that must be counted now.

        Returns:
            How many were written to ``rest``; keys no longer held, uint64[m], and
            how often each had come again, int64[m].
        """
        passed, gone = _sift(
            keys, self._held, self._tally, self._missed, rest, self._moved, self._counts
        )
        self._seen += keys.size
        if (keys.size - passed) * _WORTH < keys.size:
            self._skip = _SKIP
        return passed, readonly(self._moved[:gone]), readonly(self._counts[:gone])

    @property
    def full(self) -> bool:
        """True if ``settle`` must come before the next ``sift``."""
        return self._seen >= _SETTLE

    def settle(self) -> tuple[U64, I64]:
        """Hand back the keys, uint64[n], and how often each came again, int64[n]; forgets them."""
        repeated = self._tally != 0
        keys, counts = self._held[repeated], self._tally[repeated].astype(np.int64)
        self._forget()
        return readonly(keys), readonly(counts)
