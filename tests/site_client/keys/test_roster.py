"""Beside whom a site takes part: the rule, and that nothing but enough known others passes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.wire.codes import ReplyCode
from site_client.keys.roster import (
    SummandsError,
    UnknownPeersError,
    require_in_sum,
    require_known,
)

NAMES = ["site-a", "site-b", "site-c", "site-d", "site-e"]
OURS = "site-a"
names = st.sampled_from(NAMES)
keys = st.sampled_from([digit * 64 for digit in "0123456789abcdef"])
rosters = st.lists(keys, min_size=1, max_size=5, unique=True).map(
    lambda found: dict(zip(NAMES, found, strict=False))
)


def passes(rule, *words, **more) -> bool:
    try:
        rule(*words, **more)
    except (UnknownPeersError, SummandsError):
        return False
    return True


def holds(roster, confirmed, least) -> bool:
    return passes(require_known, roster, OURS, confirmed, least, own_key=roster[OURS])


@given(rosters, st.data(), st.integers(0, 6))
def test_exactly_enough_confirmed_others_pass(roster, data, least):
    known = data.draw(st.sets(st.sampled_from(sorted(roster))))
    confirmed = {name: roster[name] for name in known}
    assert holds(roster, confirmed, least) == (len(known - {OURS}) >= least)


@given(rosters, st.data(), keys, st.integers(0, 6))
def test_a_confirmed_name_with_another_key_never_passes(roster, data, key, least):
    name = data.draw(st.sampled_from(sorted(roster)))
    confirmed = roster | {name: key}
    if key != roster[name]:
        assert not holds(roster, confirmed, least)
        assert not holds(roster, confirmed, 0)


@given(rosters, st.dictionaries(names, keys), st.integers(0, 6))
def test_confirming_what_the_roster_shows_never_hurts_and_asking_more_never_helps(
    roster, confirmed, least
):
    if holds(roster, confirmed, least):
        assert holds(roster, confirmed | roster, least)
        assert least == 0 or holds(roster, confirmed, least - 1)


@given(rosters, st.dictionaries(names, keys), st.integers(1, 6))
def test_sites_that_the_aggregator_adds_do_not_help(roster, confirmed, least):
    if not holds(roster, confirmed, least):
        sybils = {f"invented-{n}": f"{n:064x}" for n in range(1, 9)}
        assert not holds(roster | sybils, confirmed, least)


@given(rosters, keys)
def test_a_roster_without_us_as_we_are_never_passes(roster, key):
    others = {name: known for name, known in roster.items() if name != OURS}
    assert not passes(require_known, others, OURS, others, 0, own_key=roster[OURS])
    if key != roster[OURS]:
        assert not passes(require_known, roster, OURS, roster, 0, own_key=key)


@given(rosters, st.data())
def test_one_key_under_two_names_never_passes(roster, data):
    twin = roster | {"twin": roster[data.draw(st.sampled_from(sorted(roster)))]}
    assert not holds(twin, twin, 0)


def test_the_refusal_says_whom_to_telephone_and_what_to_type():
    roster = {"site-a": "a" * 64, "site-b": "b" * 64, "site-c": "c" * 64}
    with pytest.raises(UnknownPeersError) as caught:
        require_known(roster, "site-a", {"site-b": "b" * 64}, 2, own_key="a" * 64)
    error = caught.value
    assert error.code is ReplyCode.UNKNOWN_PEERS
    assert (error.field, error.got) == ("roster", "1 of 2")
    assert error.advice == "Telephone site-c, then: cairn-site peers confirm site-c"
    with pytest.raises(UnknownPeersError, match="another key") as caught:
        require_known(roster, "site-a", {"site-b": "d" * 64}, 0, own_key="a" * 64)
    assert caught.value.field == "roster, site-b"
    assert "peers forget site-b" in caught.value.advice


# The set behind a sum.


def stands(members, roster, confirmed, least, quorum) -> bool:
    return passes(require_in_sum, members, roster, OURS, confirmed, least, quorum)


@given(rosters, st.data(), st.integers(0, 6), st.integers(1, 6))
def test_a_set_passes_if_and_only_if_it_is_large_and_known_enough(roster, data, least, quorum):
    members = data.draw(st.lists(st.sampled_from(sorted(roster)), unique=True))
    known = data.draw(st.sets(st.sampled_from(sorted(roster))))
    confirmed = {name: roster[name] for name in known}
    right = len(members) >= quorum and len(known & set(members) - {OURS}) >= least
    assert stands(members, roster, confirmed, least, quorum) == right


@given(rosters, st.data())
def test_a_member_twice_or_from_elsewhere_never_passes(roster, data):
    members = data.draw(st.lists(st.sampled_from(sorted(roster)), unique=True, min_size=1))
    for wrong in ([*members, members[0]], [*members, "stranger"]):
        with pytest.raises(SummandsError) as caught:
            require_in_sum(wrong, roster, OURS, roster, 0, 1)
        assert caught.value.code is ReplyCode.FORGED_SUM


def test_a_sum_of_ours_alone_says_so():
    with pytest.raises(UnknownPeersError, match="Only this site stands behind it"):
        require_in_sum(["site-a"], {"site-a": "a" * 64}, "site-a", {}, 1, 1)
