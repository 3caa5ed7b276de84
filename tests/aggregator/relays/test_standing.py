"""A relay at the aggregator's desk: real gRPC and TLS, no Flower."""

from __future__ import annotations

import time
from contextlib import contextmanager

import pytest

from aggregator.admin.relays import Member, add_relay, known_relays, withdraw_relay
from aggregator.bells import ring
from aggregator.desk.relaying import standing
from aggregator.relays.folder import RelayFolder, unpack
from aggregator.relays.service import Standing
from common.crypto.identity import SigningKey
from common.errors import RefusedError, UnreachableError, VerificationError
from tests.aggregator.desk.conftest import Served, new_federation, served
from tests.programs import wait_until

__all__ = ["new_federation", "served"]


@pytest.fixture
def relay(served: Served) -> RelayFolder:
    """A relay, with one site behind it and one beside it."""
    made = add_relay(served.folder, "east", "127.0.0.1:1")
    invite = served.invite("north", relay="east")
    served.send(invite, served.site(invite))
    served.enrolled("south")
    return unpack(served.root / "east", made, "127.0.0.1", 9000)


def member_of(served: Served, site: str, *, revoked: bool = False) -> Member:
    return Member(site, served.folder.known()[site].request.node_key, revoked)


def test_a_relay_hears_of_its_own_sites_and_of_no_other(served, relay):
    with standing(relay.file(), relay.desk_key()) as stand:
        assert stand([], []) == [member_of(served, "north")]
        served.remote.revoke("north")
        assert stand([], []) == [member_of(served, "north", revoked=True)]


def test_what_it_says_is_heard_of_its_own_sites_and_of_no_other(served, relay):
    with standing(relay.file(), relay.desk_key()) as stand:
        stand(["north", "south", "nobody"], ["north", "south", "../../x"])
    assert known_relays(served.folder)["east"].online() == {"north"}
    assert {path.name for path in served.folder.order_bells.iterdir()} == {"north"}


def test_nobody_speaks_for_a_relay_without_its_key(served, relay):
    stranger = SigningKey.generate()
    with pytest.raises(VerificationError), standing(relay.file(), stranger) as stand:
        stand(["north"], [])
    forged = relay.file().model_copy(update={"name": "west"})
    with pytest.raises(RefusedError), standing(forged, relay.desk_key()) as stand:
        stand([], [])
    assert known_relays(served.folder)["east"].online() is None


def test_a_relay_that_was_withdrawn_is_refused_from_the_next_word_on(served, relay):
    with pytest.raises(RefusedError, match="withdrawn"):
        withdrawn_while_it_speaks(served, relay)


def withdrawn_while_it_speaks(served: Served, relay: RelayFolder) -> None:
    with standing(relay.file(), relay.desk_key()) as stand:
        assert stand([], [])
        withdraw_relay(served.folder, "east")
        stand([], [])


class Desk:
    """A desk that can be away; remembers what it was told."""

    def __init__(self) -> None:
        self.away, self.named = False, [Member("north", "key")]
        self.refusal: RefusedError | None = None
        self.heard: list[tuple[tuple[str, ...], tuple[str, ...]]] = []

    @contextmanager
    def opens(self):
        if self.away:
            raise UnreachableError("nobody answers")
        yield self.stand

    def stand(self, online, told) -> list[Member]:
        if self.refusal is not None:
            raise self.refusal
        if self.away:
            raise UnreachableError("nobody answers")
        self.heard.append((tuple(sorted(online)), tuple(sorted(told))))
        return self.named


def until(condition, what: str) -> None:
    wait_until(condition, what, 20, lambda: "nothing")


def test_who_is_there_is_said_now_and_then_and_an_order_at_once(relay, monkeypatch):
    monkeypatch.setattr("aggregator.relays.service.STAND_S", 0.2)
    desk, said = Desk(), []
    with Standing(relay, said.append, lambda: {"north"}, desk.opens):
        until(lambda: len(desk.heard) >= 2, "second word")
        assert relay.members() == desk.named
        ring(relay.federation.order_bells, ["north"])
        until(lambda: (("north",), ("north",)) in desk.heard, "word of the order")
    assert said == []
    assert sum(bool(told) for _, told in desk.heard) == 1, "each order is told once"


def test_a_relay_that_was_withdrawn_says_nothing_more_and_why(relay):
    desk, said = Desk(), []
    desk.refusal = RefusedError("this relay was withdrawn", field="relay")
    with Standing(relay, said.append, set, desk.opens) as word:
        until(lambda: word.refused is not None, "end of its words")
        assert word.refused is desk.refusal
    assert (said, desk.heard) == ([], [])


def test_a_desk_that_is_away_is_said_once_and_what_it_named_stays(relay, monkeypatch):
    monkeypatch.setattr("aggregator.relays.service.STAND_S", 0.05)
    monkeypatch.setattr("aggregator.relays.service.AGAIN_S", 0.05)
    desk, said = Desk(), []
    with Standing(relay, said.append, set, desk.opens):
        until(lambda: bool(desk.heard), "first word")
        desk.away = True
        until(lambda: len(said) == 1, "word of the trouble")
        time.sleep(0.3)
        assert len(said) == 1
        assert "nobody answers" in said[0]
        assert relay.members() == [Member("north", "key")]
        desk.away, desk.named = False, []
        until(lambda: len(said) == 2, "word that it is over")
        assert relay.members() == []
