"""An update far larger than the others is found; among two nobody can be."""

from __future__ import annotations

import numpy as np

from aggregator.intake.outliers import LARGEST_RATIO, oversized


def update(norm: float) -> dict[str, np.ndarray]:
    return {"w": np.array([norm, 0.0], np.float32)}


def test_an_update_beyond_the_ratio_to_the_median_is_named():
    found = oversized({"a": update(1), "b": update(1.2), "c": update(LARGEST_RATIO * 1.2 + 1)})
    assert set(found) == {"c"}
    assert found["c"] > LARGEST_RATIO


def test_ordinary_differences_are_no_reason():
    assert oversized({"a": update(1), "b": update(2), "c": update(9)}) == {}


def test_two_sites_cannot_be_told_apart():
    assert oversized({"a": update(1), "b": update(1000)}) == {}


def test_zero_updates_are_not_divided_by():
    assert oversized({"a": update(0), "b": update(0), "c": update(0)}) == {}
