"""Heavy hitters while a stream goes by: exact first, or the Misra-Gries summary.

Both hold keys in the clear and so belong to the site that sees the stream.
Recovery from merged tables alone, without any candidate list, is in ``recovery``.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.errors import SketchError
from common.sketching.count_sketch import CountSketch
from common.sketching.dictionary import KeyDictionary
from common.sketching.hashing import hash_functions
from common.sketching.inputs import checked_integers, pieces
from common.sketching.spec import SketchSpec

DEFAULT_LIMIT: Final = 1 << 19
DEFAULT_SLOTS: Final = 1 << 18


class HeavyHitters(NamedTuple):
    """Keys uint64[n] and counts float64[n], largest first, equal counts by key."""

    keys: NDArray[np.uint64]
    counts: NDArray[np.float64]


def ranked(
    keys: NDArray[np.uint64], counts: NDArray[np.float64], top: int | None = None
) -> HeavyHitters:
    """The ``top`` largest in the order that is the same at every party."""
    order = np.lexsort((keys, -counts))[:top]
    return HeavyHitters(keys[order], counts[order])


class ExactFirstCounter:
    """An exact dictionary that spills into a sketch when it outgrows its limit.

    A small stream is counted exactly in less memory than a table, and its
    candidates come for free; the sketch that it publishes is bit for bit the
    one that ``CountSketch.update`` would have made.

    Args:
        spec: of the sketch; the party needs the key.
        limit: distinct keys counted exactly. Past it everything goes into the
            sketch, and the keys seen so far stay as candidates.

    Raises:
        SketchError: no federation key, or a limit out of range.
    """

    def __init__(self, spec: SketchSpec, limit: int = DEFAULT_LIMIT) -> None:
        self._spec = spec
        self._exact = KeyDictionary(limit, hash_functions(spec).k0)
        self._spilled: CountSketch | None = None

    @property
    def spilled(self) -> bool:
        """Whether the limit was passed, so that counts are estimates."""
        return self._spilled is not None

    def update(self, keys: ArrayLike, threads: int = 1) -> None:
        """Count a batch of keys, uint64[n]. ``threads`` help once spilled.

        Raises:
            SketchError: not integers.
        """
        checked = checked_integers(keys, "keys", signed=False)
        for piece, _ in pieces(checked, None):
            done = 0 if self.spilled else self._exact.count(piece)
            if done < piece.size:
                if self._spilled is None:
                    self._spilled = CountSketch(self._spec)
                    self._spilled.update(*self._exact.items())
                self._spilled.update(piece[done:], threads=threads)

    def sketch(self) -> CountSketch:
        """The sketch of everything counted so far; a copy."""
        if self._spilled is not None:
            return CountSketch.from_table(self._spec, self._spilled.table)
        sketch = CountSketch(self._spec)
        sketch.update(*self._exact.items())
        return sketch

    def heavy_hitters(self, top: int | None = None) -> HeavyHitters:
        """The ``top`` largest keys: exact counts, or estimates of the candidates once spilled."""
        keys, counts = self._exact.items()
        if self._spilled is None:
            return ranked(keys, counts.astype(np.float64), top)
        return ranked(keys, self._spilled.estimate(keys), top)


class MisraGries:
    """Candidates of a stream of any length in fixed memory.

    With N keys counted, ``slack`` is at most 2 N / slots; a key that occurred
    more than ``slack`` times is held, with a count at most ``slack`` too low
    and never too high.

    Args:
        slots: keys held at most.
        salt: any secret number; scatters the keys in memory, and decides nothing else.

    Source: Misra & Gries, Sci. Comput. Program. 1982; purging by the median as in
    Anderson et al., IMC 2017.
    """

    def __init__(self, slots: int = DEFAULT_SLOTS, salt: int = 0) -> None:
        self._held = KeyDictionary(slots, np.uint64(salt % 2**64))
        self.slack = 0
        self.total = 0

    def update(self, keys: ArrayLike) -> None:
        """Count a batch of keys, uint64[n].

        Raises:
            SketchError: not integers.
        """
        checked = checked_integers(keys, "keys", signed=False)
        for piece, _ in pieces(checked, None):
            rest = piece
            while (done := self._held.count(rest)) < rest.size:
                rest = rest[done:]
                self.slack += self._held.purge()
        self.total += checked.size

    def candidates(self, top: int | None = None) -> HeavyHitters:
        """Keys with lower bounds of their counts; upper bounds are ``slack`` more."""
        keys, counts = self._held.items()
        return ranked(keys, counts.astype(np.float64), top)

    def heavy_hitters(self, sketch: CountSketch, top: int | None = None) -> HeavyHitters:
        """The candidates in the order of their estimates in ``sketch``."""
        if not sketch.spec.can_query:
            raise SketchError(
                "the aggregator cannot query",
                field="sketch",
                expected="a sketch with its key",
                got="a public spec",
            )
        keys, _ = self._held.items()
        return ranked(keys, sketch.estimate(keys), top)
