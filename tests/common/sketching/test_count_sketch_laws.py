"""The count sketch as a linear map: what must hold bit for bit, in any order, on any threads."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.errors import SketchError
from common.sketching import CountSketch, SketchSpec, key_id, reference
from common.sketching.engine import MANY

KEY = bytes(range(16))
UNTIMED = settings(deadline=None)  # the first example may compile a kernel
SPEC = SketchSpec(rows=4, columns=97, key=KEY, domain="test")

keys = hnp.arrays(np.uint64, st.integers(0, 300), elements=st.integers(0, 2**64 - 1))
few_keys = hnp.arrays(np.uint64, st.integers(0, 300), elements=st.integers(0, 5))
streams = st.one_of(keys, few_keys)
weights = st.integers(-(2**63), 2**63 - 1)


def sketch_of(stream, weight=None, spec=SPEC):
    sketch = CountSketch(spec)
    sketch.update(stream, weight)
    return sketch


@UNTIMED
@given(streams, streams)
def test_merging_two_sites_equals_sketching_their_union(a, b):
    merged = sketch_of(a)
    merged.merge(sketch_of(b))
    assert np.array_equal(merged.table, sketch_of(np.concatenate([a, b])).table)


@UNTIMED
@given(streams, st.randoms(use_true_random=False), st.integers(1, 7))
def test_order_and_chunking_of_a_stream_change_no_bit(stream, random, pieces):
    shuffled = stream.copy()
    random.shuffle(shuffled)
    whole, streamed = sketch_of(stream), CountSketch(SPEC)
    assert streamed.update_stream(np.array_split(shuffled, pieces)) == stream.size
    assert np.array_equal(streamed.table, whole.table)
    assert streamed.to_bytes() == whole.to_bytes()


@UNTIMED
@given(streams, st.data())
def test_the_kernels_agree_with_the_plain_numpy_reference(stream, data):
    weight = data.draw(hnp.arrays(np.int64, stream.size, elements=weights))
    sketch = sketch_of(stream, weight)
    assert np.array_equal(sketch.table, reference.table(SPEC, stream, weight))
    assert np.array_equal(sketch_of(stream).table, reference.table(SPEC, stream))


@UNTIMED
@given(streams, st.integers(1, 6))
def test_estimates_agree_with_the_reference_for_odd_and_even_rows(stream, rows):
    spec = SketchSpec(rows=rows, columns=13, key=KEY)
    sketch = sketch_of(stream, spec=spec)
    expected = reference.estimate(spec, sketch.table, stream)
    assert np.array_equal(sketch.estimate(stream), expected)


@UNTIMED
@given(streams)
def test_negative_weights_take_keys_away_again(stream):
    sketch = sketch_of(stream)
    sketch.update(stream, np.full(stream.size, -1))
    assert not sketch.table.any()


@settings(UNTIMED, max_examples=8)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 5))
def test_threads_and_chunks_change_no_bit_of_a_long_stream(seed, threads, pieces):
    rng = np.random.default_rng(seed)
    stream = rng.zipf(1.1, 200_000).astype(np.uint64)
    # One key often enough that its counters carry.
    stream[rng.random(stream.size) < 0.6] = 7
    expected = reference.table(SPEC, stream)
    at_once, streamed = CountSketch(SPEC), CountSketch(SPEC)
    at_once.update(stream, threads=threads)
    streamed.update_stream(np.array_split(stream, pieces), threads=threads)
    assert np.array_equal(at_once.table, expected)
    assert np.array_equal(streamed.table, expected)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("rows", SketchSpec(5, 97, KEY, domain="test")),
        ("columns", SketchSpec(4, 98, KEY, domain="test")),
        ("key_id", SketchSpec(4, 97, b"another key 16 b", domain="test")),
        ("domain", SketchSpec(4, 97, KEY, domain="elsewhere")),
    ],
)
def test_every_header_difference_is_refused_by_name(name, other):
    ours, theirs = CountSketch(SPEC), CountSketch(other)
    with pytest.raises(SketchError) as refusal:
        ours.merge(theirs)
    assert refusal.value.field.endswith(name)
    with pytest.raises(SketchError) as refusal:
        CountSketch.from_bytes(theirs.to_bytes(), SPEC)
    assert refusal.value.field == name


def test_a_party_without_the_key_adds_tables_and_cannot_query():
    public = SketchSpec.public(4, 97, key_id(KEY), domain="test")
    assert public == SPEC
    stream = np.arange(50, dtype=np.uint64)
    aggregator = CountSketch(public)
    aggregator.merge(CountSketch.from_bytes(sketch_of(stream).to_bytes(), public))
    assert aggregator.to_bytes() == sketch_of(stream).to_bytes()
    for action in (aggregator.update, aggregator.estimate):
        with pytest.raises(SketchError, match="the aggregator cannot query"):
            action(stream)
    with pytest.raises(SketchError, match="the aggregator cannot query"):
        aggregator.update_stream([stream])
    aggregator.clear()
    assert not aggregator.table.any()


@pytest.mark.parametrize("chunks", [2, 24])
def test_memory_does_not_grow_with_the_stream(chunks):
    spec = SketchSpec(4, 20_000, KEY)
    sketch = CountSketch(spec)
    chunk = np.arange(200_000, dtype=np.int32)  # of another type: converted piece by piece
    sketch.update(np.resize(chunk, 2 * MANY))  # compiles
    tracemalloc.start()
    try:
        assert (
            sketch.update_stream((chunk for _ in range(chunks)), threads=2) == chunks * chunk.size
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Two private tables, their low counters and buffers, and at most the chunk itself as uint64.
    assert peak < 2 * (1.25 * spec.table_bytes + 5 * 2**18) + 8 * chunk.size + 2**18


@pytest.mark.parametrize("columns", [97, 70_000])
def test_many_weights_of_any_size_and_sign_give_the_reference_table(columns):
    rng = np.random.default_rng(12)
    spec = SketchSpec(3, columns, KEY)
    stream = rng.integers(0, 50, 40_000).astype(np.uint64)
    sizes = rng.integers(0, 64, stream.size)
    weight = rng.integers(-(2**63), 2**63 - 1, stream.size) >> sizes
    sketch = sketch_of(stream, weight, spec)
    assert np.array_equal(sketch.table, reference.table(spec, stream, weight))
    sketch.update(stream, -weight)
    assert not sketch.table.any()
