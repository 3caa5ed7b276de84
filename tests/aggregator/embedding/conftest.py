"""Made-up tissues: a few crowds of keys in digit space."""

import numpy as np
import pytest

from aggregator.embedding.plane import EmbeddingSettings, embed
from common.keys import reduced_bands
from common.keys.key_counts import KeyCounts

MIDDLES = np.array(
    [[3, 3, 3, 3, 3, 3, 3, 3], [17, 17, 3, 3, 3, 3, 3, 3], [3, 3, 17, 17, 17, 3, 3, 3]]
)
SIZES = (60, 100, 80)


@pytest.fixture(scope="session")
def tissues():
    """KeyCounts of three crowds, and the crowd of each key; the second crowd counts most."""
    rng = np.random.default_rng(11)
    digits = reduced_bands()
    keys, crowd = [], []
    for number, (middle, size) in enumerate(zip(MIDDLES, SIZES, strict=True)):
        points = np.clip(np.rint(middle + rng.normal(0, 1, (4 * size, 8))), 0, 21).astype(np.int64)
        distinct = rng.permutation(np.unique(digits.encode(points)))[:size]
        keys.append(distinct)
        crowd.append(np.full(size, number))
    every, of = np.concatenate(keys), np.concatenate(crowd)
    counts = np.array([20, 90, 40])[of] + rng.integers(0, 10, of.size)
    released = KeyCounts(digits, every, counts)
    return released, of[np.argsort(every)]


@pytest.fixture(scope="session")
def settings():
    return EmbeddingSettings(seed=4, neighbours=12)


@pytest.fixture(scope="session")
def embedding(tissues, settings):
    return embed(tissues[0], settings)
