"""A sum holds for exactly the sites, round, run, history and key that it is of."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.crypto.keyed import FederationKey
from common.errors import CairnError, InternalError, RefusedError
from common.sums.addition import Addition, add_records, decode_sum, encode_sum, verify_sum
from common.sums.field import PRIME
from common.sums.summand import Summand, summand_of
from common.sums.tags import add_tags, holds, make_tag
from common.wire.envelope import Envelope, pack, unpack
from tests.common.sums.conftest import KEY, LINK, SITES, records, tag

int64s = st.integers(-(2**63), 2**63 - 1)


def test_the_sum_of_what_honest_sites_sent_holds(total):
    verify_sum(total, KEY, LINK)
    verify_sum(decode_sum(encode_sum(total)), KEY, LINK)
    assert total.groups["ModelUpdate"].members == SITES
    assert total.groups["ModelUpdate"].summand.counts == {"samples": 9}


@given(st.sets(st.sampled_from(["a", "b", "c", "d", "e"]), min_size=1), st.integers(0, 2**32))
@settings(max_examples=30)
def test_any_set_of_honest_sites_has_a_sum_that_holds(sites, seed):
    answers = {site: records(site, seed) for site in sites}
    verify_sum(add_records("run-1", 4, answers), KEY, LINK)


GROUPED = ("a", "b", "c", "d", "e")


@given(st.lists(st.integers(0, 5), min_size=5, max_size=5), st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_any_grouping_of_sites_into_parts_gives_the_same_bytes(places, seed):
    """Place 0 is the aggregator itself; every other one is a relay, whose sum travels."""
    answers = {site: records(site, seed) for site in GROUPED}
    addition = Addition("run-1", 4)
    for place in sorted(set(places)):
        mine = {s: answers[s] for s, at in zip(GROUPED, places, strict=True) if at == place}
        if place:
            addition.add_sum(decode_sum(encode_sum(add_records("run-1", 4, mine))))
            continue
        for site, envelopes in sorted(mine.items()):
            for envelope in envelopes:
                addition.add(site, envelope)
    whole = addition.total()
    verify_sum(whole, KEY, LINK)
    assert encode_sum(whole) == encode_sum(add_records("run-1", 4, answers))


def test_a_part_that_does_not_belong_is_not_added():
    mine = {site: records(site, 1) for site in "ab"}
    part = add_records("run-1", 4, mine)
    for other in (replace(part, run="run-2"), replace(part, round=5)):
        with pytest.raises(InternalError, match="another sum"):
            Addition("run-1", 4).add_sum(other)
    addition = Addition("run-1", 4)
    addition.add("b", mine["b"][0])
    with pytest.raises(InternalError, match="each once: b"):
        addition.add_sum(part)
    addition = Addition("run-1", 4)
    addition.add_sum(part)
    with pytest.raises(InternalError, match="each once: a"):
        addition.add_sum(part)
    with pytest.raises(InternalError, match="each once: b"):
        addition.add("b", mine["b"][0])


def test_parts_that_would_wrap_together_are_refused_and_each_may_hold(total):
    group = total.groups["SketchTable"]
    table = np.full_like(group.summand.arrays["table"], 2**61)
    near = replace(group, summand=Summand(group.summand.counts, {"table": table}))
    addition = Addition(total.run, total.round)
    addition.add_sum(replace(total, groups={"SketchTable": near}))
    other = replace(near, members=("x", "y"))
    with pytest.raises(RefusedError, match="overflow"):
        addition.add_sum(replace(total, groups={"SketchTable": other}))


@given(st.lists(st.tuples(int64s, int64s), min_size=1, max_size=40))
@settings(max_examples=50)
def test_a_tag_is_linear_in_its_vector_over_all_of_int64(pairs):
    first, second = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    halves = [(first >> 1), (second >> 1)]
    tags = [make_tag(KEY, "c", site, [x]) for site, x in zip("ab", halves, strict=True)]
    assert holds(KEY, "c", "ab", [halves[0] + halves[1]], add_tags(tags))
    one = make_tag(KEY, "c", "a", [first])
    assert holds(KEY, "c", "a", [first], one)
    assert not holds(KEY, "c", "a", [first], (one + 1) % PRIME)


@given(st.integers(1, 70_000), st.integers(1, 2000))
@settings(max_examples=20, deadline=None)
def test_a_tag_does_not_depend_on_how_a_vector_is_cut_into_pieces(n, piece):
    vector = np.arange(n, dtype=np.int64) * 7919 - 12345
    pieces = [vector[i : i + max(piece, n // 50)] for i in range(0, n, max(piece, n // 50))]
    assert make_tag(KEY, "c", "a", pieces) == make_tag(KEY, "c", "a", [vector])


def altered(total, kind, name, index, by):
    group = total.groups[kind]
    arrays = {n: a.copy() for n, a in group.summand.arrays.items()}
    arrays[name].reshape(-1)[index] += by
    summand = Summand(group.summand.counts, arrays)
    return replace(total, groups=total.groups | {kind: replace(group, summand=summand)})


def refused(total, key=KEY, link=LINK):
    with pytest.raises(RefusedError, match="does not hold"):
        verify_sum(total, key, link)
    return True


def test_one_unit_in_one_coordinate_is_refused(total):
    assert refused(altered(total, "ModelUpdate", "a", 3, 1))
    assert refused(altered(total, "SketchTable", "table", 0, -1))


def test_one_more_sample_or_key_is_refused(total):
    for kind, name in (("ModelUpdate", "samples"), ("SketchTable", "total")):
        group = total.groups[kind]
        counts = {name: group.summand.counts[name] + 1}
        bent = replace(group, summand=Summand(counts, group.summand.arrays))
        assert refused(replace(total, groups=total.groups | {kind: bent}))


def test_a_doubled_site_is_refused_however_it_is_named(answers, total):
    for kind in total.groups:
        group, twice = total.groups[kind], add_records("run-1", 4, {"north": answers["north"]})
        own = twice.groups[kind]
        arrays = {n: a + own.summand.arrays[n] for n, a in group.summand.arrays.items()}
        counts = {n: c + own.summand.counts[n] for n, c in group.summand.counts.items()}
        tags = add_tags([group.tag, own.tag])
        for members in (SITES, (*SITES, "north"), (*SITES, "south")):
            bent = replace(group, members=members, summand=Summand(counts, arrays), tag=tags)
            assert refused(replace(total, groups=total.groups | {kind: bent}))


def test_a_missing_site_is_refused_unless_the_set_says_so(answers, total):
    rest = {site: answers[site] for site in ("east", "west")}
    honest = add_records("run-1", 4, rest)
    verify_sum(honest, KEY, LINK)
    claimed = {kind: replace(group, members=SITES) for kind, group in honest.groups.items()}
    assert refused(replace(honest, groups=claimed))
    fewer = {kind: replace(group, members=("east", "west")) for kind, group in total.groups.items()}
    assert refused(replace(total, groups=fewer))


def test_another_rounds_or_runs_sum_is_refused(answers):
    assert refused(add_records("run-1", 5, answers))
    assert refused(add_records("run-2", 4, answers))


def test_a_sum_of_sites_that_saw_another_history_is_refused(answers, total):
    assert refused(total, link="ac" * 32)
    strayed = answers | {"west": records("west", link="ac" * 32)}
    assert refused(add_records("run-1", 4, strayed))


def test_a_group_of_another_kind_cannot_stand_in(total):
    swapped = {
        "SketchTable": total.groups["ModelUpdate"],
        "ModelUpdate": total.groups["SketchTable"],
    }
    assert refused(replace(total, groups=swapped))


def test_a_site_cannot_be_named_for_what_another_one_sent(answers):
    stolen = [tag(e, as_site="north") for e in answers["west"]]
    assert refused(add_records("run-1", 4, answers | {"west": stolen}))


def test_without_the_key_a_tag_is_a_guess(answers):
    other = FederationKey(bytes(range(16)))
    assert refused(add_records("run-1", 4, {s: records(s, key=other) for s in SITES}))


@pytest.mark.parametrize("rounds", [500, pytest.param(12_500, marks=pytest.mark.slow)])
def test_none_of_a_hundred_thousand_altered_sums_passes(rounds):
    """Seeded tries of every kind that an aggregator without the key can make."""
    rng = np.random.default_rng(20241)
    vectors = {site: rng.integers(-(2**40), 2**40, 12) for site in "abcd"}
    tags = {site: make_tag(KEY, "c", site, [x]) for site, x in vectors.items()}
    passed = tries = 0
    for _ in range(rounds):
        members = sorted(rng.choice(list("abcd"), rng.integers(1, 5), replace=False))
        honest = np.sum([vectors[s] for s in members], axis=0)
        tag_sum = add_tags(tags[s] for s in members)
        other = [s for s in "abcd" if s not in members] or ["a"]
        spoilt = honest.copy()
        spoilt[rng.integers(12)] += rng.choice([-1, 1]) * 2 ** int(rng.integers(40))
        forged = [
            (members, spoilt, tag_sum),
            (members, honest * 2, tag_sum * 2 % PRIME),
            (members, honest + vectors[members[0]], add_tags([tag_sum, tags[members[0]]])),
            (other, honest, tag_sum),
            (members, honest, int(rng.integers(PRIME))),
            (members, rng.integers(-(2**40), 2**40, 12), tag_sum),
            (members, np.roll(honest, 1), tag_sum),
            (members, -honest, (PRIME - tag_sum) % PRIME),
        ]
        assert holds(KEY, "c", members, [honest], tag_sum)
        passed += sum(holds(KEY, "c", who, [x], t) for who, x, t in forged)
        tries += len(forged)
    assert (tries, passed) == (8 * rounds, 0)


def test_two_sums_under_one_pad_tell_a_third_one_nothing():
    """Tags of one context are one-time: the worker answers a round once (test_history)."""
    x, y = np.arange(5), np.arange(5) * 3 - 4
    tx, ty = (make_tag(KEY, "c", "a", [v]) for v in (x, y))
    # Knowing both, the difference of the tags is the tag of the difference without a pad ...
    assert holds(KEY, "c", [], [x - y], (tx - ty) % PRIME)
    # ... so under another context nothing of it is left.
    assert not holds(KEY, "d", [], [x - y], (tx - ty) % PRIME)


@pytest.mark.parametrize(
    "bend",
    [
        lambda m, a: (m | {"message": "Order"}, a),
        lambda m, a: (m | {"extra": 1}, a),
        lambda m, a: (m | {"groups": {}}, a),
        lambda m, a: (m, a | {"weights": np.zeros(3, np.int64)}),
        lambda m, a: (m, {n: v.astype(np.int32) for n, v in a.items()}),
    ],
)
def test_what_is_no_sum_is_refused_when_read(total, bend):
    metadata, arrays = unpack(encode_sum(total))
    with pytest.raises(CairnError):
        decode_sum(pack(*bend(metadata, arrays)))


@pytest.mark.parametrize("members", [["west", "east"], ["east", "east"], []])
def test_a_set_out_of_order_or_with_a_site_twice_is_refused_when_read(total, members):
    metadata, arrays = unpack(encode_sum(total))
    metadata["groups"]["SketchTable"]["members"] = members
    with pytest.raises(RefusedError):
        decode_sum(pack(metadata, arrays))


def test_a_sum_that_would_overflow_is_refused(answers):
    huge = np.full((2, 8), 2**61, np.int64)
    sketch = answers["east"][1]
    bent = Envelope(sketch.record, {"table": huge})
    with pytest.raises(RefusedError, match="overflow"):
        add_records("run-1", 4, {"east": [bent], "west": [bent]})
    least = Envelope(sketch.record, {"table": np.full((2, 8), -(2**63), np.int64)})
    with pytest.raises(RefusedError, match="overflow"):
        add_records("run-1", 4, {"east": [least]})


def test_adding_one_by_one_is_adding_all_at_once(answers, total):
    """In any number of steps: the bytes that sites are sent do not tell how they were added."""
    addition = Addition("run-1", 4)
    for kind in (1, 0):
        for site in sorted(answers):
            addition.add(site, answers[site][kind])
    assert encode_sum(addition.total()) == encode_sum(total)
    weights = [summand_of(answers[site][0]).arrays["a"] for site in SITES]
    group = total.group("ModelUpdate").summand
    np.testing.assert_array_equal(group.arrays["a"], np.sum(weights, axis=0, dtype=np.int64))


def test_an_addition_keeps_nothing_of_what_it_was_given(answers):
    addition = Addition("run-1", 4)
    update = answers["east"][0]
    addition.add("east", update)
    before = {name: array.copy() for name, array in update.arrays.items()}
    addition.add("north", answers["north"][0])
    for name, array in update.arrays.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("order", [("north", "east"), ("east", "east")])
def test_sites_out_of_order_or_twice_are_not_added(answers, order):
    addition = Addition("run-1", 4)
    addition.add(order[0], answers[order[0]][0])
    with pytest.raises(InternalError, match="in order of name"):
        addition.add(order[1], answers[order[1]][0])


def test_records_of_other_names_or_shapes_are_not_added(answers):
    for bend in ({"a": np.zeros((2, 2), np.int32)}, {"c": np.zeros(7, np.int32)}):
        addition = Addition("run-1", 4)
        addition.add("east", answers["east"][0])
        other = answers["north"][0]
        arrays = {k: v for k, v in other.arrays.items() if "c" not in bend or k != "b"} | bend
        with pytest.raises(InternalError, match="names or shapes"):
            addition.add("north", Envelope(other.record, arrays))


def test_nothing_has_no_sum():
    with pytest.raises(InternalError, match="nothing to add"):
        Addition("run-1", 4).total()
