"""How often a courier asks about the key: at once after a change, and ever less after that."""

from __future__ import annotations

from itertools import pairwise

from site_client.keys.carry import LACKING_S, SETTLED_S, SHORTEST_S, Look, Pace

DONE = Look(generation=1, renew=False, behind=frozenset(), lacking=False)
OTHER_BEHIND = Look(generation=1, renew=False, behind=frozenset({"south"}), lacking=False)
OURS_BEHIND = Look(generation=1, renew=False, behind=frozenset({"north"}), lacking=True)
NONE_YET = Look(generation=0, renew=False, behind=frozenset(), lacking=True)


def asked_in(look: Look, seconds: float) -> list[float]:
    """When a courier looks that always finds the same."""
    now = [0.0]
    pace, moments = Pace(lambda: now[0]), []
    while now[0] < seconds:
        moments.append(now[0])
        now[0] += pace.after(look)
    return moments


def test_who_joins_is_seen_within_a_second_and_the_rest_of_the_day_costs_little():
    moments = asked_in(DONE, 86_400)
    assert moments[1] == SHORTEST_S
    assert len(moments) < 86_400 / SETTLED_S + 60


def test_a_site_that_is_away_for_months_does_not_keep_the_others_asking():
    assert len(asked_in(OTHER_BEHIND, 86_400)) == len(asked_in(DONE, 86_400))


def test_a_site_without_the_key_never_waits_long():
    for look in (OURS_BEHIND, NONE_YET):
        moments = asked_in(look, 3600)
        assert max(b - a for a, b in pairwise(moments)) == LACKING_S


def test_any_change_makes_it_ask_soon_again():
    now = [0.0]
    pace = Pace(lambda: now[0])
    pace.after(DONE)
    now[0] = 5000.0
    assert pace.after(DONE) == SETTLED_S
    for look in (OTHER_BEHIND, DONE, OURS_BEHIND):
        assert pace.after(look) == SHORTEST_S


def test_the_desks_answer_says_who_is_behind(desk):
    north = desk.add("north")
    assert north.carrier.turn() == NONE_YET
    desk.settle("north")
    south = desk.add("south")
    assert north.carrier.turn() == OTHER_BEHIND
    look = south.carrier.turn()
    assert (look.behind, look.lacking) == (frozenset({"south"}), True)
    desk.settle()
    assert north.carrier.turn() == DONE == south.carrier.turn()
