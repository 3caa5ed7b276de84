"""Keeping the frequent keys aside changes no count and no table, whatever the stream does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.sketching import CountSketch, SketchSpec, reference
from common.sketching.dictionary import KeyDictionary
from common.sketching.engine import MANY
from common.sketching.hot_keys import STEP, HotKeys

SPEC = SketchSpec(3, 101, bytes(range(16)))
UNTIMED = settings(deadline=None, max_examples=25)
LONG = MANY + 3 * STEP + 17

kinds = st.sampled_from(["zero", "few", "skewed", "distinct", "turning"])


def stream_of(kind, seed, size):
    """A stream of one temper; "turning" changes its frequent keys half way."""
    rng = np.random.default_rng(seed)
    if kind == "zero":
        return np.zeros(size, np.uint64)
    if kind == "few":
        return rng.integers(0, 9, size, dtype=np.uint64)
    if kind == "skewed":
        return rng.zipf(1.2, size).astype(np.uint64)
    if kind == "distinct":
        return rng.integers(0, 2**64, size, dtype=np.uint64)
    early, late = rng.zipf(1.3, (2, size)).astype(np.uint64)
    return np.where(np.arange(size) < size // 2, early, late * np.uint64(2**40 + 1))


def tally_of(*batches):
    """Distinct keys and how often each occurs, from batches of (keys, counts)."""
    keys = np.concatenate([keys for keys, _ in batches])
    counts = np.concatenate([counts for _, counts in batches])
    distinct, where = np.unique(keys, return_inverse=True)
    totals = np.zeros(distinct.size, np.int64)
    np.add.at(totals, where, counts)
    return distinct, totals


def sifted(hot, stream):
    """Everything ``hot`` lets through or gives back, as batches, and what passed first."""
    batches, passed = [], set()
    rest = np.empty(STEP, np.uint64)
    for start in range(0, stream.size, STEP):
        left, moved, counts = hot.sift(stream[start : start + STEP], rest)
        passed |= set(rest[:left].tolist())
        assert set(moved.tolist()) <= passed
        batches.append((rest[:left].copy(), np.ones(left, np.int64)))
        batches.append((moved.copy(), counts.copy()))
    batches.append(hot.settle())
    assert set(batches[-1][0].tolist()) <= passed
    return batches


def exact_first(batches, limit):
    """The sketch of a stream counted exactly as long as there was room, and where there was none.

    As ``PixelCounter`` counts: what a full dictionary holds goes into the sketch.
    """
    sketch, exact, spills, before = CountSketch(SPEC), KeyDictionary(limit, np.uint64(3)), [], 0
    for batch in batches:
        rest = batch
        while (done := exact.count(rest)) < rest.size:
            rest = rest[done:]
            spills.append(before + batch.size - rest.size)
            sketch.update(*exact.items())
            exact.clear()
        before += batch.size
    sketch.update(*exact.items())
    return sketch, spills


@UNTIMED
@given(kinds, st.integers(0, 2**32), st.integers(0, 3 * STEP))
def test_what_passes_and_what_comes_back_are_the_stream(kind, seed, size):
    stream = stream_of(kind, seed, size)
    hot = HotKeys()
    for part in (stream, stream[::-1].copy()):
        keys, counts = tally_of(*sifted(hot, part))
        expected = np.unique(part, return_counts=True)
        assert np.array_equal(keys, expected[0])
        assert np.array_equal(counts, expected[1])


def test_a_key_that_became_rare_makes_room_for_one_in_its_slot():
    slot = np.arange(2**16, dtype=np.uint64)
    slot = slot[(slot * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(50) == 7][:2]
    early, late = (np.full(STEP // 2, key, np.uint64) for key in slot)
    hot, rest = HotKeys(), np.empty(STEP, np.uint64)
    hot.sift(early, rest)
    moved = []
    for _ in range(8):
        moved += hot.sift(late, rest)[1].tolist()
    assert moved == [slot[0]]
    assert hot.settle()[0].tolist() == [slot[1]]


def test_a_stream_without_repeats_is_left_alone_and_looked_at_again_later():
    rng = np.random.default_rng(5)
    hot, rest = HotKeys(), np.empty(STEP, np.uint64)
    assert hot.skip(10) == 0
    hot.sift(rng.integers(0, 2**64, STEP, dtype=np.uint64), rest)
    passed = 0
    while step := hot.skip(1_000_000):
        passed += step
    assert passed == 64 * STEP
    for _ in range(3):
        hot.sift(rng.zipf(1.2, STEP).astype(np.uint64), rest)
        assert hot.skip(10) == 0


@settings(deadline=None, max_examples=8)
@given(kinds, st.integers(0, 2**32), st.integers(1, 2))
def test_long_streams_of_every_temper_give_the_reference_table(kind, seed, threads):
    stream = stream_of(kind, seed, threads * LONG)
    expected = reference.table(SPEC, stream)
    at_once, streamed = CountSketch(SPEC), CountSketch(SPEC)
    at_once.update(stream, threads=threads)
    streamed.update_stream(np.array_split(stream, 5), threads=threads)
    counted = exact_first(np.array_split(stream, 3), 1 << 19)[0]
    for sketch in (at_once, streamed, counted):
        assert np.array_equal(sketch.table, expected)


@pytest.mark.parametrize("kind", ["few", "skewed", "distinct", "turning"])
def test_a_dictionary_with_room_counts_long_streams_exactly(kind):
    stream = stream_of(kind, 11, LONG)
    stream[1::2] %= np.uint64(50_000)
    expected = np.unique(stream, return_counts=True)
    for limit in (expected[0].size, 2 * expected[0].size + STEP):
        held = KeyDictionary(limit, np.uint64(3))
        assert sum(held.count(batch) for batch in np.array_split(stream, 4)) == stream.size
        assert len(held) == expected[0].size
        assert np.array_equal(tally_of(held.items())[0], expected[0])
        assert np.array_equal(tally_of(held.items())[1], expected[1])


@pytest.mark.parametrize("limit", [40_000, 70_000, 119_999])
def test_a_long_stream_spills_at_the_same_key_however_it_was_counted(limit):
    stream = np.concatenate(
        [stream_of("skewed", 1, LONG) % np.uint64(5_000), np.arange(120_000, dtype=np.uint64)]
    )
    sketch, spills = exact_first([stream], limit)
    assert spills[0] == np.sort(np.unique(stream, return_index=True)[1])[limit]
    assert np.array_equal(sketch.table, reference.table(SPEC, stream))


@UNTIMED
@given(kinds, st.integers(0, 2**32), st.integers(0, 2000), st.integers(1, 100))
def test_a_dictionary_that_spills_gives_the_same_table_as_the_sketch_itself(
    kind, seed, size, limit
):
    stream = stream_of(kind, seed, size)
    sketch, spills = exact_first(np.array_split(stream, 4), limit)
    assert np.array_equal(sketch.table, reference.table(SPEC, stream))
    assert bool(spills) == (np.unique(stream).size > limit)
