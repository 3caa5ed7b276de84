"""Several messages in one: what was put together comes apart, and nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import RefusedError
from common.wire.several import MOST_BYTES, MOST_PIECES, Several, fits, join, split


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=MOST_PIECES))
def test_what_was_put_together_comes_apart(parts):
    assert split(join(parts)) == parts


@given(st.binary(max_size=400))
def test_bytes_are_several_messages_in_one_way_or_not_at_all(data):
    try:
        parts = split(data)
    except RefusedError:
        return
    assert join(parts) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0",
        b"\0\0\0\2a",
        join([b"a"]) + b"\0",
        b"\xff\xff\xff\xff",
        join([b""] * (MOST_PIECES + 1)),
    ],
)
def test_what_is_not_several_messages_is_refused(data):
    with pytest.raises(RefusedError, match="each behind its length"):
        split(data)


def test_flowers_client_takes_it_for_a_message():
    sent = Several([b"one", b"two"])
    came = Several()
    came.ParseFromString(sent.SerializeToString(deterministic=True))
    assert came.parts == [b"one", b"two"]


def test_few_large_pieces_and_single_ones_travel_alone():
    assert fits([1, MOST_BYTES - 1])
    assert not fits([1, MOST_BYTES])
    assert not fits([1])
    assert not fits([1] * (MOST_PIECES + 1))
