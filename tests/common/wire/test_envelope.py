"""An envelope is the bytes of its record and nothing else."""

import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from safetensors.numpy import save

from common.canonical import canonical_json, sha256_hex
from common.errors import CairnError, RefusedError, VerificationError
from common.wire.envelope import (
    METADATA_KEY,
    Envelope,
    decode,
    decode_again,
    describe_arrays,
    encode,
    pack,
    unpack,
)
from common.wire.records import ModelUpdate

NAMES = st.text("abcdefgh.0123456789/", min_size=1, max_size=12)
SHAPES = npst.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)
ARRAYS = st.one_of(
    npst.arrays(np.float32, SHAPES, elements=st.floats(width=32, allow_nan=True)),
    npst.arrays(np.int64, SHAPES),
)
COUNTS = st.integers(0, 2**53 - 1)
UPDATES = st.builds(
    ModelUpdate,
    plan_fingerprint=st.text("0123456789abcdef", min_size=64, max_size=64),
    site=st.from_regex(r"[a-z0-9][a-z0-9-]{0,31}", fullmatch=True),
    run=st.from_regex(r"[a-z0-9][a-z0-9-]{0,63}", fullmatch=True),
    round=COUNTS,
    images=COUNTS,
    transitions=COUNTS,
    updates=COUNTS,
)


@given(UPDATES, st.dictionaries(NAMES, ARRAYS, max_size=4))
def test_what_was_encoded_is_decoded_bit_for_bit(record, arrays):
    data = encode(Envelope(record, arrays))
    envelope = decode(data)
    assert envelope.record == record
    assert envelope.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        assert envelope.arrays[name].dtype == array.dtype
        assert envelope.arrays[name].shape == array.shape
        assert envelope.arrays[name].tobytes() == array.tobytes()
    assert encode(envelope) == data


@given(st.dictionaries(NAMES, ARRAYS, max_size=4), st.randoms(use_true_random=False))
def test_the_order_in_which_arrays_were_named_does_not_matter(arrays, random):
    names = list(arrays)
    random.shuffle(names)
    assert pack({}, arrays) == pack({}, {name: arrays[name] for name in names})


@pytest.mark.parametrize("kind", ["ModelUpdate", "SketchTable", "RoundReport", "failure"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_single_changed_byte_is_refused_or_decodes_to_itself(envelopes, kind, data):
    good = encode(envelopes[kind])
    position = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[position] = data.draw(st.integers(0, 255))
    try:
        envelope = decode(bytes(bad))
    except CairnError:
        assert bytes(bad) != good
        return
    assert encode(envelope) == bytes(bad)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(junk=st.binary(min_size=1, max_size=40), place=st.floats(0, 1))
def test_inserted_bytes_are_refused(envelopes, junk, place):
    good = encode(envelopes["ModelUpdate"])
    at = math.floor(place * len(good))
    with pytest.raises(CairnError):
        decode(good[:at] + junk + good[at:])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cut=st.floats(0, 1, exclude_max=True))
def test_every_truncation_is_refused(envelopes, cut):
    good = encode(envelopes["SketchTable"])
    with pytest.raises(CairnError):
        decode(good[: math.floor(cut * len(good))])


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_and_never_crash(junk):
    with pytest.raises(CairnError):
        decode(junk)


@pytest.mark.parametrize(
    "dtype", [np.float64, np.float16, np.uint8, np.int16, np.uint64, np.bool_, ">f4"]
)
def test_only_float32_and_signed_integers_are_packed(dtype):
    with pytest.raises(RefusedError, match="may not cross"):
        pack({}, {"a": np.zeros(3, dtype)})


def test_a_foreign_type_inside_valid_safetensors_is_refused():
    with pytest.raises(RefusedError):
        unpack(save({"a": np.zeros(3, np.uint8)}, metadata={METADATA_KEY: "{}"}))


def test_metadata_that_is_not_canonical_is_refused():
    for text in ('{"b":1,"a":2}', '{"a": 1}', '{"a":1,"a":1}', "{"):
        with pytest.raises(VerificationError):
            unpack(save({}, metadata={METADATA_KEY: text}))


def test_a_second_metadata_entry_is_refused():
    with pytest.raises(RefusedError, match="more than it declares"):
        unpack(save({}, metadata={METADATA_KEY: "{}", "note": "x"}))


def test_metadata_under_another_name_is_refused():
    with pytest.raises(RefusedError, match="not an envelope"):
        unpack(save({}, metadata={"other": "{}"}))


def test_bytes_between_arrays_that_no_header_names_are_refused():
    data = pack({}, {"a": np.zeros(2, np.float32)})
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["a"]["data_offsets"] = [8, 16]
    text = json.dumps(header, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    hidden = len(text).to_bytes(8, "little") + text + b"pixels!!" + data[8 + size :]
    with pytest.raises(RefusedError):
        unpack(hidden)


def test_a_header_that_claims_to_be_huge_is_refused_without_reading_it():
    with pytest.raises(RefusedError, match="not an envelope"):
        unpack((2**62).to_bytes(8, "little") + b"{}")


def test_deep_nesting_is_refused():
    text = b"[" * 100_000
    with pytest.raises(CairnError):
        unpack(len(text).to_bytes(8, "little") + text)


def test_an_array_is_described_by_name_type_shape_and_digest(envelopes):
    (table,) = describe_arrays(envelopes["SketchTable"].arrays)
    assert (table.name, table.dtype, table.shape) == ("table", "int64", (2, 3))
    assert table.sha256 == sha256_hex(np.array([[3, -4, 2], [-9, 0, 0]], "<i8").tobytes())


def test_a_strided_array_is_encoded_like_its_copy(envelopes):
    record = envelopes["ModelUpdate"].record
    wide = np.arange(12, dtype=np.float32).reshape(3, 4)
    strided = encode(Envelope(record, {"a": wide[:, ::2]}))
    assert strided == encode(Envelope(record, {"a": wide[:, ::2].copy()}))


def test_a_record_is_spelt_in_one_way_only(envelopes):
    record = envelopes["failure"].record
    short = canonical_json(record.model_dump(mode="json", exclude_defaults=True))
    with pytest.raises(RefusedError, match="another way"):
        decode(save({}, metadata={METADATA_KEY: _with_type(short)}))


def _with_type(short):
    value = json.loads(short) | {"record_type": "RoundReport"}
    return canonical_json(value).decode()


@settings(deadline=None)
@given(st.builds(Envelope, UPDATES, st.dictionaries(NAMES, ARRAYS, max_size=3)))
def test_what_was_decoded_once_is_the_same_when_it_is_read_again(envelope):
    data = encode(envelope)
    first, again = decode(data), decode_again(data)
    assert again.record == first.record
    assert encode(again) == data


@pytest.mark.parametrize("data", [b"", b"\x10" + bytes(20), bytes(8) + b"{}"])
def test_what_never_was_an_envelope_is_not_read_again_either(data):
    with pytest.raises(CairnError):
        decode_again(data)
