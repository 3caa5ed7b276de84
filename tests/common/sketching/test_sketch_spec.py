"""The spec: what must match, what is secret, and what importing costs."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from common.errors import SketchError
from common.sketching import CountSketch, SketchSpec, key_id

KEY = b"sixteen secrets!"


def test_the_key_is_in_no_text_and_no_bytes():
    spec = SketchSpec(3, 5, KEY)
    sketch = CountSketch(spec)
    sketch.update([1, 2, 3])
    seen = repr(spec).encode() + str(sketch).encode() + spec.header() + sketch.to_bytes()
    seen += repr(sketch._functions).encode()
    for spelling in (KEY, KEY[:8], KEY[8:], KEY.hex().encode(), repr(KEY)[2:-1].encode()):
        assert spelling not in seen


def test_a_spec_equals_its_public_half_and_differs_in_every_other_way():
    spec = SketchSpec(3, 5, KEY, domain="d")
    assert spec == spec.without_key() == SketchSpec.public(3, 5, key_id(KEY), "d")
    assert hash(spec) == hash(spec.without_key())
    assert spec.can_query
    assert not spec.without_key().can_query
    for other in (
        replace(spec, rows=4),
        replace(spec, columns=6),
        replace(spec, domain="e"),
        SketchSpec(3, 5, KEY[::-1], domain="d"),
    ):
        assert other != spec


def test_domains_and_keys_hash_apart():
    tables = []
    for spec in (SketchSpec(3, 999, KEY), SketchSpec(3, 999, KEY, domain="d")):
        sketch = CountSketch(spec)
        sketch.update(np.arange(100, dtype=np.uint64))
        tables.append(sketch.table)
    assert not np.array_equal(*tables)


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("rows", {"rows": 0}),
        ("rows", {"rows": 65}),
        ("rows", {"rows": True}),
        ("columns", {"columns": 0}),
        ("columns", {"columns": 2.0}),
        ("key", {"key": b"short"}),
        ("key", {"key": "sixteen letters!"}),
        ("key_id", {"key": None}),
        ("key_id", {"key_id": "0" * 16}),
        ("domain", {"domain": "two words"}),
        ("version", {"version": 2}),
    ],
)
def test_specs_that_make_no_sense_are_refused_by_name(field, arguments):
    with pytest.raises(SketchError) as refusal:
        SketchSpec(**({"rows": 3, "columns": 5, "key": KEY} | arguments))
    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("keys", "weights"),
    [
        (np.array([-1]), None),
        (np.array([1.0]), None),
        (np.array([[1]], np.uint64), None),
        (np.array(["a"]), None),
        (np.array([1, 2], np.uint64), np.array([1])),
        (np.array([1], np.uint64), np.array([0.5])),
        (np.array([1], np.uint64), np.array([2**63], np.uint64)),
    ],
)
def test_input_that_is_no_stream_is_refused_and_changes_nothing(keys, weights):
    sketch = CountSketch(SketchSpec(3, 5, KEY))
    with pytest.raises(SketchError):
        sketch.update(keys, weights)
    if weights is None:
        good = np.arange(50, dtype=np.uint64)
        with pytest.raises(SketchError):
            sketch.update_stream([good, keys])
        with pytest.raises(SketchError):
            sketch.estimate(keys)
    assert not sketch.table.any()


@pytest.mark.parametrize("threads", [0, 65, 1.0, True])
def test_thread_counts_are_bounded(threads):
    with pytest.raises(SketchError, match="thread count"):
        CountSketch(SketchSpec(3, 5, KEY)).update([1], threads=threads)


def test_any_integer_type_and_memory_layout_gives_the_same_table():
    spec = SketchSpec(3, 50, KEY)
    plain, weights = np.arange(400, dtype=np.uint64), np.arange(400)
    expected = CountSketch(spec)
    expected.update(plain, weights)
    frozen = plain.copy()
    frozen.flags.writeable = False
    for keys in (plain.astype(np.int32), np.repeat(plain, 2)[::2], frozen, plain.tolist()):
        sketch = CountSketch(spec)
        sketch.update(keys, weights.astype(np.int16))
        assert np.array_equal(sketch.table, expected.table)


def test_an_empty_batch_is_the_empty_stream():
    sketch = CountSketch(SketchSpec(3, 5, KEY))
    sketch.update([])
    assert sketch.update_stream([]) == 0
    assert not sketch.table.any()
    assert sketch.estimate([]).shape == (0,)


def test_the_table_cannot_be_written_through_its_view_nor_through_its_source():
    spec = SketchSpec(3, 5, KEY)
    source = np.ones((3, 5), np.int64)
    sketch = CountSketch.from_table(spec, source)
    source[:] = 7
    assert sketch.table.sum() == 15
    with pytest.raises(ValueError, match="read-only"):
        sketch.table[0, 0] = 1
    for wrong in (source[:2], source.astype(np.int32), source.tolist()):
        with pytest.raises(SketchError, match="not a table"):
            CountSketch.from_table(spec, wrong)


def test_progress_is_told_after_every_chunk():
    told = []
    sketch = CountSketch(SketchSpec(3, 5, KEY))
    total = sketch.update_stream([[1, 2], [3], [4, 5, 6]], progress=told.append)
    assert told == [2, 3, 6]
    assert total == 6


def test_counters_wrap_so_that_addition_is_exact_modulo_two_to_the_64():
    spec = SketchSpec(1, 1, KEY)
    a = CountSketch.from_table(spec, np.array([[2**63 - 1]]))
    b = CountSketch.from_table(spec, np.array([[1]]))
    a.merge(b)
    assert a.table[0, 0] == -(2**63)


def test_a_party_that_only_adds_tables_never_imports_numba():
    program = (
        "import sys, numpy as np; from common.sketching import CountSketch, SketchSpec\n"
        "spec = SketchSpec.public(2, 3, '0' * 16)\n"
        "a = CountSketch.from_table(spec, np.ones((2, 3), np.int64))\n"
        "a.merge(CountSketch.from_bytes(a.to_bytes(), spec)); a.clear()\n"
        "sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-W", "error", "-c", program]).returncode == 0
