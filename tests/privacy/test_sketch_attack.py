"""What count sketches hide from an aggregator, and what they do not: both are promises to keep.

The attack itself is `tests/benchmarks/sketch_attack.py`, here on a small federation.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from common.errors import SketchError
from common.sketching import CountSketch, SketchSpec

_PATH = Path(__file__).parents[1] / "benchmarks" / "sketch_attack.py"
_SPEC = importlib.util.spec_from_file_location("sketch_attack", _PATH)
attack = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(attack)

FREQUENT = 1_500
UNLIKELY = 1e-6  # the draws are fixed, so a verdict never changes from run to run


@pytest.fixture(scope="module")
def streams():
    return attack.made_up(np.random.default_rng(1), distinct=20_000)


@pytest.fixture(scope="module")
def spec():
    return SketchSpec(9, 16_384, attack.KEY, domain="pixels")


@pytest.fixture(scope="module")
def sites(spec, streams):
    return attack.tables(spec, streams)


@pytest.fixture(scope="module")
def whole(sites):
    return attack.merged(sites)


@pytest.fixture(scope="module")
def threshold(streams):
    return np.sort(streams.total)[::-1][FREQUENT - 1]


@pytest.fixture(scope="module")
def pool(streams, threshold):
    return attack.with_decoys(np.random.default_rng(2), streams, threshold, ratio=9)


def guess(spec, whole, pool, keys):
    return attack.guess(np.random.default_rng(3), spec, whole.table, *pool, keys)


def test_with_public_seeds_trying_keys_finds_the_frequent_ones(whole, streams, threshold):
    found = attack.enumerate_keys(np.random.default_rng(4), whole, streams, threshold, 200_000)
    assert found["frequent_keys"] >= FREQUENT
    assert found["recall"] > 0.95
    assert found["tried"] > 150_000
    assert found["false_among_tried"] < found["tried"] / 1_000


def test_the_bits_that_the_attack_tries_first_decide_as_the_sketch_does(whole, streams, threshold):
    for rows in (9, 8):
        spec = SketchSpec(rows, 2_048, attack.KEY)
        sketch = CountSketch(spec)
        sketch.update(streams.keys, streams.total)
        block = np.arange(5**9, 5**9 + 300_000, dtype=np.uint64)
        expected, _ = sketch.select(block, threshold)
        assert expected.size > 100
        assert np.array_equal(attack.Sieve(sketch, threshold).find(block), expected)


def test_with_public_seeds_prefix_tables_make_it_quick_and_complete(streams):
    found = attack.descend(SketchSpec(9, 16_384, attack.KEY), streams, top=200)
    assert found["recall"] > 0.95


def test_the_aggregators_own_spec_cannot_even_ask(whole, streams):
    blind = CountSketch.from_table(whole.spec.without_key(), whole.table)
    with pytest.raises(SketchError, match="the aggregator cannot query"):
        blind.estimate(streams.keys)


def test_the_right_key_shows_that_the_attack_would_see(spec, whole, pool):
    found = guess(spec, whole, pool, [attack.KEY])
    assert found["mean_recall"] > 0.95
    assert attack.two_sided(found["z_finds"]) < 1e-100
    assert attack.two_sided(found["z_ranks"]) < 1e-100


@pytest.mark.parametrize("kind", ["random", "one bit wrong", "public bytes"])
def test_guessed_keys_do_not_beat_chance(spec, whole, pool, kind):
    keys = attack.guessed_keys(np.random.default_rng(5), attack.KEY, 60)[kind]
    assert attack.KEY not in keys
    assert len(keys) == len(set(keys)) == (5 if kind == "public bytes" else 60)
    found = guess(spec, whole, pool, keys)
    assert found["list_length"] >= FREQUENT
    assert attack.two_sided(found["z_finds"]) > UNLIKELY
    assert attack.two_sided(found["z_ranks"]) > UNLIKELY
    assert found["best_recall"] < 2 * found["chance_recall"]


def test_the_right_key_in_another_domain_does_not_beat_chance(whole, pool):
    other = SketchSpec(9, 16_384, attack.KEY, domain="experience")
    found = guess(other, whole, pool, [attack.KEY])
    assert attack.two_sided(found["z_finds"]) > UNLIKELY
    assert attack.two_sided(found["z_ranks"]) > UNLIKELY


def test_a_weak_attack_would_be_told_from_chance(spec, whole, pool):
    """The test has power: a list only a tenth better than blind is found out."""
    found = guess(spec, whole, pool, [bytes([n]) * 16 for n in range(60)])
    better = found["z_finds"] + 0.1 * found["chance_recall"] * _finds_per_recall(found)
    assert attack.two_sided(better) < UNLIKELY


def _finds_per_recall(found):
    """How far the z score of the finds moves per unit of recall, over all guesses."""
    total, length = found["candidates"], found["list_length"]
    blind = length * length / total
    variance = blind * (1 - length / total) * (total - length) / (total - 1)
    return length / np.sqrt(variance) * np.sqrt(found["guesses"])


def test_keyed_tables_still_tell_this_much(sites, streams):
    told = attack.leaks(sites, streams)
    assert told["F2"]["ratio"] == pytest.approx(1, abs=0.05)
    for pair in ("0 and 1", "0 and 2", "1 and 2"):
        assert told[f"cosine of sites {pair}"]["ratio"] == pytest.approx(1, abs=0.1)
    assert told["distinct keys, all"]["ratio"] == pytest.approx(1, abs=0.15)
    for rank in (1, 10, 100):
        assert told[f"count of rank {rank}"]["ratio"] == pytest.approx(1, abs=0.1)


def test_what_keyed_tables_tell_is_told_without_the_key(sites, streams):
    bare = [CountSketch.from_table(sketch.spec.without_key(), sketch.table) for sketch in sites]
    assert attack.leaks(bare, streams) == attack.leaks(sites, streams)


@pytest.mark.skipif(
    not attack.FIELDS.is_dir(), reason="tumour fields are not beside the checkout (shared/data)"
)
@pytest.mark.slow
def test_real_pixels_are_found_with_public_seeds_and_hidden_by_a_key():
    found = attack.attack(
        np.random.default_rng(6), attack.real_pixels(), 15, 100_000, 1 << 22, 10, top=5_000
    )
    assert found["tier_0_enumeration"]["recall"] > 0.9
    assert found["right_key_as_control"]["mean_recall"] > 0.9
    for guesses in found["tier_1"].values():
        assert attack.two_sided(guesses["z_finds"]) > UNLIKELY
        assert attack.two_sided(guesses["z_ranks"]) > UNLIKELY
