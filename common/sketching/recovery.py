"""Heavy hitters from merged tables alone: no site sends, or needs, a candidate list.

For keys that are mixed-radix numbers (``common.keys.MixedRadix``). Beside the
full sketch, sites add up two coarser views of the same stream: an exact
histogram of the highest digits and a sketch of longer prefixes. Counts only
grow towards shorter prefixes, so the search descends: prefixes whose histogram
cell is large enough, those extensions whose prefix sketch says so, those full
keys whose own sketch says so.

The histogram is not keyed: whoever sees it sees how often each short prefix
occurred. Descending needs the federation key, so it happens at a site.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.errors import SketchError
from common.sketching import engine
from common.sketching.count_sketch import CountSketch
from common.sketching.heavy_hitters import HeavyHitters, ranked
from common.sketching.spec import SketchSpec

MAX_HISTOGRAM: Final = 1 << 24
MAX_QUERIES: Final = 1 << 31
_BATCH: Final = 1 << 18  # candidate keys in memory at a time
_SLACK: Final = 0.8  # of the threshold: what an estimate may fall short by on the way down

U64 = NDArray[np.uint64]


class RecoverySketch:
    """Three views of one stream of mixed-radix keys that add up across sites.

    Args:
        spec: of the full sketch. The prefix sketch has the same dimensions and a
            domain of its own, and therefore hash functions of its own.
        radices: of the key's digits, least significant first.
        prefix_digits: highest digits that the prefix sketch keeps.
        histogram_digits: highest digits that the histogram counts exactly.

    Raises:
        SketchError: digits that do not nest, or a histogram of more than 2**24 cells.
    """

    def __init__(
        self,
        spec: SketchSpec,
        radices: Sequence[int],
        prefix_digits: int = 6,
        histogram_digits: int = 4,
    ) -> None:
        if not 0 < histogram_digits < prefix_digits < len(radices) or math.prod(radices) > 2**64:
            raise SketchError(
                "unusable recovery",
                field="prefix_digits",
                expected="0 < histogram_digits < prefix_digits < digits, in 64 bits",
                got=f"{histogram_digits}, {prefix_digits}, {len(radices)}",
            )
        cells = math.prod(radices[-histogram_digits:])
        if cells > MAX_HISTOGRAM:
            raise SketchError(
                "unusable recovery",
                field="histogram_digits",
                expected=f"at most {MAX_HISTOGRAM} cells",
                got=f"{cells} cells",
                advice="Count fewer digits exactly",
            )
        self._full_fan = math.prod(radices[: len(radices) - prefix_digits])
        self._prefix_fan = math.prod(radices[len(radices) - prefix_digits : -histogram_digits])
        self.full = CountSketch(spec)
        self.prefix = CountSketch(replace(spec, domain=f"{spec.domain}/prefix-{prefix_digits}"))
        self.histogram = np.zeros(cells, np.int64)

    def update(self, keys: ArrayLike, weights: ArrayLike | None = None, threads: int = 1) -> None:
        """Add a batch of keys to all three views.

        Args:
            keys: uint64[n], below the product of the radices.
            weights: int64[n], 1 per key when omitted.
            threads: 1 to 64.

        Raises:
            SketchError: no federation key, lengths differ, not integers, or keys too large.
        """
        checked = engine.checked_integers(keys, "keys", signed=False)
        limit = self._full_fan * self._prefix_fan * self.histogram.size
        if checked.size and int(checked.max()) >= limit:
            raise SketchError(
                "unusable sketch input",
                field="keys",
                expected=f"below {limit}, the product of the radices",
                got="a larger key",
            )
        amounts = None if weights is None else engine.checked_weights(weights, checked.size)
        for piece, weight in engine.pieces(checked, amounts, engine.CONVERT):
            self.full.update(piece, weight, threads)
            prefixes = piece // np.uint64(self._full_fan)
            self.prefix.update(prefixes, weight, threads)
            short = (prefixes // np.uint64(self._prefix_fan)).astype(np.int64)
            if weight is None:
                self.histogram += np.bincount(short, minlength=self.histogram.size)
            else:  # not bincount, whose weights are floats
                np.add.at(self.histogram, short, weight)

    def merge(self, other: RecoverySketch) -> None:
        """Add another site's views.

        Raises:
            SketchError: any of the three differs in more than its counts.
        """
        ours = (self._full_fan, self._prefix_fan, self.histogram.size)
        theirs = (other._full_fan, other._prefix_fan, other.histogram.size)
        if ours != theirs:
            raise SketchError(
                "these sketches cannot be added",
                field="radices",
                expected="the same digits on both sides",
                got="other digits",
            )
        self.full.spec.require_same(other.full.spec, "other.full")
        self.prefix.spec.require_same(other.prefix.spec, "other.prefix")
        self.full.merge(other.full)
        self.prefix.merge(other.prefix)
        self.histogram += other.histogram

    def above(self, threshold: float, max_queries: int = MAX_QUERIES) -> HeavyHitters:
        """Keys whose estimate is at least 0.8 of ``threshold``, largest first.

        A key that occurred ``threshold`` times is missed only if a median is off
        by a fifth of it, so choose thresholds well above the sketch's error.

        Raises:
            SketchError: no federation key, a threshold below 1, or so low that
                more than ``max_queries`` keys would have to be tried.
        """
        if not threshold >= 1:
            raise SketchError(
                "unusable threshold", field="threshold", expected="at least 1", got="less"
            )
        short = np.flatnonzero(self.histogram >= threshold).astype(np.uint64)
        self._afford(short.size * self._prefix_fan, max_queries)
        prefixes, _ = _descend(self.prefix, short, self._prefix_fan, _SLACK * threshold)
        self._afford(prefixes.size * self._full_fan, max_queries)
        return ranked(*_descend(self.full, prefixes, self._full_fan, _SLACK * threshold))

    def recover(self, top: int, floor: int = 1, max_queries: int = MAX_QUERIES) -> HeavyHitters:
        """The ``top`` largest keys, by lowering the threshold until enough are found.

        Args:
            top: how many.
            floor: lowest threshold tried; fewer keys come back when it is reached.
            max_queries: bound on the work of one threshold.

        Raises:
            SketchError: as ``above``.
        """
        if top < 1 or floor < 1:
            raise SketchError(
                "unusable recovery", field="top and floor", expected="at least 1", got="less"
            )
        # The top-th largest of counts that sum up to N is at most N / top.
        threshold = max(floor, int(self.histogram.sum()) // top)
        while True:
            found = self.above(threshold, max_queries)
            reached = int(np.count_nonzero(found.counts >= threshold))
            if reached >= top or threshold <= floor:
                return HeavyHitters(found.keys[:top], found.counts[:top])
            # Counts fall with rank by a power near 1 in natural streams: aim a little
            # below where that would give enough, as each step costs more than the last.
            step = min(max((reached / top) ** 1.5, 0.125), 0.9)
            threshold = max(floor, int(threshold * step))

    def _afford(self, queries: int, max_queries: int) -> None:
        if queries > max_queries:
            raise SketchError(
                "the threshold is too low for these tables",
                field="threshold",
                expected=f"at most {max_queries} candidate keys",
                got=f"{queries}",
                advice="Raise the threshold, or use more columns or longer prefixes",
            )


def _descend(
    sketch: CountSketch, prefixes: U64, fan: int, threshold: float
) -> tuple[U64, NDArray[np.float64]]:
    """Extensions of ``prefixes`` by one digit of radix ``fan`` that reach ``threshold``."""
    keys, estimates = [np.zeros(0, np.uint64)], [np.zeros(0, np.float64)]
    step = max(1, _BATCH // fan)  # prefixes at a time; a larger fan is itself cut up
    for start in range(0, prefixes.size, step):
        base = prefixes[start : start + step, None] * np.uint64(fan)
        for low in range(0, fan, _BATCH):
            digits = np.arange(low, min(low + _BATCH, fan), dtype=np.uint64)
            found = sketch.select((base + digits).ravel(), threshold)
            keys.append(found[0])
            estimates.append(found[1])
    return np.concatenate(keys), np.concatenate(estimates)
