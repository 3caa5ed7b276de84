"""A parcel accounts for every byte of itself."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import CairnError, RefusedError
from common.wire.parcel import MAX_PARTS, unwrap, wrap, wrapped_bytes

PARTS = st.dictionaries(
    st.from_regex(r"[A-Za-z][A-Za-z0-9._-]{0,20}", fullmatch=True),
    st.binary(max_size=60),
    max_size=5,
)


@given(PARTS)
def test_what_was_wrapped_is_unwrapped_in_its_order(parts):
    assert list(unwrap(wrap(parts)).items()) == list(parts.items())


@settings(deadline=None)
@given(PARTS)
def test_how_long_a_parcel_will_be_is_known_from_its_parts_lengths(parts):
    assert wrapped_bytes({name: len(part) for name, part in parts.items()}) == len(wrap(parts))


@given(PARTS, st.data())
def test_any_changed_byte_is_refused(parts, data):
    good = wrap(parts)
    position = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[position] ^= data.draw(st.integers(1, 255))
    try:
        found = unwrap(bytes(bad))
    except CairnError:
        return
    # Only the name of a part can change without a trace, and it then is another valid name.
    assert wrap(found) == bytes(bad)
    assert list(found.values()) == list(parts.values())


@given(PARTS, st.binary(min_size=1, max_size=9))
def test_trailing_bytes_are_refused(parts, junk):
    with pytest.raises(RefusedError, match="more than it declares"):
        unwrap(wrap(parts) + junk)


@given(PARTS.filter(bool), st.integers(1, 30))
def test_a_cut_parcel_is_refused(parts, cut):
    with pytest.raises(CairnError):
        unwrap(wrap(parts)[:-cut])


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_and_never_crash(junk):
    with pytest.raises(CairnError):
        unwrap(junk)


def test_a_name_that_could_be_a_path_is_refused():
    for name in ("../x", "a/b", "", ".hidden", "a" * 65):
        with pytest.raises(RefusedError, match="not a parcel"):
            unwrap(wrap({name: b"x"}))


def test_more_parts_than_allowed_are_refused():
    with pytest.raises(RefusedError, match="not a parcel"):
        unwrap(wrap({f"p{i}": b"" for i in range(MAX_PARTS + 1)}))


def test_a_name_given_twice_is_refused():
    one = wrap({"a": b"x"})
    line, _, rest = one.partition(b"\n")
    entry = line[len(b'{"parts":[') : -2]
    doubled = b'{"parts":[' + entry + b"," + entry + b"]}\n" + rest + rest
    with pytest.raises(RefusedError, match="changed on its way"):
        unwrap(doubled)
