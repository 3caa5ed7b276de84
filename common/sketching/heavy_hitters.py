"""Frequent keys in the order that is the same at every party.

They hold keys in the clear and so belong to the site that sees the stream. How they
are recovered from merged tables alone, without any candidate list, is in ``recovery``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class RankedKeys(NamedTuple):
    """Keys uint64[n] and counts float64[n], largest first, equal counts by key."""

    keys: NDArray[np.uint64]
    counts: NDArray[np.float64]


def ranked(
    keys: NDArray[np.uint64], counts: NDArray[np.float64], top: int | None = None
) -> RankedKeys:
    """Rank keys uint64[n] by their counts float64[n], and keep the ``top`` largest."""
    order = np.lexsort((keys, -counts))[:top]
    return RankedKeys(keys[order], counts[order])
