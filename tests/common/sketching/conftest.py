"""Streams that several sketch tests share."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from common.canonical import sha256_hex

VECTORS = Path(__file__).parents[2] / "vectors"


class Profile(NamedTuple):
    """Distinct keys, most frequent first, and their counts."""

    keys: np.ndarray
    counts: np.ndarray


@pytest.fixture(scope="session")
def vectors():
    return VECTORS


@pytest.fixture(scope="session")
def pixel_profile():
    """The frozen pixel profile over clustered base-22 keys."""
    data = json.loads((VECTORS / "sketch_profile.json").read_text())
    rank = np.arange(1, data["distinct"] + 1)
    shape = (1 + data["offset"]) / (rank + data["offset"])
    counts = np.rint(data["top"] * shape ** data["exponent"]).astype(np.int64)
    assert sha256_hex(counts.astype("<i8").tobytes()) == data["sha256_of_counts"]
    rng = np.random.default_rng(5)
    centres = rng.uniform(3, 18, (12, 8))
    around = centres[rng.integers(0, 12, 600_000)] + rng.normal(0, 2.2, (600_000, 8))
    digits = np.clip(np.rint(around), 0, 21).astype(np.uint64)
    keys = np.unique(digits @ np.uint64(22) ** np.arange(8, dtype=np.uint64))
    rng.shuffle(keys)
    return Profile(keys[: counts.size], counts)
