"""Who is left out of a spoilt sum, and in which order."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from aggregator.rounds.answers import AcceptedAnswer
from aggregator.rounds.spoilt import Answers, Search
from aggregator.rounds.store import RunStore

NAMES = st.sets(st.sampled_from("abcdefgh"), min_size=1)
RELAYS = st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(["", "east", "west"]))


def answers_of(relays: dict[str, str]) -> dict[str, AcceptedAnswer]:
    store = RunStore(Path("nowhere"))
    return {
        site: AcceptedAnswer(store, 1, site, None, None, None, None, {}, relay)
        for site, relay in relays.items()
    }


def search(relays, refusing=(), known=(), quorum=1, liars=frozenset(), tried=None) -> Search[str]:
    """Sums of answers among which is none of the liars hold."""

    def trial(rest: Answers) -> str | None:
        if tried is not None:
            tried.append(set(rest))
        return None if liars & rest.keys() else "held"

    return Search(answers_of(relays), set(refusing), set(known), quorum, trial)


def order(relays, **words) -> list[str]:
    return [suspect.name for suspect in search(relays, **words).suspects()]


def test_without_relays_sites_are_tried_one_by_one_and_who_accepted_the_sum_first():
    assert order(dict.fromkeys("cab", ""), refusing="ac") == ["b", "a", "c"]


def test_a_relay_is_tried_with_all_its_sites_and_before_others():
    assert order({"a": "west", "b": "west", "c": "", "d": "east"}) == ["east", "west", "c"]


def test_the_sites_of_a_relay_that_was_found_before_are_tried_one_by_one_and_then_it():
    relays = {"a": "west", "b": "west", "c": "", "d": "east"}
    assert order(relays, known=["west", "gone"]) == ["a", "b", "west", "east", "c"]


def test_where_a_relay_cannot_be_spared_its_sites_are_tried():
    relays = {"a": "west", "b": "west", "c": ""}
    assert order(relays, quorum=2) == ["a", "b", "c"]
    assert order(relays, quorum=3) == []


@given(RELAYS, NAMES, st.integers(0, 8), st.sets(st.sampled_from(["east", "west"])))
def test_no_trial_is_of_fewer_than_the_quorum_or_of_all(relays, liars, quorum, known):
    tried: list[set[str]] = []
    search(relays, known=known, quorum=quorum, liars=liars, tried=tried).find()
    assert all(quorum <= len(rest) < len(relays) for rest in tried)


@given(RELAYS.filter(bool), st.data(), st.sets(st.sampled_from(["east", "west"])))
def test_one_liar_is_always_left_out_and_by_itself_where_its_relay_is_known(relays, data, known):
    liar = data.draw(st.sampled_from(sorted(relays)))
    found = search(relays, known=known, quorum=0, liars={liar}).find()
    assert found is not None
    assert liar in found.liar.sites
    assert found.liar.relayed == (relays[liar] not in {"", *known})
