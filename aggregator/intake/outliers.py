"""What a single update cannot show by itself: how far it lies from the others."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from common.wire.envelope import Array
from common.wire.expected import l2_norm

LARGEST_RATIO = 10.0
LEAST_SITES = 3


def oversized(updates: Mapping[str, Mapping[str, Array]]) -> dict[str, float]:
    """Sites whose update is more than ``LARGEST_RATIO`` times the median L2 norm, with the ratio.

    With fewer than ``LEAST_SITES`` updates nobody can be told from the others.
    """
    if len(updates) < LEAST_SITES:
        return {}
    norms = {site: l2_norm(update) for site, update in updates.items()}
    median = float(np.median(list(norms.values())))
    return {
        site: norm / median for site, norm in norms.items() if norm > LARGEST_RATIO * median > 0
    }
