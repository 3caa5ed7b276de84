"""Digits read over the telephone: any spelling of enough of them agrees, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UsageError
from site_client.keys.aloud import LEAST_DIGITS, agrees, first_groups, groups, read_typed

fingerprints = st.text("0123456789abcdef", min_size=64, max_size=64)


@given(fingerprints, st.integers(LEAST_DIGITS, 64), st.sampled_from(["", " ", "-", ":", "\t"]))
def test_the_beginning_agrees_however_it_is_spelt(fingerprint, length, between):
    typed = between.join(groups(fingerprint[:length]).split()).upper()
    assert agrees(read_typed(typed), fingerprint)


@given(fingerprints, st.integers(0, LEAST_DIGITS - 1), st.integers(1, 15))
def test_one_wrong_digit_does_not_agree(fingerprint, place, by):
    wrong = f"{(int(fingerprint[place], 16) + by) % 16:x}"
    typed = fingerprint[:place] + wrong + fingerprint[place + 1 : LEAST_DIGITS]
    assert not agrees(read_typed(typed), fingerprint)


@given(fingerprints, st.integers(0, LEAST_DIGITS - 1))
def test_too_few_digits_are_no_fingerprint(fingerprint, length):
    with pytest.raises(UsageError):
        read_typed(fingerprint[:length])
    assert not agrees(fingerprint[:length], fingerprint)


@pytest.mark.parametrize("typed", ["yes", "y", "", "g" * 16, "0" * 65, "4f3a 91c2 77d0 e81z"])
def test_a_yes_is_no_fingerprint(typed):
    with pytest.raises(UsageError):
        read_typed(typed)


@given(fingerprints)
def test_groups_are_all_of_it(fingerprint):
    assert groups(fingerprint).replace(" ", "") == fingerprint
    assert first_groups(fingerprint).replace(" ", "") == fingerprint[:LEAST_DIGITS]
