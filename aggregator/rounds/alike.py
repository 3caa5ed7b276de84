"""How alike the sites' experience is, by their tables alone: nothing is looked up in them.

The product of two count sketches, averaged over rows, is that of what they count, up to
noise; so tables tell how alike two sites are to somebody who cannot ask them anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aggregator.rounds.answers import AcceptedAnswer, records
from common.wire.records import ErrorTables, SketchTable

_TABLES: Final[Mapping[str, str]] = {
    SketchTable.__name__: "table",
    ErrorTables.__name__: "replays",
}


def alike(answers: Mapping[str, AcceptedAnswer]) -> dict[str, int]:
    """Cosine of each site's counts with those of all others together, in thousandths.

    Two passes over the archive, one table held beside the sum. Empty where no tables were
    sent, or by fewer than two sites. Negative noise counts as 0.

    Args:
        answers: accepted in one round.

    Raises:
        InputDataError: the archive no longer holds what was accepted.
    """
    sent = [kind for kind in _TABLES if all(kind in a.digests for a in answers.values())]
    if len(answers) < 2 or not sent:
        return {}
    kind, name = sent[0], _TABLES[sent[0]]
    whole = sum(_table(record.arrays[name]) for _, record in records(answers, kind))
    shares: dict[str, int] = {}
    for site, record in records(answers, kind):
        table = _table(record.arrays[name])
        others = whole - table
        length = float(np.linalg.norm(table) * np.linalg.norm(others))
        shares[site] = (
            round(1000 * max(0.0, float((table * others).sum()) / length)) if length else 0
        )
    return shares


def _table(array: NDArray[np.generic]) -> NDArray[np.float64]:
    return np.asarray(array, np.float64)
