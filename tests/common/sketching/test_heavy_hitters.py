"""Heavy hitters come back from merged tables alone; those known disturb the others no more."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.errors import SketchError
from common.keys import MixedRadix, reduced_bands
from common.sketching import CountSketch, SketchSpec
from common.sketching.peeling import peel, row_error
from common.sketching.recovery import RecoverySketch

KEY = bytes(range(16))
SPEC = SketchSpec(5, 211, KEY)
UNTIMED = settings(deadline=None)

small = st.one_of(st.integers(0, 12), st.integers(0, 2**64 - 1))
streams = st.lists(hnp.arrays(np.uint64, st.integers(0, 200), elements=small), max_size=4)


@UNTIMED
@given(streams, st.integers(-5, 5), st.integers(1, 4))
def test_selecting_equals_estimating_and_comparing(batches, threshold, rows):
    sketch = CountSketch(SketchSpec(rows, 31, KEY))
    stream = np.concatenate([np.zeros(0, np.uint64), *batches])
    sketch.update(stream)
    estimates = sketch.estimate(stream)
    keys, kept = sketch.select(stream, threshold)
    assert np.array_equal(keys, stream[estimates >= threshold])
    assert np.array_equal(kept, estimates[estimates >= threshold])


def two_sites():
    codec = MixedRadix([7, 6, 5, 4, 3], "abcde")
    rng = np.random.default_rng(8)
    heavy = rng.choice(codec.size, 30, replace=False).astype(np.uint64)
    streams = []
    for _ in range(2):
        noise = rng.integers(0, codec.size, 3000).astype(np.uint64)
        streams.append(np.concatenate([np.repeat(heavy, np.arange(200, 230)), noise]))
    return codec, heavy, streams


def test_heavy_hitters_come_back_from_two_sites_merged_tables_alone():
    codec, heavy, streams = two_sites()
    spec = SketchSpec(7, 1500, KEY, domain=codec.identity)
    merged = RecoverySketch(spec, codec.radices, prefix_digits=4, histogram_digits=2)
    direct = CountSketch(spec)
    for stream in streams:
        site = RecoverySketch(spec, codec.radices, prefix_digits=4, histogram_digits=2)
        site.update(stream)
        merged.merge(site)
        direct.update(stream)
    assert merged.histogram.sum() == sum(stream.size for stream in streams)
    assert np.array_equal(merged.full.table, direct.table)
    assert sorted(merged.recover(30).keys.tolist()) == sorted(heavy.tolist())
    above = merged.above(390)
    assert set(heavy.tolist()) <= set(above.keys.tolist())
    assert np.array_equal(above.counts, direct.estimate(above.keys))
    assert len(merged.recover(10**6, floor=390).keys) == len(above.keys)


def test_recovery_refuses_what_cannot_work():
    codec, _, _ = two_sites()
    spec = SketchSpec(3, 100, KEY)
    for prefix, short in ((2, 2), (5, 2), (4, 0)):
        with pytest.raises(SketchError, match="unusable recovery"):
            RecoverySketch(spec, codec.radices, prefix, short)
    with pytest.raises(SketchError, match="unusable recovery"):
        RecoverySketch(spec, [2**13] * 4, 3, 2)
    views = RecoverySketch(spec, codec.radices, 4, 2)
    views.update(np.arange(codec.size, dtype=np.uint64))
    with pytest.raises(SketchError, match="keys must be below"):
        views.update(np.array([codec.size], np.uint64))
    with pytest.raises(SketchError, match="too low"):
        views.above(1, max_queries=50)
    with pytest.raises(SketchError, match="threshold"):
        views.above(0)
    with pytest.raises(SketchError, match="cannot be added"):
        views.merge(RecoverySketch(spec, codec.radices, 4, 3))
    with pytest.raises(SketchError, match="cannot be added"):
        views.merge(RecoverySketch(SketchSpec(3, 101, KEY), codec.radices, 4, 2))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 3), st.integers(0, 2**32))
def test_a_ladder_of_prefixes_descends_to_the_same_keys_as_a_single_rung(rungs, seed):
    codec = MixedRadix([3] * 12, [f"d{i}" for i in range(12)])
    rng = np.random.default_rng(seed)
    heavy = rng.choice(codec.size, 20, replace=False).astype(np.uint64)
    keys = np.concatenate([heavy, rng.integers(0, codec.size, 500).astype(np.uint64)])
    weights = np.concatenate([np.full(20, 300), np.ones(500, np.int64)])
    spec = SketchSpec(9, 2000, KEY)
    views = RecoverySketch(spec, codec.radices, (5, 8, 10)[:rungs], 3)
    views.update(keys, weights)
    assert [sketch.spec.domain for sketch in views.prefixes] == [
        f"/prefix-{digits}" for digits in (5, 8, 10)[:rungs]
    ]
    direct = CountSketch(spec)
    direct.update(keys, weights)
    assert np.array_equal(views.full.table, direct.table)
    twice = RecoverySketch(spec, codec.radices, (5, 8, 10)[:rungs], 3)
    twice.merge(views)
    twice.merge(views)
    assert set(twice.recover(20).keys.tolist()) == set(heavy.tolist())
    with pytest.raises(SketchError, match="cannot be added"):
        views.merge(RecoverySketch(spec, codec.radices, (6, 8, 10)[:rungs], 3))


def test_what_was_found_no_longer_disturbs_what_is_estimated():
    rng = np.random.default_rng(3)
    keys = rng.permutation(10**6)[:4000].astype(np.uint64)
    counts = rng.integers(1, 2000, 4000)
    sketch = CountSketch(SketchSpec(8, 4000, KEY))
    sketch.update(keys, counts)
    before = np.array(sketch.table)
    peeled = peel(sketch, keys[:3000])
    assert np.array_equal(sketch.table, before)
    order = np.argsort(keys[:3000])[np.argsort(np.argsort(peeled.found.keys))]
    error = np.abs(peeled.found.counts - counts[:3000][order])
    at_first = np.abs(sketch.estimate(keys[:3000]) - counts[:3000])
    assert np.array_equal(keys[:3000][order], peeled.found.keys)
    assert np.mean(error) < 0.7 * np.mean(at_first)
    assert row_error(peeled.rest) < 0.7 * row_error(sketch)


def test_a_table_of_known_keys_alone_is_empty_once_they_are_peeled_off():
    keys = np.arange(50, dtype=np.uint64)
    sketch = CountSketch(SketchSpec(9, 3000, KEY))
    sketch.update(keys, np.arange(1, 51) * 1000)
    peeled = peel(sketch, keys)
    assert not peeled.rest.table.any()
    assert peeled.found.counts.tolist() == [1000.0 * (50 - i) for i in range(50)]
    nothing = peel(sketch, keys[:0])
    assert nothing.found.keys.size == 0
    assert np.array_equal(nothing.rest.table, sketch.table)


def test_one_rows_error_is_the_norm_of_what_was_not_found_over_the_root_of_columns():
    rng = np.random.default_rng(9)
    keys = rng.permutation(10**6)[:5000].astype(np.uint64)
    counts = np.concatenate([[100_000, 50_000], rng.integers(1, 30, 4998)])
    sketch = CountSketch(SketchSpec(15, 2000, KEY))
    sketch.update(keys, counts)
    tail = np.sqrt(np.square(counts[2:], dtype=np.float64).sum() / 2000)
    assert row_error(peel(sketch, keys[:2], 0).rest) == pytest.approx(tail, rel=0.1)
    assert row_error(sketch) > 20 * tail


@pytest.mark.slow
def test_the_top_20000_of_the_pixel_profile_come_back_from_tables_alone(pixel_profile):
    keys, counts = pixel_profile
    views = RecoverySketch(SketchSpec(15, 200_000, KEY), reduced_bands().radices)
    views.update(keys, counts)
    found = views.recover(20_000).keys
    assert np.isin(keys[:20_000], found).mean() >= 0.985
    assert counts[np.isin(keys, found)].sum() / counts.sum() >= 0.84
