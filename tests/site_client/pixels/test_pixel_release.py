"""The gate: frequent, clear of the sketch's error, at several sites - or never named."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import RefusedError, SketchError
from common.sketching import CountSketch, SketchSpec
from common.sketching.heavy_hitters import RankedKeys
from site_client.pixels.counting import PixelCounter, PixelTables
from site_client.pixels.release import ReleaseRule, gate, present_at, release

KEY = bytes(range(16))
SPEC = SketchSpec(16, 20_000, KEY)
UNTIMED = settings(deadline=None)
numbers = st.one_of(st.floats(-10, 500), st.just(float("nan")))


@UNTIMED
@given(
    st.lists(st.tuples(numbers, numbers)),
    st.floats(0, 60),
    st.floats(0, 20),
    st.floats(0, 5),
    st.integers(1, 4),
)
def test_no_key_passes_without_count_certainty_and_sites(rows, sigma, error, margin, sites):
    counts, present = np.array(rows, np.float64).reshape(-1, 2).T
    found = RankedKeys(np.arange(len(rows), dtype=np.uint64), counts)
    rule = ReleaseRule(pixels=50, sites=sites, sigmas=5.0, margin=margin)
    passed = gate(found, present, sigma, error, rule)
    expected = [
        i
        for i, (count, where) in enumerate(rows)
        if count >= max(50, 49 + margin * error, 5 * sigma) and where >= sites - 0.5
    ]
    assert passed.keys.tolist() == expected
    assert passed.threshold == max(50, 49 + margin * error, 5 * sigma)


def federation(codec, streams, spec=SPEC):
    merged = PixelTables.empty(codec, spec)
    for keys in streams:
        counter = PixelCounter(codec, spec)
        counter.add(keys)
        merged.merge(counter.tables())
    return merged


def test_only_keys_of_several_sites_come_through(fitted):
    codec, _ = fitted
    rng = np.random.default_rng(7)
    keys = rng.permutation(codec.digits.size)[:4000].astype(np.uint64)
    common, alone, rare, tail = keys[:40], keys[40:50], keys[50:60], keys[60:]
    streams = [
        np.concatenate(
            [np.repeat(common, 60), np.repeat(alone if site == 0 else common[:1], 400), tail]
        )
        for site in range(3)
    ]
    streams[0] = np.concatenate([streams[0], np.repeat(rare, 20)])
    streams[1] = np.concatenate([streams[1], np.repeat(rare, 20)])
    merged = federation(codec, streams)
    named = release(merged, ReleaseRule())
    assert sorted(named.keys.tolist()) == sorted(common.tolist())
    assert named.threshold == 50
    assert np.all(np.abs(named.counts[1:] - 180) <= 5 * named.sigma)
    lenient = release(merged, ReleaseRule(pixels=30, sites=1))
    assert sorted(lenient.keys.tolist()) == sorted(np.concatenate([common, alone, rare]).tolist())
    assert release(merged, ReleaseRule(pixels=2000)).keys.size == 0
    of_five = release(merged, ReleaseRule(), top=5)
    assert set(of_five.keys.tolist()) < set(common.tolist())


def test_the_margin_keeps_back_keys_a_few_pixels_short_of_the_rule(fitted):
    codec, _ = fitted
    rng = np.random.default_rng(9)
    keys = rng.permutation(codec.digits.size)[:30_000].astype(np.uint64)
    short, enough, tail = keys[:400], keys[400:600], keys[600:]
    # Of two sites together 49 pixels of each short one, 90 of the next, 4 of each other.
    site = np.concatenate([np.repeat(short, 24), np.repeat(enough, 45), np.repeat(tail, 2)])
    merged = federation(codec, [site, np.concatenate([site, short])], SketchSpec(16, 8000, KEY))
    without = release(merged, ReleaseRule(margin=0.0))
    named = release(merged, ReleaseRule())
    assert 52 < named.threshold < 56
    assert np.isin(short, without.keys).mean() > 0.1
    assert np.isin(short, named.keys).mean() < 0.04
    assert np.isin(enough, named.keys).all()
    assert set(named.keys.tolist()) < set(without.keys.tolist())


def test_a_noisy_sketch_raises_the_threshold(fitted):
    codec, _ = fitted
    rng = np.random.default_rng(8)
    narrow = SketchSpec(5, 300, KEY)
    merged = PixelTables.empty(codec, narrow)
    counter = PixelCounter(codec, narrow, presence_floor=200)
    counter.add(rng.integers(0, codec.digits.size, 100_000).astype(np.uint64))
    counter.add(np.repeat(np.uint64(77), 3000))
    merged.merge(counter.tables())
    named = release(merged, ReleaseRule(pixels=50, sites=1), top=10)
    assert named.threshold == 5 * named.sigma > 50
    assert named.keys.tolist() == [77]


def test_a_presence_sketch_that_cannot_tell_one_site_from_two_refuses():
    presence = CountSketch(SketchSpec(5, 100, KEY))
    presence.update(np.arange(10_000, dtype=np.uint64))
    with pytest.raises(RefusedError, match="one site from two"):
        present_at(presence, np.arange(10, dtype=np.uint64))
    assert present_at(presence, np.zeros(0, np.uint64)).size == 0


@pytest.mark.parametrize(
    "weak", [{"pixels": 1}, {"sites": 0}, {"sigmas": 1.0}, {"sigmas": np.nan}, {"margin": -1.0}]
)
def test_a_rule_that_protects_nothing_is_refused(weak):
    with pytest.raises(RefusedError, match="protects nothing"):
        ReleaseRule(**weak)


def test_releasing_takes_the_federation_key(fitted):
    codec, _ = fitted
    public = PixelTables.empty(codec, SPEC.without_key())
    with pytest.raises(SketchError, match="cannot query"):
        release(public, ReleaseRule())
