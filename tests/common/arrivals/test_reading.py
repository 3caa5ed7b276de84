"""Texts, files and words from outside: bounded, of one meaning, and writable."""

from __future__ import annotations

import json
import os
import time
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.arrivals.boundary import UnforeseenError, any_failure_is, contained
from common.arrivals.files import read_bounded
from common.arrivals.quarantine import Quarantine
from common.arrivals.texts import MOST_DEPTH, is_shallow, json_of, toml_of
from common.canonical import canonical_json, parse_canonical_json
from common.errors import CairnError, InputDataError, RefusedError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
texts = st.text(st.characters(codec="utf-8"), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers(1 - 2**53, 2**53 - 1) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=40,
)


def depth_of(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    nested = isinstance(value, dict | list)
    return nested + max(map(depth_of, inner), default=0)


@settings(deadline=None)
@given(values)
def test_json_that_is_not_deep_is_read_as_it_was_written(value):
    data = json.dumps(value).encode()
    assert json_of(data) == value
    assert parse_canonical_json(canonical_json(value), "a value") == value


@settings(deadline=None)
@given(values, st.integers(1, 6))
def test_what_is_deeper_than_allowed_is_never_called_shallow(value, most):
    data = json.dumps(value, ensure_ascii=False).encode()
    assert is_shallow(data, most) == (depth_of(value) <= most)


@pytest.mark.parametrize("bracket", [b"[", b'{"a":'])
@pytest.mark.parametrize("count", [MOST_DEPTH + 1, 985, 100_000])
def test_no_depth_ends_a_reader(bracket, count):
    for data in (bracket * count, b'"[" ,' + bracket * count, b'"' + bracket * count):
        with pytest.raises(ValueError, match=r"deep|Expecting|Extra|Unterminated|delimiter"):
            json_of(data)
        with pytest.raises(CairnError):
            parse_canonical_json(data, "a value")


@pytest.mark.parametrize(
    "data",
    [
        b'"' + b'\\"' * 500_000,
        b"[" * 70 + b'"' + b'\\"' * 500_000,
        b"[" * 70 + b'"\\' * 300_000,
        b'[""' * 250_000,
    ],
)
def test_looking_for_depth_costs_no_more_than_the_text_is_long(data):
    began = time.process_time()
    assert not is_shallow(b"[" * 70 + data)
    with pytest.raises(ValueError):  # noqa: PT011 - any, and no other class
        json_of(data)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":2}',
        b"NaN",
        b"[Infinity]",
        b"1e999",
        b"[0, [-1e400]]",
        b'"\\ud800"',
        b'[{"a": ["\\uDBff."]}]',
        b'{"\\udfff":1}',
        b"\xed\xa0\x80",
        b"9" * 5000,
        b" " * (2 << 20),
        b"",
    ],
)
def test_json_of_two_meanings_or_none_is_refused(data):
    with pytest.raises(ValueError):  # noqa: PT011 - any, and no other class
        json_of(data)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=()), max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.text(st.characters(exclude_categories=()), max_size=3), inner)
        ),
        max_leaves=12,
    )
)
def test_json_of_what_can_be_written_is_read_and_half_a_pair_is_not(value):
    written = json.dumps(value)
    try:
        json.dumps(json.loads(written), ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        with pytest.raises(ValueError):  # noqa: PT011 - any, and no other class
            json_of(written.encode())
    else:
        assert json_of(written.encode()) == json.loads(written)


@pytest.mark.parametrize(
    "data",
    [
        b"x = " + b"[" * 100_000,
        b"x = " + b"{a=" * 5000,
        b"x = " + b"9" * 5000,
        b"x = 0x" + b"f" * 100_000,
        b"\xff = 1",
        b"x = 1\nx = 2",
        b"#" * (2 << 20),
    ],
)
def test_toml_that_python_trips_over_is_refused_as_toml(data):
    try:
        toml_of(data)
    except tomllib.TOMLDecodeError:
        return
    assert data.startswith(b"x = 0x"), "a number of any length is one, in hexadecimal"


def test_only_a_plain_file_of_its_size_is_read(tmp_path: Path):
    file = tmp_path / "file"
    file.write_bytes(bytes(100))
    assert read_bounded(file, 100, "a file") == bytes(100)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(file)
    with (tmp_path / "large").open("wb") as large:
        large.truncate(1 << 50)
    for name in ("pipe", "large", "."):
        with pytest.raises(InputDataError):
            read_bounded(tmp_path / name, 100, "a file")
    with pytest.raises(InputDataError):
        read_bounded(tmp_path / "link", 100, "a file", follow=False)
    assert read_bounded(tmp_path / "link", 100, "a file") == bytes(100)
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "absent", 100, "a file")


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 3000), max_size=30))
def test_a_quarantine_holds_no_more_than_it_may(tmp_path_factory, sizes):
    folder = tmp_path_factory.mktemp("aside")
    aside = Quarantine(folder, most_things=8, most_bytes=10_000)
    for number, size in enumerate(sizes):
        data = number.to_bytes(4, "big") + bytes(size)
        aside.put(data, RefusedError("no"), culprit="site-a", what="reply", now=NOW)
        things = list(folder.glob("*.bin"))
        assert len(things) <= 8
        assert sum(thing.stat().st_size for thing in things) <= 10_000
        assert len(aside.notes()) == len(things)


def test_a_quarantine_that_cannot_be_written_changes_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    note = Quarantine(tmp_path / "file" / "aside").put(
        b"x", RefusedError("no"), culprit="c", what="w", now=NOW
    )
    assert note.bytes == 1


@pytest.mark.parametrize("error", [ValueError, RecursionError, MemoryError, BufferError])
def test_a_boundary_declares_what_nobody_declared(error):
    with pytest.raises(UnforeseenError), contained("a test"):
        raise error("a patient's name")
    with pytest.raises(RefusedError), contained("a test"):
        raise RefusedError("as it is")
    with pytest.raises(error), contained("a test", error):
        raise error


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_wish_to_stop_is_never_held_up(stop):
    with pytest.raises(stop), contained("a test"):
        raise stop
    with pytest.raises(stop), any_failure_is(RefusedError("no")):
        raise stop


def test_a_librarys_panic_is_no_exception_and_is_contained_all_the_same():
    class PanicError(BaseException):
        """As a library in another language raises."""

    with pytest.raises(UnforeseenError), contained("a test"):
        raise PanicError
    with pytest.raises(RefusedError), any_failure_is(RefusedError("no")):
        raise PanicError


@given(st.text(st.characters(), max_size=50), st.text(st.characters(), max_size=50))
def test_an_error_can_be_written_down_whatever_its_words(field, got):
    error = RefusedError("no", field=field, got=got)
    str(error).encode("utf-8")
    json.dumps(error.as_dict(), ensure_ascii=False).encode("utf-8")
    assert "\x1b" not in str(error)
    assert "\u202e" not in str(error)
