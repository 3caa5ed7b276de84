"""Experience tuples as keys: equal quantised steps, equal keys, at every site."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputDataError
from common.keys import ExperienceCodec

UNTIMED = settings(deadline=None)
CODEC = ExperienceCodec(landmarks=3, levels=3, actions=6, position_bins=24, reward_bins=5)


def experiences(rng, n):
    return {
        "landmark": rng.integers(0, 3, n),
        "level": rng.integers(0, 3, n),
        "position": rng.random((n, 3)),
        "action": rng.integers(0, 6, n),
        "reward": rng.uniform(-1, 1, n),
        "next_position": rng.random((n, 3)),
    }


@UNTIMED
@given(st.integers(0, 2**32), st.integers(0, 40))
def test_a_key_decodes_to_the_bins_it_was_made_of(seed, n):
    given_ = experiences(np.random.default_rng(seed), n)
    keys = CODEC.encode(**given_)
    back = CODEC.decode(keys)
    for name in ("landmark", "level", "action"):
        assert np.array_equal(getattr(back, name), given_[name])
    assert np.all(np.abs(back.position - given_["position"]) <= 0.5 / 24 + 1e-12)
    assert np.all(np.abs(back.next_position - given_["next_position"]) <= 0.5 / 24 + 1e-12)
    assert np.all(np.abs(back.reward - given_["reward"]) <= 1 / 5 + 1e-12)
    assert np.array_equal(CODEC.encode(**back._asdict()), keys)


@UNTIMED
@given(st.integers(1, 64), st.integers(1, 16))
def test_bin_centres_always_fall_into_their_own_bin(position_bins, reward_bins):
    codec = ExperienceCodec(1, 1, 1, position_bins, reward_bins)
    centres = (np.arange(position_bins) + 0.5) / position_bins
    rewards = (np.arange(reward_bins) + 0.5) * (2 / reward_bins) - 1
    n = max(position_bins, reward_bins)
    zero = np.zeros(n, np.int64)
    positions = np.repeat(np.resize(centres, n)[:, None], 3, axis=1)
    keys = codec.encode(zero, zero, positions, zero, np.resize(rewards, n), positions)
    back = codec.decode(keys)
    assert np.allclose(back.position, positions, atol=1e-12)
    assert np.allclose(back.reward, np.resize(rewards, n), atol=1e-12)


def test_the_ends_of_every_range_belong_to_the_outer_bins():
    one = np.ones((1, 3))
    zero = np.zeros(1, np.int64)
    top = CODEC.encode(zero + 2, zero + 2, one, zero + 5, [1.0], one)
    bottom = CODEC.encode(zero, zero, 0 * one, zero, [-1.0], 0 * one)
    assert bottom[0] == 0
    assert top[0] == CODEC.digits.size - 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("position", np.full((2, 3), 1.01)),
        ("position", np.full((2, 3), np.nan)),
        ("position", np.zeros((2, 2))),
        ("next_position", np.full((2, 3), -0.1)),
        ("reward", np.array([0.0, 1.5])),
        ("reward", np.array([0.0, np.inf])),
        ("action", np.array([0, 6])),
        ("landmark", np.array([0, 3])),
        ("level", np.array([0, -1])),
        ("level", np.array([0.0, 1.0])),
        ("action", np.array([0])),
    ],
)
def test_what_lies_outside_is_refused_by_name(name, value):
    given_ = experiences(np.random.default_rng(1), 2) | {name: value}
    with pytest.raises(InputDataError) as refusal:
        CODEC.encode(**given_)
    assert refusal.value.field == name


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ((64, 6, 6, 4096, 16), "position_bins"),
        ((2**40, 6, 6, 24, 16), "landmarks"),
        ((3, 3, 2**50, 24, 5), "actions"),
    ],
)
def test_a_codec_beyond_64_bits_names_what_to_shrink(sizes, named):
    with pytest.raises(InputDataError, match="do not fit into 64 bits") as refusal:
        ExperienceCodec(*sizes)
    assert refusal.value.field == named


def test_the_largest_plan_fits():
    assert ExperienceCodec(64, 6, 6, 64, 16).digits.size < 2**64


def test_identities_differ_with_every_argument():
    base = (3, 3, 6, 24, 5)
    variants = [base] + [tuple(v + (i == j) for j, v in enumerate(base)) for i in range(5)]
    assert len({ExperienceCodec(*sizes).identity for sizes in variants}) == 6
    assert CODEC.identity == ("e2fb2ce911eae1e0ea44a07c8c9afe776eb69378aacd23fae05dcd591b62790a")
