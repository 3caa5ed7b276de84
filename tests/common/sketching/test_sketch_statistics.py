"""What the theory promises about errors, measured with fixed seeds."""

from math import comb

import numpy as np
import pytest

from common.sketching import CountSketch, SketchSpec, reference

RNG_SEED = 20240


def structured_streams():
    """Distinct keys that raw multiply-shift hashing is known to be biased on, and random ones."""
    n = 400
    rng = np.random.default_rng(RNG_SEED)
    grid = np.arange(20, dtype=np.uint64)
    return {
        "random": rng.integers(0, 2**64, n, dtype=np.uint64),
        "sequential": np.arange(n, dtype=np.uint64),
        "multiples of 2**32": np.arange(n, dtype=np.uint64) << np.uint64(32),
        "multiples of 2**55": np.arange(n, dtype=np.uint64) << np.uint64(55),
        "base-22 grid": (grid[:, None] * np.uint64(22**7) + grid[None, :]).ravel(),
    }


@pytest.mark.parametrize("name", structured_streams())
def test_row_estimates_are_unbiased_and_as_variable_as_predicted(name):
    keys = structured_streams()[name]
    rng = np.random.default_rng(RNG_SEED + 1)
    counts = np.minimum(rng.zipf(1.5, keys.size), 1000).astype(np.int64)
    rows, columns, seeds = 64, 50, 40
    norm2 = float((counts**2).sum())
    errors = []
    for seed in range(seeds):
        spec = SketchSpec(rows, columns, rng.bytes(16), domain=f"seed-{seed}")
        sketch = CountSketch(spec)
        sketch.update(keys, counts)
        errors.append(reference.row_estimates(spec, sketch.table, keys) - counts)
    error = np.concatenate(errors)
    assert rows * seeds >= 2000
    standard = np.sqrt((norm2 - counts**2) / columns)
    bias = np.abs(error.mean(axis=0)) / (standard / np.sqrt(rows * seeds))
    # 400 keys are looked at; the largest of 400 normal deviates exceeds 4.5 once in 370 runs.
    assert bias.max() < 4.5
    ratio = (error**2).mean(axis=0) / standard**2
    assert 0.9 < ratio.mean() < 1.1


def chance_of_a_bad_estimate(rows, p):
    """P(Bin(rows, p) >= rows / 2): half of the rows must fail before the median can."""
    half = -(-rows // 2)
    return sum(comb(rows, i) * p**i * (1 - p) ** (rows - i) for i in range(half, rows + 1))


@pytest.mark.parametrize(("rows", "columns"), [(10, 20_000), (16, 200_000), (5, 20_000)])
def test_errors_stay_within_the_bound_of_the_median(pixel_profile, rows, columns):
    keys, counts = pixel_profile
    sketch = CountSketch(SketchSpec(rows, columns, bytes(range(16))))
    sketch.update(keys, counts)
    error = np.abs(sketch.estimate(keys) - counts)
    k, t = columns // 20, 3
    scale = np.sqrt(float((counts[k:].astype(np.float64) ** 2).sum()) / columns)
    bound = chance_of_a_bad_estimate(rows, k / columns + 1 / t**2)
    assert np.mean(error > t * scale) <= bound
    # And the bound is not merely loose: errors are of the predicted size.
    assert np.mean(error > 0.05 * scale) > bound


def recall(profile, rows, columns, key):
    keys, counts = profile
    sketch = CountSketch(SketchSpec(rows, columns, key))
    sketch.update(keys, counts)
    ranking = np.lexsort((keys, -sketch.estimate(keys)))
    return np.mean(ranking[:20_000] < 20_000)


@pytest.mark.parametrize("key", [bytes(range(16)), b"a federation key"], ids=["plain", "other"])
def test_a_wide_sketch_ranks_the_top_20000_pixels_and_a_narrow_one_cannot(pixel_profile, key):
    assert recall(pixel_profile, 16, 200_000, key) >= 0.99
    assert 0.60 <= recall(pixel_profile, 10, 20_000, key) <= 0.66
