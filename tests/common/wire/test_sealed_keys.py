"""Sealed keys as bytes: one spelling, every receiver named, nothing beside."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.audit.table import record_cells
from common.crypto.sealing import Label
from common.errors import CairnError, InputDataError, RefusedError
from common.ledger.records import ArrayRecord, make_record, parse_record, record_line
from common.ledger.verdict import Totals
from common.wire.envelope import decode, pack
from common.wire.sealed_keys import SealedBox, decode_sealed, encode_sealed

VECTOR = json.loads(
    (Path(__file__).resolve().parents[2] / "vectors" / "sealed_key.json").read_text()
)
LABEL = Label("brains", 3, "0123456789abcdef", "north", "south", "ab" * 32)
SOUTH = SealedBox(LABEL, bytes(range(64)), bytes(range(64, 128)))
EAST = SealedBox(replace(LABEL, for_site="east"), bytes(64), bytes(range(64)))


def fields(**changes):
    data = encode_sealed([SOUTH])
    return {
        "record_type": "SealedKeys",
        "payload_sha256": "a" * 64,
        "bytes": len(data),
        "arrays": tuple(
            ArrayRecord(name=a.name, dtype=a.dtype, shape=a.shape, sha256=a.sha256)
            for a in decode_sealed(data).arrays
        ),
        "policy_sha256": "b" * 64,
        "key_id": LABEL.key_id,
        "generation": 3,
    } | changes


def recorded(**changes):
    when = datetime(2026, 1, 1, tzinfo=UTC)
    return make_record(seq=4, event="SEND", now=when, site="north", fields=fields(**changes))


def test_the_frozen_record_holds_the_frozen_box_and_nothing_else():
    data = bytes.fromhex(VECTOR["record"])
    found = decode_sealed(data)
    assert [box.label for box in found.boxes] == [Label(**VECTOR["label"])]
    assert (found.boxes[0].box.hex(), found.boxes[0].signature.hex()) == (
        VECTOR["box"],
        VECTOR["signature"],
    )
    assert encode_sealed(found.boxes) == data


boxes = st.lists(
    st.builds(
        SealedBox,
        st.builds(
            Label,
            st.just("brains"),
            st.just(7),
            st.just("0123456789abcdef"),
            st.just("north"),
            st.from_regex(r"[a-z0-9][a-z0-9-]{0,31}", fullmatch=True),
            st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
        ),
        st.binary(min_size=64, max_size=64),
        st.binary(min_size=64, max_size=64),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda box: (box.label.for_site, box.label.for_ledger_key),
)


@given(boxes)
def test_what_is_encoded_decodes_to_itself_in_whatever_order(made):
    data = encode_sealed(made)
    assert encode_sealed(made[::-1]) == data
    assert set(decode_sealed(data).boxes) == set(made)


@given(st.integers(0, 8 * len(encode_sealed([SOUTH])) - 1))
def test_a_flipped_bit_is_refused_or_shows_in_what_is_decoded(bit):
    bent = bytearray(encode_sealed([SOUTH]))
    bent[bit // 8] ^= 1 << bit % 8
    try:
        found = decode_sealed(bytes(bent))
    except CairnError:
        return
    assert found.boxes != (SOUTH,)


@pytest.mark.parametrize("tail", [b"\0", bytes(8), b"x" * 100])
def test_nothing_rides_behind(tail):
    with pytest.raises(RefusedError):
        decode_sealed(encode_sealed([SOUTH]) + tail)


def test_boxes_of_two_keys_or_for_nobody_or_twice_for_one_are_no_record():
    other = replace(SOUTH, label=replace(LABEL, generation=4, for_site="east"))
    for wrong in ([], [SOUTH, SOUTH], [SOUTH, other]):
        with pytest.raises(RefusedError):
            encode_sealed(wrong)


def test_a_short_box_is_none():
    with pytest.raises(RefusedError):
        encode_sealed([replace(SOUTH, box=bytes(63))])


def test_an_unknown_field_or_receiver_is_refused():
    header = decode_sealed(encode_sealed([SOUTH])).header.model_dump()
    array = {"x": np.zeros(16, np.int64)}
    for metadata, arrays in ((header, array), (header | {"note": "hello"}, array), (header, {})):
        with pytest.raises(RefusedError):
            decode_sealed(pack(metadata, arrays))


def test_an_answer_to_an_order_can_not_be_sealed_keys():
    with pytest.raises(RefusedError, match="unknown record type"):
        decode(encode_sealed([SOUTH, EAST]))


def test_the_ledger_names_key_generation_and_receivers():
    record = recorded()
    assert parse_record(record_line(record)) == record
    says = " ".join(record_cells(record))
    assert "SealedKeys" in says
    assert f"south:{'ab' * 32}" in says
    assert "federation key 0123456789abcdef, generation 3" in says


@pytest.mark.parametrize("missing", ["key_id", "generation", "policy_sha256", "arrays"])
def test_a_record_of_sealed_keys_says_all_of_it(missing):
    with pytest.raises(InputDataError, match=missing):
        recorded(**{missing: None})


def test_any_other_record_still_needs_its_run_and_plan():
    with pytest.raises(InputDataError, match="run"):
        recorded(record_type="ModelUpdate")


def test_sealed_keys_count_as_bytes_out_and_as_no_round():
    totals = Totals()
    totals.add(recorded())
    assert totals.bytes_out == totals.bytes_by_type["SealedKeys"] > 0
    assert totals.rounds == 0
