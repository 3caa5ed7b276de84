"""Digits to keys and back: a bijection, or a refusal."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputDataError
from common.keys import MixedRadix, all_bands, reduced_bands

UNTIMED = settings(deadline=None)


def codec(radices):
    return MixedRadix(radices, [f"d{i}" for i in range(len(radices))])


@st.composite
def codecs(draw):
    radices = draw(st.lists(st.integers(1, 2**20), min_size=1, max_size=8))
    while math.prod(radices) > 2**64:
        radices.pop()
    return codec(radices)


@st.composite
def codecs_with_digits(draw):
    chosen = draw(codecs())
    row = st.tuples(*[st.integers(0, radix - 1) for radix in chosen.radices])
    rows = draw(st.lists(row, max_size=20))
    return chosen, np.array(rows, np.uint64).reshape(-1, len(chosen.radices))


@UNTIMED
@given(codecs_with_digits())
def test_digits_survive_the_round_trip(case):
    chosen, digits = case
    keys = chosen.encode(digits)
    assert keys.dtype == np.uint64
    assert np.array_equal(chosen.decode(keys), digits)


@UNTIMED
@given(codecs(), st.data())
def test_keys_below_size_survive_the_round_trip(chosen, data):
    numbers = data.draw(st.lists(st.integers(0, chosen.size - 1), max_size=20))
    keys = np.array(numbers, np.uint64)
    assert np.array_equal(chosen.encode(chosen.decode(keys)), keys)


def test_every_key_of_a_small_codec_is_used_exactly_once():
    chosen = codec([3, 1, 4, 5])
    grid = np.stack(np.meshgrid(*[np.arange(r) for r in chosen.radices]), -1).reshape(-1, 4)
    assert sorted(chosen.encode(grid).tolist()) == list(range(chosen.size))


def test_the_first_digit_is_the_least_significant_and_prefixes_divide():
    chosen = codec([22] * 8)
    digits = np.array([[1, 2, 3, 4, 5, 6, 7, 8]])
    key = chosen.encode(digits)
    assert key[0] == sum(d * 22**i for i, d in enumerate(digits[0].tolist()))
    assert key[0] // 22**2 == codec([22] * 6).encode(digits[:, 2:])[0]


def test_all_64_bits_can_be_used():
    for chosen in (codec([2**64]), codec([2**32, 2**32]), codec([1, 2**63, 2])):
        top = np.array([2**64 - 1], np.uint64)
        assert np.array_equal(chosen.encode(chosen.decode(top)), top)


def test_pixel_codecs_have_the_published_sizes():
    assert reduced_bands().size == 22**8
    assert all_bands().size == 3**35 < 2**64
    with pytest.raises(InputDataError, match="does not fit into 64 bits"):
        all_bands(bands=41)


def test_identity_is_frozen_and_tells_radices_and_names_apart():
    assert MixedRadix([2, 3], ["a", "b"]).identity == MixedRadix((2, 3), ("a", "b")).identity
    others = {
        codec_.identity
        for codec_ in (
            MixedRadix([2, 3], ["a", "b"]),
            MixedRadix([3, 2], ["a", "b"]),
            MixedRadix([2, 3], ["b", "a"]),
        )
    }
    assert len(others) == 3
    assert reduced_bands().identity == (
        "60dd70268b74e5d248f756fdf097f8060945edb2a3c9b98d06a22c44855af93e"
    )


@pytest.mark.parametrize(
    ("radices", "names"),
    [([], []), ([0], ["a"]), ([2.0], ["a"]), ([2], []), ([2, 2], ["a", "a"]), ([2**33] * 2, "ab")],
)
def test_codecs_that_make_no_sense_are_refused(radices, names):
    with pytest.raises(InputDataError):
        MixedRadix(radices, names)


@pytest.mark.parametrize(
    "digits",
    [
        np.array([[3, 0]]),
        np.array([[0, -1]]),
        np.array([[0.0, 1.0]]),
        np.array([0, 1]),
        np.array([[0, 1, 2]]),
    ],
)
def test_digits_out_of_range_or_shape_are_refused(digits):
    with pytest.raises(InputDataError):
        codec([3, 4]).encode(digits)


@pytest.mark.parametrize("keys", [np.array([12], np.uint64), np.array([1]), np.uint64(1)])
def test_keys_of_another_codec_or_type_are_refused(keys):
    with pytest.raises(InputDataError):
        codec([3, 4]).decode(keys)
