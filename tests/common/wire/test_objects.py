"""What a Flower message holds, read by our own reader and written by Flower's."""

from __future__ import annotations

import hashlib
import io
import json

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from hypothesis import given
from hypothesis import strategies as st

from common.errors import RefusedError
from common.wire.codes import ReplyCode
from common.wire.objects import number_body, read_content
from common.wire.transport import CODE, MESSAGE_TYPE, PARCEL, RECORD

ABOUT = Metadata(
    run_id=9,
    message_id="",
    src_node_id=1,
    dst_node_id=77,
    reply_to_message_id="",
    group_id="",
    created_at=1.0,
    ttl=60.0,
    message_type=MESSAGE_TYPE,
)


def objects_of(message):
    return message.object_id, {
        name: thing.deflate() for name, thing in get_all_nested_objects(message).items()
    }


def carrying(array, record=RECORD, name=PARCEL):
    return objects_of(make_message(ABOUT, RecordDict({record: ArrayRecord({name: array})})))


def saved(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def put(kind, children, body):
    """One object as Flower writes one."""
    data = f"{kind} {','.join(children)} {len(body)}".encode() + b"\0" + body
    return hashlib.sha256(data).hexdigest(), data


def message_around(array_words, chunks):
    """A message whose array says whatever one likes of its chunks."""
    contents = dict(put("ArrayChunk", [], chunk) for chunk in chunks)
    array, data = put("Array", list(contents), json.dumps(array_words).encode())
    record, more = put("ArrayRecord", [array], json.dumps({PARCEL: array}).encode())
    whole, most = put("RecordDict", [record], json.dumps({RECORD: record}).encode())
    root, last = put("Message", [whole], b"")
    return root, contents | {array: data, record: more, whole: most, root: last}


@given(st.binary(max_size=200))
def test_a_parcel_as_flower_writes_it_is_read_back(parcel):
    assert read_content(*carrying(Array(np.frombuffer(parcel, np.uint8)))) == parcel


def test_a_parcel_of_several_chunks_some_of_them_equal_is_read_back():
    parcel = bytes(11 << 20) + b"end"
    assert read_content(*carrying(Array(np.frombuffer(parcel, np.uint8)))) == parcel


@pytest.mark.parametrize("code", list(ReplyCode))
def test_a_number_as_flower_writes_it_is_read_back(code):
    content = RecordDict({RECORD: ConfigRecord({CODE: int(code)})})
    assert read_content(*objects_of(make_message(ABOUT, content))) is code
    assert len(number_body(code)) < 64


def test_a_message_without_content_carries_nothing():
    assert read_content(*objects_of(make_message(ABOUT, error=Error(code=5, reason="x")))) is None


@pytest.mark.parametrize(
    "content",
    [
        RecordDict({}),
        RecordDict({RECORD: ConfigRecord({"patient": 1})}),
        RecordDict({RECORD: ConfigRecord({CODE: 99})}),
        RecordDict({RECORD: ConfigRecord({CODE: "a patient's name"})}),
        RecordDict({RECORD: ConfigRecord({CODE: 1, "more": 2})}),
        RecordDict({RECORD: ArrayRecord({PARCEL: Array(np.zeros(3, np.float32))})}),
        RecordDict({RECORD: ArrayRecord({PARCEL: Array(np.zeros((2, 2), np.uint8))})}),
        RecordDict({RECORD: ArrayRecord({"other": Array(np.zeros(3, np.uint8))})}),
        RecordDict({"other": ArrayRecord({PARCEL: Array(np.zeros(3, np.uint8))})}),
    ],
)
def test_whatever_else_flower_can_say_is_refused(content):
    with pytest.raises(RefusedError):
        read_content(*objects_of(make_message(ABOUT, content)))


HUGE = (
    b"\x93NUMPY\x01\x00"
    + (118).to_bytes(2, "little")
    + (b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999,), }".ljust(117) + b"\n")
)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        HUGE,
        saved(np.zeros(3)),
        saved(np.zeros(3, np.uint8)) + b"more",
        saved(np.zeros(3, np.uint8))[:-1],
        saved(np.zeros(3, np.uint8)).replace(b"(3,)", b"(-3,)"),
        saved(np.asfortranarray(np.zeros((2, 2), np.uint8))),
    ],
)
@pytest.mark.parametrize("shape", [[3], [99999999999999], [-3], []])
def test_an_array_that_is_not_one_row_of_bytes_is_refused(data, shape):
    words = {"dtype": "uint8", "shape": shape, "stype": "numpy.ndarray", "arraychunk_ids": [0]}
    with pytest.raises(RefusedError):
        read_content(*message_around(words, [data]))


@pytest.mark.parametrize(
    "words",
    [
        {"stype": "torch.Tensor"},
        {"dtype": "object"},
        {"shape": None},
        {"shape": [True, True, True]},
        {"arraychunk_ids": [-1]},
        {"arraychunk_ids": [1]},
        {"arraychunk_ids": "0"},
        {"more": 1},
    ],
)
def test_an_array_that_declares_something_else_is_refused(words):
    honest = {"dtype": "uint8", "shape": [3], "stype": "numpy.ndarray", "arraychunk_ids": [0]}
    data = saved(np.zeros(3, np.uint8))
    assert read_content(*message_around(honest, [data])) == bytes(3)
    with pytest.raises(RefusedError):
        read_content(*message_around(honest | words, [data]))


def test_one_chunk_named_a_hundred_thousand_times_is_not_put_together():
    words = {"dtype": "uint8", "shape": [3], "stype": "numpy.ndarray"}
    root, contents = message_around(words | {"arraychunk_ids": [0] * 100_000}, [bytes(5 << 20)])
    with pytest.raises(RefusedError):
        read_content(root, contents)


def test_an_object_that_is_missing_or_under_another_digest_is_refused():
    root, contents = carrying(Array(np.zeros(3, np.uint8)))
    for name in contents:
        with pytest.raises(RefusedError):
            read_content(root, {n: d for n, d in contents.items() if n != name})
        with pytest.raises(RefusedError):
            read_content(root, contents | {name: contents[name] + b" "})
