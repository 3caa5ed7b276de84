"""Heavy hitters from merged tables alone: no site sends, or needs, a candidate list.

For keys that are mixed-radix numbers (``common.keys.MixedRadix``). Beside the
full sketch, sites add up coarser views of the same stream: an exact histogram
of the highest digits and a ladder of sketches of longer and longer prefixes;
one rung does for eight digits, 35 take several. Counts only grow towards shorter
prefixes, so the search descends: prefixes whose histogram cell is large enough,
those extensions whose sketch says so rung by rung, those full keys whose own
sketch says so.

What was found is then peeled off the full sketch (``peeling``) together with
rarer keys, and estimated again: at the cut, ranks are decided by less noise.

The histogram is not keyed: whoever sees it sees how often each short prefix
occurred. Descending needs the federation key, so it happens at a site.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from common.errors import SketchError
from common.sketching.count_sketch import CountSketch
from common.sketching.heavy_hitters import RankedKeys, ranked
from common.sketching.inputs import CONVERT, checked_integers, checked_weights, pieces
from common.sketching.peeling import Peeled, estimate_error, peel, row_error
from common.sketching.spec import SketchSpec

MAX_HISTOGRAM: Final = 1 << 24
MAX_QUERIES: Final = 1 << 31
_BATCH: Final = 1 << 18  # candidate keys in memory at a time
_SLACK: Final = 0.8  # of the threshold: what an estimate may fall short by on the way down
_DEEPER: Final = 0.25  # of the cut: keys down to there are peeled off, too
_SURE: Final = 5.0  # standard errors: below, most of what is found would be noise

U64 = NDArray[np.uint64]


class RecoverySketch:
    """Views of one stream of mixed-radix keys that add up across sites.

    Args:
        spec: of the full sketch. The prefix sketches have the same dimensions and
            domains of their own, and therefore hash functions of their own.
        radices: of the key's digits, least significant first.
        prefix_digits: highest digits that the prefix sketch keeps, or each of
            several, ascending.
        histogram_digits: highest digits that the histogram counts exactly.

    Attributes:
        full: sketch of the keys.
        prefixes: sketches of their prefixes, shortest first.
        histogram: int64[cells], exact counts of the shortest prefixes.

    Raises:
        SketchError: digits that do not nest, or a histogram of more than 2**24 cells.
    """

    def __init__(
        self,
        spec: SketchSpec,
        radices: Sequence[int],
        prefix_digits: int | Sequence[int] = 6,
        histogram_digits: int = 4,
    ) -> None:
        rungs = (prefix_digits,) if isinstance(prefix_digits, int) else tuple(prefix_digits)
        lengths = (0, histogram_digits, *rungs, len(radices))
        nested = all(shorter < longer for shorter, longer in pairwise(lengths))
        if not rungs or not nested or math.prod(radices) > 2**64:
            raise SketchError(
                "unusable recovery",
                field="prefix_digits",
                expected="0 < histogram_digits < prefix_digits < digits, in 64 bits",
                got=", ".join(str(length) for length in lengths[1:]),
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
        digits = len(radices)
        # How many extensions a prefix has, rung by rung; the last are full keys.
        self._fans = tuple(
            math.prod(radices[digits - longer : digits - shorter])
            for shorter, longer in pairwise(lengths[1:])
        )
        self.full = CountSketch(spec)
        self.prefixes = [
            CountSketch(replace(spec, domain=prefix_domain(spec.domain, rung))) for rung in rungs
        ]
        self.histogram = np.zeros(cells, np.int64)

    @property
    def prefix(self) -> CountSketch:
        """The sketch of the longest prefixes."""
        return self.prefixes[-1]

    def update(self, keys: ArrayLike, weights: ArrayLike | None = None, threads: int = 1) -> None:
        """Add a batch of keys to all views.

        Args:
            keys: uint64[n], below the product of the radices.
            weights: int64[n], 1 per key when omitted.
            threads: 1 to 64.

        Raises:
            SketchError: no federation key, lengths differ, not integers, or keys too large.
        """
        checked = checked_integers(keys, "keys", signed=False)
        limit = math.prod(self._fans) * self.histogram.size
        if checked.size and int(checked.max()) >= limit:
            raise SketchError(
                "unusable sketch input",
                field="keys",
                expected=f"below {limit}, the product of the radices",
                got="a larger key",
            )
        amounts = None if weights is None else checked_weights(weights, checked.size)
        for piece, weight in pieces(checked, amounts, CONVERT):
            self.full.update(piece, weight, threads)
            rest = piece
            for sketch, fan in zip(self.prefixes[::-1], self._fans[:0:-1], strict=True):
                rest = rest // np.uint64(fan)
                sketch.update(rest, weight, threads)
            short = (rest // np.uint64(self._fans[0])).astype(np.int64)
            if weight is None:
                self.histogram += np.bincount(short, minlength=self.histogram.size)
            else:  # not bincount, whose weights are floats
                np.add.at(self.histogram, short, weight)

    def merge(self, other: RecoverySketch) -> None:
        """Add another site's views.

        Raises:
            SketchError: any of them differs in more than its counts.
        """
        ours, theirs = (self._fans, self.histogram.size), (other._fans, other.histogram.size)
        if ours != theirs:
            raise SketchError(
                "these sketches cannot be added",
                field="radices",
                expected="the same digits on both sides",
                got="other digits",
            )
        self.full.spec.require_same(other.full.spec, "other.full")
        pairs = list(zip(self.prefixes, other.prefixes, strict=True))
        for mine, yours in pairs:
            mine.spec.require_same(yours.spec, "other.prefix")
        self.full.merge(other.full)
        for mine, yours in pairs:
            mine.merge(yours)
        self.histogram += other.histogram

    def above(self, threshold: float, max_queries: int = MAX_QUERIES) -> RankedKeys:
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
        keys = np.flatnonzero(self.histogram >= threshold).astype(np.uint64)
        estimates = np.zeros(keys.size)
        for sketch, fan in zip((*self.prefixes, self.full), self._fans, strict=True):
            self._afford(keys.size * fan, max_queries)
            keys, estimates = _descend(sketch, keys, fan, _SLACK * threshold)
        return ranked(keys, estimates)

    def recover(self, top: int, floor: int = 1, max_queries: int = MAX_QUERIES) -> RankedKeys:
        """Return the ``top`` largest keys, by lowering the threshold until enough are found.

        Args:
            top: how many.
            floor: keys are looked for until this threshold; fewer come back when it is
                reached.
            max_queries: bound on the work of one threshold.

        Raises:
            SketchError: as ``above``.
        """
        ranking = self.search(top, floor, max_queries).found
        count = min(top, int(np.count_nonzero(ranking.counts >= _SLACK * floor)))
        return RankedKeys(ranking.keys[:count], ranking.counts[:count])

    def search(self, top: int, floor: int = 1, max_queries: int = MAX_QUERIES) -> Peeled:
        """As ``recover``, with all keys that were tried, and what is left without them.

        Raises:
            SketchError: as ``above``.
        """
        ranking, threshold = self._lower(top, floor, max_queries)
        first = peel(self.full, ranking.keys)
        # Rarer keys disturb, too. They need not be complete, only likelier than noise.
        cut = ranking.counts[top - 1] if ranking.keys.size >= top else threshold
        least = _SURE * estimate_error(row_error(first.rest), self.full.spec.rows)
        deeper = max(_DEEPER * cut, least / _SLACK, 1.0)
        if deeper >= threshold or not self._affordable(deeper, max_queries):
            return first
        return peel(self.full, self.above(deeper, max_queries).keys)

    def _lower(self, top: int, floor: int, max_queries: int) -> tuple[RankedKeys, float]:
        """Keys of the first threshold, falling, at which there are enough; and that threshold."""
        if top < 1 or floor < 1:
            raise SketchError(
                "unusable recovery", field="top and floor", expected="at least 1", got="less"
            )
        # The top-th largest of counts that sum up to N is at most N / top.
        threshold = max(floor, int(self.histogram.sum()) // top)
        while True:
            ranking = self.above(threshold, max_queries)
            reached = int(np.count_nonzero(ranking.counts >= threshold))
            if reached >= top or threshold <= floor:
                return ranking, threshold
            # Counts fall with rank by a power near 1 in natural streams: aim a little
            # below where that would give enough, as each step costs more than the last.
            step = min(max((reached / top) ** 1.5, 0.125), 0.9)
            threshold = max(floor, int(threshold * step))

    def _affordable(self, threshold: float, max_queries: int) -> bool:
        """Tell whether the first step down is; later ones keep fewer prefixes than keys."""
        return int(np.count_nonzero(self.histogram >= threshold)) * self._fans[0] <= max_queries

    def _afford(self, queries: int, max_queries: int) -> None:
        if queries > max_queries:
            raise SketchError(
                "the threshold is too low for these tables",
                field="threshold",
                expected=f"at most {max_queries} candidate keys",
                got=f"{queries}",
                advice="Raise the threshold, or use more columns or longer prefixes",
            )


def prefix_domain(domain: str, digits: int) -> str:
    """Domain of the sketch of so many highest digits."""
    return f"{domain}/prefix-{digits}"


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
            selected = sketch.select((base + digits).ravel(), threshold)
            keys.append(selected[0])
            estimates.append(selected[1])
    return np.concatenate(keys), np.concatenate(estimates)
