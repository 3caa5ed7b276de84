"""Situations as keys: equal situations, equal keys, at every site."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputDataError
from common.keys import OffsetCodec, PlaceCodec

UNTIMED = settings(deadline=None)
OFFSET = OffsetCodec(landmarks=3, levels=3, actions=6, axes=3, reach_steps=6)
PLACE = PlaceCodec(landmarks=3, levels=3, position_bins=24)


def by_offset(rng, n):
    return {
        "landmark": rng.integers(0, 3, n),
        "level": rng.integers(0, 3, n),
        "steps": rng.normal(0, 5, (n, 3)),
        "action": rng.integers(0, 6, n),
    }


def by_place(rng, n):
    return {
        "landmark": rng.integers(0, 3, n),
        "level": rng.integers(0, 3, n),
        "position": rng.random((n, 3)),
    }


@UNTIMED
@given(st.integers(0, 2**32), st.integers(0, 40))
def test_a_key_decodes_to_what_it_was_made_of(seed, n):
    given_ = by_offset(np.random.default_rng(seed), n)
    keys = OFFSET.encode(**given_)
    back = OFFSET.decode(keys)
    for name in ("landmark", "level", "action"):
        assert np.array_equal(getattr(back, name), given_[name])
    assert np.array_equal(back.steps, np.clip(np.rint(given_["steps"]), -6, 6))
    assert np.array_equal(OFFSET.encode(**back._asdict()), keys)
    given_ = by_place(np.random.default_rng(seed), n)
    keys = PLACE.encode(**given_)
    back = PLACE.decode(keys)
    assert np.array_equal(back.landmark, given_["landmark"])
    assert np.array_equal(back.level, given_["level"])
    assert np.all(np.abs(back.position - given_["position"]) <= 0.5 / 24 + 1e-12)
    assert np.array_equal(PLACE.encode(**back._asdict()), keys)


@pytest.mark.parametrize("axes", [1, 2, 3, 6])
def test_the_same_way_from_the_target_is_the_same_key_wherever_it_is(axes):
    codec = OffsetCodec(1, 1, 2 * axes, axes, 4)
    zero = np.zeros(3, np.int64)
    steps = np.zeros((3, axes))
    steps[:, 0] = [2.4, 1.6, -40.0]
    keys = codec.encode(zero, zero, steps, zero)
    assert keys[0] == keys[1] != keys[2]
    assert codec.decode(keys).steps[:, 0].tolist() == [2, 2, -4]


def test_the_ends_of_every_range_belong_to_the_outer_bins():
    zero = np.zeros(1, np.int64)
    assert OFFSET.encode(zero, zero, np.full((1, 3), -99.0), zero)[0] == 0
    top = OFFSET.encode(zero + 2, zero + 2, np.full((1, 3), 99.0), zero + 5)
    assert top[0] == OFFSET.digits.size - 1
    assert PLACE.encode(zero, zero, np.zeros((1, 3)))[0] == 0
    assert PLACE.encode(zero + 2, zero + 2, np.ones((1, 3)))[0] == PLACE.digits.size - 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", np.full((2, 3), np.nan)),
        ("steps", np.full((2, 3), np.inf)),
        ("steps", np.zeros((2, 2))),
        ("action", np.array([0, 6])),
        ("action", np.array([0])),
        ("landmark", np.array([0, 3])),
        ("level", np.array([0, -1])),
        ("level", np.array([0.0, 1.0])),
        ("position", np.full((2, 3), 1.01)),
        ("position", np.full((2, 3), np.nan)),
        ("position", np.zeros((2, 2))),
    ],
)
def test_what_lies_outside_is_refused_by_name(name, value):
    make, codec = (by_place, PLACE) if name == "position" else (by_offset, OFFSET)
    given_ = make(np.random.default_rng(1), 2) | {name: value}
    with pytest.raises(InputDataError) as refusal:
        codec.encode(**given_)
    assert refusal.value.field == name


@pytest.mark.parametrize(
    ("codec", "sizes", "named"),
    [
        (OffsetCodec, (64, 6, 12, 12, 32), "reach_steps"),
        (OffsetCodec, (2**48, 6, 6, 3, 32), "landmarks"),
        (PlaceCodec, (64, 6, 2**20), "position_bins"),
        (OffsetCodec, (1, 1, 1, 1, 0), "reach_steps"),
        (PlaceCodec, (1, 0, 1), "levels"),
    ],
)
def test_a_codec_that_cannot_be_names_what_to_change(codec, sizes, named):
    with pytest.raises(InputDataError) as refusal:
        codec(*sizes)
    assert refusal.value.field == named


def test_the_largest_plans_fit():
    assert OffsetCodec(64, 6, 13, 6, 32).digits.size < 2**64
    assert PlaceCodec(64, 6, 64).digits.size < 2**64


def test_identities_differ_with_every_argument():
    base = (3, 3, 6, 3, 6)
    variants = [base] + [tuple(v + (i == j) for j, v in enumerate(base)) for i in range(5)]
    identities = {OffsetCodec(*sizes).identity for sizes in variants}
    identities |= {PlaceCodec(3, 3, bins).identity for bins in (23, 24)}
    assert len(identities) == 8
