"""Frozen bytes: any change of a hashed or written bit breaks federations, and this file."""

import json

import numpy as np
import pytest
import safetensors.numpy

from common.canonical import sha256_hex
from common.errors import SketchError
from common.sketching import CountSketch, SketchSpec, kernels, reference
from common.sketching.hashing import hash_functions
from common.sketching.spec import derive


def cases(vectors):
    return json.loads((vectors / "sketch_tables.json").read_text())


def test_siphash_gives_the_published_vector_in_both_spellings():
    # Aumasson & Bernstein's reference: key 00 01 .. 0f, message 00 01 .. 07.
    k0, k1 = np.frombuffer(bytes(range(16)), "<u8").astype(np.uint64)
    message = np.frombuffer(bytes(range(8)), "<u8").astype(np.uint64)
    published = np.array([0x93F5F5799A932462], np.uint64)
    assert np.array_equal(reference.siphash24(message, k0, k1), published)
    out = np.empty(1, np.uint64)
    kernels.premix(message, out, k0, k1)
    assert np.array_equal(out, published)


def test_both_siphashes_agree_on_every_length_of_batch():
    rng = np.random.default_rng(1)
    k0, k1 = rng.integers(0, 2**64, 2, dtype=np.uint64)
    for size in range(40):
        keys = rng.integers(0, 2**64, size, dtype=np.uint64)
        out = np.empty(size, np.uint64)
        kernels.premix(keys, out, k0, k1)
        assert np.array_equal(out, reference.siphash24(keys, k0, k1))


def test_key_derivation_is_hkdf_as_in_rfc_5869_test_case_3():
    derived = derive(bytes([0x0B] * 22), b"", 42)
    assert derived.hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


def test_hashes_tables_and_bytes_are_the_frozen_ones(vectors):
    for case in cases(vectors):
        spec = SketchSpec(
            case["rows"], case["columns"], bytes.fromhex(case["key"]), domain=case["domain"]
        )
        assert spec.key_id == case["key_id"]
        assert spec.header().decode() == case["header"]
        functions = hash_functions(spec)
        assert [f"{a:016x}" for a in functions.a.tolist()] == case["multipliers"]
        assert [f"{b:016x}" for b in functions.b.tolist()] == case["offsets"]
        keys = np.array([int(key) for key in case["stream"]], np.uint64)
        weights = np.array([int(weight) for weight in case["weights"]], np.int64)
        assert reference.cells(keys, functions).tolist() == case["cells"]
        sketch = CountSketch(spec)
        sketch.update(keys, weights)
        data = sketch.to_bytes()
        assert data[: -spec.table_bytes].hex() == case["head"]
        assert sha256_hex(data) == case["bytes_sha256"]


def test_the_bytes_are_what_the_safetensors_library_writes_and_reads(vectors):
    case = cases(vectors)[0]
    spec = SketchSpec(case["rows"], case["columns"], bytes.fromhex(case["key"]))
    sketch = CountSketch(spec)
    sketch.update(np.arange(30, dtype=np.uint64))
    data = sketch.to_bytes()
    metadata = {"count-sketch": spec.header().decode()}
    assert data == safetensors.numpy.save({"table": sketch.table.copy()}, metadata)
    assert np.array_equal(safetensors.numpy.load(data)["table"], sketch.table)


@pytest.mark.parametrize("change", ["cut", "longer", "metadata", "second array", "empty"])
def test_bytes_that_this_spec_would_not_write_are_refused(change):
    spec = SketchSpec(2, 5, bytes(16))
    sketch = CountSketch(spec)
    data = sketch.to_bytes()
    arrays, metadata = {"table": sketch.table.copy()}, {"count-sketch": spec.header().decode()}
    changed = {
        "cut": data[:-1],
        "longer": data + b"\0",
        "metadata": safetensors.numpy.save(arrays, metadata | {"note": "x"}),
        "second array": safetensors.numpy.save(arrays | {"x": np.zeros(1)}, metadata),
        "empty": b"",
    }[change]
    with pytest.raises(SketchError, match="not the bytes of this sketch"):
        CountSketch.from_bytes(changed, spec)
    assert CountSketch.from_bytes(data, spec).to_bytes() == data
