"""One spelling of every value that is signed or hashed, whichever way it was written."""

from __future__ import annotations

import json
from enum import IntEnum, StrEnum

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from common.canonical import canonical_json, parse_canonical_json
from common.errors import VerificationError

LARGEST = 2**53 - 1
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-LARGEST - 2, LARGEST + 2)
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | st.sampled_from(['\x7f\x00\x1f\u2028"\\/\b\f\n\r\t', "\ud800", "\U0001f600", "é"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


class Colour(StrEnum):
    RED = "red"


class Place(IntEnum):
    FIRST = 1


@given(values)
def test_every_value_is_written_as_rfc_8785_says_or_refused(value):
    try:
        expected = rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, ValueError, TypeError):
        with pytest.raises(VerificationError, match="no canonical JSON form"):
            canonical_json(value)
    else:
        assert canonical_json(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        {"\U0001f600": 1, "\ufb33": 2, "a": 3},
        {Colour.RED: Colour.RED, "b": Place.FIRST},
        {"control": "".join(map(chr, range(0x20))) + "\x7f\u2028\u2029"},
        [1.0, 1e21, -0.0, 5e-324],
        [],
        {},
        "",
    ],
)
def test_what_other_writers_spell_otherwise(value):
    assert canonical_json(value) == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "data", [b'{"b":1,"a":2}', b'{"a": 1}', b'{"a":1,"a":1}', b'"\\u0041"', b"1.0", b'"\\ud800"']
)
def test_another_spelling_of_the_same_is_not_read(data):
    json.loads(data)
    with pytest.raises(VerificationError):
        parse_canonical_json(data, "record")
