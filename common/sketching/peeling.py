"""Estimates of many keys at once: what is known of one no longer disturbs the others.

An estimate's error comes from the other keys in its cells. Those that were found
are taken out of the table, all together; what is then left in a key's cells is
noise, and what it says corrects the key's first estimate. No key is looked for
here, and the sketch that was given stays as it is.

The idea is that of matching pursuit: estimate, subtract, estimate the remainder.
Source: Needell & Tropp, Appl. Comput. Harmon. Anal. 2009 (CoSaMP).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.sketching.count_sketch import CountSketch
from common.sketching.heavy_hitters import RankedKeys, ranked

PASSES: Final = 2  # a third changes nothing that matters
_MEDIAN: Final = math.sqrt(math.pi / 2)
"""A median's standard error over a mean's, for normal errors."""


@dataclass(frozen=True, eq=False)
class Peeled:
    """Keys with better estimates than one by one.

    Attributes:
        found: all keys given, by their new estimates, largest first.
        rest: the sketch without them, as far as they are known.
    """

    found: RankedKeys
    rest: CountSketch


def peel(sketch: CountSketch, keys: NDArray[np.uint64], passes: int = PASSES) -> Peeled:
    """Estimate ``keys``, all but the noise of each other.

    Keys that never occurred may be among them: they keep the estimate that brought
    them here.

    Args:
        sketch: of everything.
        keys: uint64[n], each once.
        passes: how often what is left corrects the estimates.

    Raises:
        SketchError: no federation key.
    """
    estimates = sketch.estimate(keys)
    for _ in range(passes):
        whole = np.rint(estimates)
        estimates = whole + _without(sketch, keys, whole).estimate(keys)
    return Peeled(ranked(keys, estimates), _without(sketch, keys, estimates))


def row_error(rest: CountSketch) -> float:
    """Estimate one row's standard error: ``sqrt(F2 / C)`` of what is in the table.

    The second moment F2 is the median over rows of the sum of squares. The estimate,
    a median over rows, is better than one row: this bound is on the safe side.

    Source: Alon, Matias & Szegedy, STOC 1996; Charikar, Chen & Farach-Colton, ICALP 2002.
    """
    moment = float(np.median(np.square(rest.table.astype(np.float64)).sum(axis=1)))
    return math.sqrt(moment / rest.spec.columns)


def estimate_error(row: float, rows: int) -> float:
    """Estimate the median's standard error over ``rows`` rows of standard error ``row`` each."""
    return row * _MEDIAN / math.sqrt(rows)


def _without(
    sketch: CountSketch, keys: NDArray[np.uint64], counts: NDArray[np.float64]
) -> CountSketch:
    rest = CountSketch.from_table(sketch.spec, sketch.table)
    rest.update(keys, -np.rint(counts).astype(np.int64))
    return rest
