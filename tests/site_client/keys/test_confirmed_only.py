"""By default the federation key goes to, and comes from, only whom a person here has confirmed."""

from __future__ import annotations

import json

import pytest

from common.crypto.exchange import OpeningKey
from common.crypto.identity import SigningKey
from common.enrolment import parse_request
from common.wire.codes import ReplyCode
from site_client.decisions.standing import read_standing
from site_client.keys.directory import note_roster, read_directory
from site_client.keys.keeper import KeyKeeper
from site_client.keys.state import read_key_state
from site_client.spool import Spool


def waiting(site) -> str:
    return read_key_state(site.folder).waiting


def strangers(desk, *names: str):
    return [desk.add(name, known=False) for name in names]


def test_the_first_site_makes_the_key_by_itself_and_keeps_it_to_itself(desk):
    north, south = strangers(desk, "north", "south")
    desk.settle()
    assert north.key_id()
    assert north.receivers() == {"north"}
    assert south.held() is None


def test_an_invented_site_is_given_nothing_whatever_the_aggregator_says_of_it(desk):
    north, south = desk.add("north"), desk.add("south")
    invented = desk.add("invented", known=False)
    invented.confirm(north, south)
    desk.settle()
    desk.settle()
    assert south.key_id() == north.key_id()
    assert invented.held() is None
    assert "invented" not in north.receivers() | south.receivers()
    says = read_key_state(north.folder).says
    assert "not given to invented, to be confirmed: cairn-site peers confirm invented" in says


def test_a_key_that_an_invented_site_made_first_is_not_taken(desk):
    north, invented = strangers(desk, "north", "invented")
    invented.confirm(north)
    desk.settle("invented")
    desk.settle()
    assert invented.receivers() == {"invented", "north"}
    assert north.held() is None
    assert waiting(north) == "invented to be confirmed: cairn-site peers confirm invented"
    assert not north.refusals(), "who is not confirmed yet has done nothing wrong"


def test_when_it_is_gone_the_hospitals_have_a_key_of_their_own(desk):
    north, south = desk.add("north"), desk.add("south")
    desk.add("invented", known=False)
    desk.settle("invented", "north", "south")
    assert (north.held(), south.held()) == (None, None)
    desk.revoke("invented").stop()
    desk.settle()
    assert north.key_id() == south.key_id() != ""
    assert north.held().generation == 2


def test_who_is_confirmed_on_both_sides_gets_the_key(desk):
    north, south = strangers(desk, "north", "south")
    desk.settle()
    north.confirm(south)
    south.confirm(north)
    desk.settle()
    assert south.key_id() == north.key_id()


@pytest.mark.parametrize("first", ["north", "south"])
def test_confirmed_on_one_side_it_waits_and_both_say_for_whom(desk, first):
    north, south = strangers(desk, "north", "south")
    desk.settle()
    giver_first = first == "north"
    north.confirm(south) if giver_first else south.confirm(north)
    desk.settle()
    assert south.held() is None
    assert not south.refusals()
    if giver_first:
        assert north.receivers() == {"north", "south"}
        assert waiting(south) == "north to be confirmed: cairn-site peers confirm north"
        south.confirm(north)
    else:
        assert waiting(south).startswith("north, to seal generation 1 to us (once confirmed there")
        north.confirm(south)
    desk.settle()
    assert south.key_id() == north.key_id()
    assert waiting(south) == ""


def test_a_decision_takes_effect_at_the_workers_next_turn_without_other_news(desk):
    north, south = strangers(desk, "north", "south")
    desk.settle()
    north.confirm(south)
    desk.settle()
    news = Spool(south.folder.spool).key_news.read_bytes()
    assert south.held() is None
    south.confirm(north)
    south.worker.turn()
    assert south.key_id() == north.key_id()
    assert Spool(south.folder.spool).key_news.read_bytes() == news


def test_without_news_and_without_a_decision_a_turn_does_nothing(desk):
    north = desk.add("north")
    desk.settle()
    records = len(north.records())
    assert north.worker._keeper.turn() is None
    assert len(north.records()) == records


def test_who_holds_the_ledger_may_say_itself_who_is_confirmed(desk):
    north, south = strangers(desk, "north", "south")
    desk.settle()
    held, people = north.worker._keeper, {}
    keeper = KeyKeeper(north.folder, held._ledger_key, held._door, confirmed=lambda: people)
    keeper.turn()
    people["south"] = south.fingerprint
    assert keeper.turn() is not None
    assert north.receivers() == {"north", "south"}


def test_a_forgotten_site_is_not_given_the_next_key(desk):
    north, south, east = (desk.add(name) for name in ("north", "south", "east"))
    desk.settle()
    for site in (north, south):
        site.decide("FORGET", peer="east")
    desk.add("west")
    desk.revoke("west").stop()
    desk.settle()
    assert north.held().generation == 2
    assert south.key_id() == north.key_id() != east.key_id()
    later = [r for site in (north, south) for r in site.sent() if r.generation == 2]
    assert not any(a.name.startswith("east:") for r in later for a in r.arrays)


def test_an_order_does_not_wait_for_a_key_that_only_a_person_can_bring(desk):
    north, south = strangers(desk, "north", "south")
    desk.settle()
    assert not south.worker._keeper.expects_key
    south.confirm(north)
    south.worker.turn()
    assert south.worker._keeper.expects_key


# An aggregator that lies about who somebody is.


def swap(desk, name: str) -> str:
    """From now on the desk shows ``name`` with keys of its own making; their fingerprint."""
    thief, opening = SigningKey.generate(), OpeningKey.generate()

    def lie(method: str, reply):
        if method != "ListPeers":
            return reply
        copy = type(reply)()
        copy.CopyFrom(reply)
        for peer in copy.peers:
            if peer.site == name:
                stolen = parse_request(peer.join_request).model_copy(
                    update={
                        "ledger_key": thief.public.text,
                        "sealing_key": opening.public.text,
                    }
                )
                peer.join_request, peer.generation = stolen.signed(thief).to_json(), 0
        return copy

    desk.lie = lie
    return thief.public.fingerprint


def test_a_swapped_key_under_a_confirmed_name_is_refused_and_recorded(desk):
    north, south = strangers(desk, "north", "south")
    north.confirm(south)
    thief = swap(desk, "south")
    desk.settle("north")
    assert north.receivers() == {"north"}
    assert north.refusals()[-1].code == ReplyCode.UNTRUSTED_KEY
    assert north.refusals()[-1].detail.field == "site south"
    state = read_key_state(north.folder)
    assert state.changed == {"south": thief}
    assert "must be the ledger key that it had before" in state.trouble
    directory = read_directory(north.folder)
    assert directory.named("changed") == ["south"]
    assert directory.says.startswith("CHANGED KEY: south")
    assert "peers forget south" in directory.fix


def test_a_site_with_a_really_new_key_is_dealt_with_once_it_is_confirmed_anew(desk):
    north, south = desk.add("north"), desk.add("south")
    desk.settle()
    new = swap(desk, "south")
    north.hear()
    assert read_directory(north.folder).named("changed") == ["south"]
    north.decide("FORGET", peer="south")
    north.hear()
    assert read_directory(north.folder).named("changed") == ["south"], "we gave it a key before"
    north.decide("CONFIRM", peer="south", peer_key=new)
    north.hear()
    directory = read_directory(north.folder)
    assert directory.named("confirmed") == ["south"]
    assert directory.peers["south"].shows == (new,)
    assert any(a.name == f"south:{new}" for r in north.sent() for a in r.arrays)
    assert south.fingerprint != new


def test_nothing_that_the_courier_brings_can_confirm_anybody(desk):
    north, south = strangers(desk, "north", "south")
    desk.settle()
    spool = Spool(north.folder.spool)
    told = json.loads(spool.key_news.read_bytes())
    decision = {
        "event": "CONFIRM",
        "person": "M. Curie",
        "peer": "south",
        "peer_key": south.fingerprint,
    }
    forged = [
        told | {"confirmed": {"south": south.fingerprint}},
        told | {"peers": [peer | {"confirmed": True} for peer in told["peers"]]},
        decision,
    ]
    for news in forged:
        spool.key_news.write_text(json.dumps(news))
        north.worker.turn()
        assert north.refusals()[-1].code == ReplyCode.UNTRUSTED_KEY
    (spool.inbox / "decision.json").write_text(json.dumps(decision))
    north.worker.turn()
    desk.settle()
    assert not read_standing(north.folder).peers
    assert not [r for r in north.records() if r.event == "CONFIRM"]
    assert north.receivers() == {"north"}


def test_a_roster_is_listed_and_confirms_nobody(desk):
    (north,) = strangers(desk, "north")
    note_roster(north.folder, {"north": north.fingerprint, "south": "5" * 64})
    directory = read_directory(north.folder)
    assert directory.named("unconfirmed") == ["south"]
    assert directory.peers["south"].shows == ("5" * 64,)
    assert not read_standing(north.folder).peers


def test_a_roster_that_contradicts_the_desk_is_loud(desk):
    north, south = strangers(desk, "north", "south")
    desk.settle()
    note_roster(north.folder, {"south": "5" * 64})
    assert read_directory(north.folder).named("changed") == ["south"]
    note_roster(north.folder, {"south": south.fingerprint})
    assert read_directory(north.folder).named("unconfirmed") == ["south"]
