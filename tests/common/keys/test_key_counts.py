"""The file of released keys: what was written, or a refusal."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from common.errors import InputDataError
from common.keys import MixedRadix, reduced_bands
from common.keys.key_counts import KIND, KeyCounts, read_key_counts

UNTIMED = settings(deadline=None)
DIGITS = MixedRadix([2**32, 2**32], ["a", "b"])


def small():
    return KeyCounts(reduced_bands(), np.array([9, 4], np.uint64), np.array([2, 3]))


@UNTIMED
@given(
    st.dictionaries(st.integers(0, 2**64 - 1), st.integers(1, 2**63 - 1), min_size=1, max_size=30)
)
def test_keys_and_counts_survive_the_round_trip(found):
    keys, counts = np.array([*found], np.uint64), np.array([*found.values()], np.int64)
    value = KeyCounts(DIGITS, keys, counts)
    again = KeyCounts.from_bytes(value.to_bytes())
    assert dict(zip(again.keys.tolist(), again.counts.tolist(), strict=True)) == found
    assert again.to_bytes() == value.to_bytes()
    assert again.digits == DIGITS
    assert again.codec == DIGITS.identity


def test_the_order_of_the_keys_makes_no_difference():
    other = KeyCounts(reduced_bands(), np.array([4, 9], np.uint64), np.array([3, 2]))
    assert other.to_bytes() == small().to_bytes()


def test_estimates_are_rounded_and_must_be_finite():
    keys = np.array([1, 2], np.uint64)
    assert KeyCounts.of(DIGITS, keys, [2.4, 7.5]).counts.tolist() == [2, 8]
    for bad in (np.nan, np.inf, 0.2):
        with pytest.raises(InputDataError):
            KeyCounts.of(DIGITS, keys, [bad, 1.0])


@pytest.mark.parametrize(
    ("keys", "counts"),
    [
        (np.array([1, 1], np.uint64), np.array([1, 1])),
        (np.array([1, 22**8], np.uint64), np.array([1, 1])),
        (np.array([1, 2], np.int64), np.array([1, 1])),
        (np.array([1, 2], np.uint64), np.array([1, 0])),
        (np.array([1, 2], np.uint64), np.array([1.0, 1.0])),
        (np.array([1, 2], np.uint64), np.array([1])),
        (np.array([], np.uint64), np.array([], np.int64)),
    ],
)
def test_keys_and_counts_that_do_not_fit_are_refused(keys, counts):
    with pytest.raises(InputDataError, match="unusable keys and counts"):
        KeyCounts(reduced_bands(), keys, counts)


def header(**changes):
    digits = {"names": list(DIGITS.names), "radices": [str(r) for r in DIGITS.radices]}
    fields = {"codec": "c", "digits": digits, "version": 1} | changes
    return {KIND: json.dumps(fields, sort_keys=True, separators=(",", ":"))}


TWO = {"keys": np.array([1, 2], np.int64), "counts": np.array([1, 1], np.int64)}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x10",
        b"x" * 100,
        save(TWO),
        save(TWO, metadata={KIND: "not json"}),
        save(TWO, metadata=header(version=2)),
        save(TWO, metadata=header(digits=[])),
        save(TWO, metadata=header(digits={"names": ["a"], "radices": ["x"]})),
        save(TWO, metadata=header() | {"more": "text"}),
        save(TWO | {"more": np.zeros(3)}, metadata=header()),
        save({"keys": TWO["keys"]}, metadata=header()),
        save({"keys": TWO["keys"][::-1].copy(), "counts": TWO["counts"]}, metadata=header()),
        save(TWO | {"counts": np.array([1.0, 1.0])}, metadata=header()),
        save(TWO | {"keys": np.array([1, 2], np.uint64)}, metadata=header()),
        small().to_bytes() + b"\0",
    ],
)
def test_any_other_bytes_are_refused(data):
    with pytest.raises(InputDataError):
        KeyCounts.from_bytes(data)


def test_the_plain_header_that_the_refusals_vary_is_accepted():
    assert KeyCounts.from_bytes(save(TWO, metadata=header())).keys.tolist() == [1, 2]


def test_files_are_read_and_missing_ones_are_refused(tmp_path):
    path = tmp_path / "keys.safetensors"
    path.write_bytes(small().to_bytes())
    assert read_key_counts(path).counts.tolist() == [3, 2]
    with pytest.raises(InputDataError, match="FileNotFoundError"):
        read_key_counts(tmp_path / "none")
