"""The bytes of the wire, frozen: a change here breaks every site that is not updated."""

import json
from pathlib import Path

import numpy as np
import pytest

from common.canonical import sha256_hex
from common.wire.codes import ReplyCode
from common.wire.envelope import decode, encode
from common.wire.orders import decode_order, encode_order
from common.wire.parcel import unwrap, wrap
from common.wire.records import RECORD_TYPES

VECTORS = Path(__file__).parents[2] / "vectors"


def vector(name):
    return json.loads((VECTORS / f"wire_{name}.json").read_text(encoding="utf-8"))


def holds(frozen, data):
    assert data.hex() == frozen["hex"]
    assert sha256_hex(data) == frozen["sha256"]


KINDS = [
    "ModelUpdate",
    "SketchTable",
    "ErrorTables",
    "RoundReport",
    "failure",
    "PixelStatistics",
    "PixelSketches",
    "HeavyHitters",
    "GroupCounts",
]


def test_the_numbers_of_replies_are_frozen():
    """A number stands in ledgers for ever: none may come to mean something else."""
    assert vector("reply_codes") == {code.name: int(code) for code in ReplyCode}


def test_every_type_of_record_has_frozen_bytes():
    assert set(vector("envelope")) == set(KINDS) == {"failure", *(t.__name__ for t in RECORD_TYPES)}


@pytest.mark.parametrize("kind", KINDS)
def test_envelopes_have_their_frozen_bytes(envelopes, kind):
    frozen = vector("envelope")[kind]
    holds(frozen, encode(envelopes[kind]))
    decoded = decode(bytes.fromhex(frozen["hex"]))
    assert decoded.record == envelopes[kind].record
    for name, array in envelopes[kind].arrays.items():
        assert np.array_equal(decoded.arrays[name], array)


def test_an_order_has_its_frozen_bytes(order):
    frozen = vector("order")
    holds(frozen, encode_order(order))
    assert decode_order(bytes.fromhex(frozen["hex"])).header == order


def test_an_order_about_pixels_has_its_frozen_bytes(pixel_order):
    data = encode_order(pixel_order)
    holds(vector("pixel_order"), data)
    assert json.loads(data) == pixel_order.model_dump(mode="json", exclude_none=True)


def test_a_parcel_has_its_frozen_bytes():
    frozen = vector("parcel")
    parts = {name: bytes.fromhex(data) for name, data in frozen["parts"].items()}
    holds(frozen, wrap(parts))
    assert unwrap(bytes.fromhex(frozen["hex"])) == parts
