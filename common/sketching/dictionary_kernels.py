"""The compiled loops of the exact dictionary. Callers have checked shapes and room."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.sketching.compiling import compiled, inlined

U = np.uint64
_BLOCK = 256
U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]


@inlined
def _scatter(key: np.uint64, salt: np.uint64) -> np.uint64:
    """Return the splitmix64 finaliser (Steele, Lea & Flood, OOPSLA 2014) over the salted key."""
    x = key ^ salt
    x = (x ^ (x >> U(30))) * U(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> U(27))) * U(0x94D049BB133111EB)
    return x ^ (x >> U(31))


@compiled
def count_keys(keys: U64, slots: U64, salt: np.uint64, used: int, room: int) -> tuple[int, int]:
    """Count keys into ``slots``; (keys taken, distinct keys held).

    slots: uint64[2**k, 2] of key and count, side by side so that a key costs one
    cache line. Stops before the key that would be distinct key number ``room + 1``.

    A block's first guesses are looked at before any is acted on: these loads do
    not wait for one another, so a table larger than the cache costs little more.
    """
    mask = U(slots.shape[0] - 1)
    places = np.empty(_BLOCK, np.uint64)
    hits = np.empty(_BLOCK, np.bool_)
    for start in range(0, keys.size, _BLOCK):
        block = keys[start : start + _BLOCK]
        for j in range(block.size):
            places[j] = _scatter(block[j], salt) & mask
        for j in range(block.size):
            hits[j] = (slots[places[j], 0] == block[j]) & (slots[places[j], 1] != 0)
        for j in range(block.size):
            slot = places[j]
            if not hits[j]:
                key = block[j]
                while slots[slot, 0] != key or slots[slot, 1] == 0:
                    if slots[slot, 1] == 0:
                        if used == room:
                            return start + j, used
                        slots[slot, 0] = key
                        used += 1
                        break
                    slot = (slot + U(1)) & mask
            slots[slot, 1] += U(1)
    return keys.size, used


@compiled
def add_counts(keys: U64, counts: I64, slots: U64, salt: np.uint64) -> int:
    """Add a count for every key; returns how many were new. There is room for them."""
    mask = U(slots.shape[0] - 1)
    new = 0
    for j in range(keys.size):
        slot = _scatter(keys[j], salt) & mask
        while slots[slot, 1] != 0 and slots[slot, 0] != keys[j]:
            slot = (slot + U(1)) & mask
        new += slots[slot, 1] == 0
        slots[slot, 0] = keys[j]
        slots[slot, 1] += U(counts[j])
    return new


@compiled
def collect(slots: U64, keys: U64, counts: I64) -> int:
    """Write what is held to ``keys`` and ``counts``; both have room for one more."""
    n = U(0)
    for i in range(slots.shape[0]):
        keys[n] = slots[i, 0]
        counts[n] = slots[i, 1]
        n += U(slots[i, 1] != 0)
    return int(n)


@compiled
def move(slots: U64, into: U64, salt: np.uint64) -> None:
    """Move what is held into the empty table ``into``, which has room for it."""
    mask = U(into.shape[0] - 1)
    for i in range(slots.shape[0]):
        key, count = slots[i, 0], slots[i, 1]
        if count > U(0):
            slot = _scatter(key, salt) & mask
            while into[slot, 1] != 0:
                slot = (slot + U(1)) & mask
            into[slot, 0] = key
            into[slot, 1] = count
