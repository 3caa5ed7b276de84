"""The federation key reaches every confirmed site, and nobody else, and no person carries it."""

from __future__ import annotations

import base64
import zlib

import pytest
from click.testing import CliRunner

from common.audit.cli import cli as audit_cli
from common.crypto.exchange import OpeningKey, write_opening_key
from common.crypto.identity import SigningKey
from common.crypto.keyed import FederationKey, read_federation_key, write_federation_key
from common.crypto.sealing import Label, seal, sign_box
from common.desk import desk_pb2 as pb
from common.enrolment import parse_request
from common.errors import ExitCode, RefusedError, UnreachableError, VerificationError
from common.wire.codes import ReplyCode
from site_client.keys.first import key_step
from site_client.keys.giving import PATIENCE_S
from site_client.keys.keeper import another_key
from site_client.keys.news import Newest
from site_client.keys.ring import KeyRing
from site_client.keys.state import read_key_state


def secrets_of(*sites) -> list[bytes]:
    found = {
        read_federation_key(path).secret
        for site in sites
        for path in [*site.folder.key_ring.glob("*.key"), site.folder.federation_key]
        if path.exists()
    }
    assert found
    return sorted(found)


def spellings(secret: bytes) -> list[bytes]:
    return [secret, secret.hex().encode(), secret.hex().upper().encode(), base64.b64encode(secret)]


def everything(desk) -> bytes:
    """What the aggregator has on disk and what was ever said to it or by it."""
    files = [path.read_bytes() for path in desk.folder.root.rglob("*") if path.is_file()]
    return b"\n".join([*files, *desk.messages])


def test_three_sites_that_join_one_after_the_other_end_with_one_key(desk):
    for name in ("north", "south", "east"):
        desk.add(name)
        desk.settle(turns=3)
    ids = {site.key_id() for site in desk.sites.values()}
    assert len(ids) == 1
    assert "" not in ids
    assert {site.held().generation for site in desk.sites.values()} == {1}
    assert not any(site.folder.federation_key.exists() for site in desk.sites.values())


def test_the_ledger_says_who_was_given_the_key_and_nothing_else_was_sent(desk):
    north, south = desk.add("north"), desk.add("south")
    desk.settle("north")
    desk.settle()
    assert north.receivers() == {"north", "south"}
    assert south.receivers() == set()
    for site in (north, south):
        audited = site.audit()
        assert audited.verdict.intact, audited
        assert audited.verdict.balanced is not False, audited.balance
    assert audited.verdict.totals.rounds == 0
    assert north.audit().balance.unsent == ()
    names = [array.name for record in north.sent() for array in record.arrays]
    assert f"south:{south.fingerprint}" in names


def test_an_auditor_reads_it_in_the_table(desk):
    north = desk.add("north")
    desk.settle()
    shown = CliRunner().invoke(audit_cli, ["show", str(north.folder.ledger)])
    assert shown.exit_code == 0, shown.output
    assert "SealedKeys" in shown.output
    assert f"north:{north.fingerprint}" in shown.output
    assert f"federation key {north.key_id()}, generation 1" in shown.output


def test_the_aggregator_never_holds_or_hears_the_key(desk):
    north, south, east = (desk.add(name) for name in ("north", "south", "east"))
    desk.settle()
    desk.revoke("east")
    desk.settle()
    heard = everything(desk)
    assert len(secrets_of(north, south)) == 2
    for secret in secrets_of(north, south, east):
        for spelling in spellings(secret):
            assert spelling not in heard
    for site in (north, south, east):
        carried = b"".join(
            path.read_bytes()
            for folder in (site.folder.spool, site.folder.courier)
            for path in folder.rglob("*")
            if path.is_file()
        )
        for secret in secrets_of(north, south):
            assert not any(spelling in carried for spelling in spellings(secret))
        east.stop()


def test_the_search_would_find_a_key_that_leaked(desk):
    north = desk.add("north")
    desk.settle()
    desk.messages.append(b"..." + secrets_of(north)[0] + b"...")
    assert any(spelling in everything(desk) for spelling in spellings(secrets_of(north)[0]))
    assert zlib.compress(secrets_of(north)[0]) not in everything(desk)


def test_of_two_first_sites_the_desk_takes_one_and_the_other_forgets_its_own(desk):
    north, south = desk.add("north"), desk.add("south")
    north.hear()
    south.hear()
    proposed = [KeyRing(site.folder).proposal() for site in (north, south)]
    assert proposed[0].key != proposed[1].key
    south.carrier.turn()  # the first to arrive
    desk.settle()
    assert north.key_id() == south.key_id() == proposed[1].key.key_id
    assert all(KeyRing(site.folder).proposal() is None for site in (north, south))
    assert north.audit().verdict.intact


def test_a_key_brought_by_hand_becomes_the_federations_first(desk):
    key = FederationKey.generate()
    north, south, east = (
        desk.add("north", shared=key),
        desk.add("south", shared=key),
        desk.add("east"),
    )
    desk.settle("north", "south", "east")
    assert {site.key_id() for site in (north, south, east)} == {key.key_id}
    assert {site.held().generation for site in (north, south, east)} == {1}


def test_two_different_keys_brought_by_hand_are_told_and_neither_is_exchanged(desk):
    north = desk.add("north", shared=FederationKey.generate())
    south = desk.add("south", shared=FederationKey.generate())
    before = south.key_id()
    desk.settle()
    assert south.key_id() == before != north.key_id()
    assert "remove worker/federation.key" in str(south_advice(south))
    south.folder.federation_key.unlink()
    desk.settle()
    assert south.key_id() == north.key_id()


def south_advice(site) -> str:
    [refusal] = site.refusals()
    assert refusal.code == ReplyCode.UNTRUSTED_KEY
    assert "another federation key" in read_key_state(site.folder).trouble
    return another_key(Newest(generation=1, key_id="0" * 16)).advice


# A site leaves.


def test_after_a_revocation_the_others_have_a_key_that_it_never_gets(desk):
    north, south, east = (desk.add(name) for name in ("north", "south", "east"))
    desk.settle()
    old = north.key_id()
    gone = desk.revoke("east")
    with pytest.raises(RefusedError, match="revoked"):
        gone.hear()
    desk.settle()
    assert north.key_id() == south.key_id() != old
    assert north.held().generation == south.held().generation == 2
    assert gone.key_id() == old
    files = [path.name for path in (desk.folder.sites / "east" / "sealed").iterdir()]
    assert files == ["000001.json"]
    sealed_later = [r for site in (north, south) for r in site.sent() if r.generation == 2]
    assert not any(a.name.startswith("east:") for r in sealed_later for a in r.arrays)
    assert east.audit().verdict.intact
    gone.stop()


def test_a_site_that_was_away_during_the_rotation_catches_up(desk):
    north, south, _ = (desk.add(name) for name in ("north", "south", "east"))
    desk.settle()
    desk.revoke("east").stop()
    desk.settle("north")
    assert (north.held().generation, south.held().generation) == (2, 1)
    desk.settle("south")
    assert south.key_id() == north.key_id()


def test_when_the_first_holder_is_away_the_next_steps_in_after_a_while(desk):
    north, south = desk.add("north"), desk.add("south")
    desk.settle()
    west = desk.add("west")
    desk.settle("south", "west")
    assert west.held() is None
    south.wait(PATIENCE_S)
    desk.settle("south", "west")
    assert west.key_id() == north.key_id()
    assert south.sent()[-1].arrays[0].name == f"west:{west.fingerprint}"


def test_when_the_only_site_with_the_key_is_gone_another_makes_the_next(desk):
    lost, north = desk.add("lost"), desk.add("north")
    desk.settle("lost", turns=2)
    desk.add("south")
    desk.settle("north", "south")
    desk.revoke("lost").stop()
    path = desk.folder.sites / "north" / "sealed" / "000001.json"
    path.unlink()  # it was never sealed to anybody else
    KeyRing(north.folder).drop_proposal()
    for key in north.folder.key_ring.glob("*.key"):
        key.unlink()
    desk.settle()
    assert north.key_id() == desk.sites["south"].key_id() != lost.key_id()
    assert north.held().generation == 2


def test_a_desk_that_asks_for_new_keys_without_end_gets_one_a_minute(desk):
    north = desk.add("north")
    desk.settle()

    def always(reply) -> None:
        reply.federation_key.renew = True

    lying(desk, "ListPeers", always)
    desk.settle(turns=8)
    assert north.held().generation == 2


def test_a_run_keeps_its_key_and_the_next_one_has_the_newest(desk):
    north = desk.add("north")
    desk.settle()
    ring, old = KeyRing(north.folder), north.held().key
    ring.begin_run("run-1")
    ring.add(2, FederationKey.generate())
    new = ring.newest().key
    assert (ring.of_run("run-1"), ring.of_run("run-2")) == (old, new)
    ring.begin_run("run-1")
    assert ring.of_run("run-1") == old
    ring.begin_run("run-2")
    assert [path.name for path in north.folder.key_ring.glob("*.key")] == ["000002.key"]


def test_a_key_brought_by_hand_is_removed_when_no_run_needs_it(desk):
    north = desk.add("north", shared=FederationKey.generate())
    desk.settle()
    ring = KeyRing(north.folder)
    ring.add(2, FederationKey.generate())
    ring.begin_run("run-1")
    assert not north.folder.federation_key.exists()


# The site's own policy.


def test_a_site_that_shares_with_nobody_neither_gives_nor_takes(desk):
    north, south = desk.add("north"), desk.add("south")
    south.write_policy('share = "never"')
    desk.settle()
    assert south.held() is None
    assert south.receivers() == set()
    assert "by hand" in read_key_state(south.folder).waiting
    write_federation_key(south.folder.federation_key, north.held().key)
    desk.settle()
    assert south.key_id() == north.key_id()
    assert south.held().generation == 0


def test_a_listed_site_is_given_the_key_and_an_invented_one_is_not(desk):
    north, south = desk.add("north", known=False), desk.add("south", known=False)
    invented = desk.add("invented", known=False)
    south.write_policy('share = "admitted"')
    north.write_policy(f'share = "listed"\npeers = {{south = "{south.fingerprint}"}}')
    desk.settle("north", "south")
    assert north.receivers() == {"north", "south"}
    assert south.key_id() == north.key_id()
    assert invented.held() is None


def test_a_listed_name_with_another_key_is_not_the_listed_site(desk):
    north, south = desk.add("north", known=False), desk.add("south", known=False)
    north.write_policy(f'share = "listed"\npeers = {{south = "{"0" * 64}"}}')
    desk.settle("north")
    assert north.receivers() == {"north"}
    assert south.held() is None


def test_a_policy_that_does_not_speak_of_keys_shares_none(desk):
    north, _ = desk.add("north"), desk.add("south")
    text = north.folder.policy_file.read_text()
    start, end = text.index("[keys]"), text.index("[pixels]")
    north.folder.policy_file.write_text(text[:start] + text[end:])
    desk.settle("north")
    assert north.sent() == []
    assert north.held() is None


# An aggregator that lies.


def lying(desk, method: str, change) -> None:
    """From now on, ``change`` is made to a copy of every reply to ``method``."""

    def lie(asked: str, reply):
        if asked != method:
            return reply
        copy = type(reply)()
        copy.CopyFrom(reply)
        change(copy)
        return copy

    desk.lie = lie


def refused(site, field: str) -> None:
    """The last record is a refusal of this field, under the number for it, and nothing came in."""
    last = site.records()[-1]
    assert (last.event, last.code) == ("REFUSE", ReplyCode.UNTRUSTED_KEY)
    assert last.detail is not None
    assert field in last.detail.field
    assert site.audit().verdict.intact


def with_a_key_on_its_way(desk):
    """North has the key and has sealed it to south and east, which have not asked yet."""
    north, south, east = (desk.add(name) for name in ("north", "south", "east"))
    desk.settle("north")
    return north, south, east


def test_a_box_for_another_site_is_refused(desk):
    _, south, east = with_a_key_on_its_way(desk)
    of_east = carry_reply(desk, east)

    def swap(reply) -> None:
        reply.key.ciphertext, reply.key.signature = of_east.ciphertext, of_east.signature

    lying(desk, "GetSealedKey", swap)
    south.hear()
    assert south.held() is None
    refused(south, "")
    lying(desk, "GetSealedKey", lambda reply: reply.key.CopyFrom(of_east))
    south.hear()
    assert south.held() is None
    refused(south, "for_site")


def carry_reply(desk, site, generation: int = 1) -> pb.SealedKey:
    body = pb.GetSealedKeyBody(generation=generation)
    return desk.ask("GetSealedKey", site.folder, body).key


def test_a_changed_box_is_refused_once_and_the_genuine_one_is_taken_afterwards(desk):
    north, south, _ = with_a_key_on_its_way(desk)

    def bend(reply) -> None:
        reply.key.ciphertext = bytes(64)

    lying(desk, "GetSealedKey", bend)
    for _ in range(3):
        south.hear()
    assert south.held() is None
    assert len(south.refusals()) == 1
    desk.lie = lambda method, reply: reply
    south.hear()
    assert south.key_id() == north.key_id()


def test_a_replayed_older_generation_is_refused(desk):
    north, south, _ = with_a_key_on_its_way(desk)
    desk.settle()
    first_list = desk.ask("ListPeers", south.folder, pb.ListPeersBody())
    first_box = carry_reply(desk, south)
    desk.revoke("east").stop()
    desk.settle()
    newest = south.key_id()
    lying(desk, "ListPeers", lambda reply: reply.CopyFrom(first_list))
    south.hear()
    refused(south, "generation")
    assert south.key_id() == newest == north.key_id()

    def relabel(reply) -> None:
        reply.key.CopyFrom(first_box)
        reply.key.generation, reply.key.key_id = 3, "f" * 16

    def third(reply) -> None:
        reply.federation_key.generation, reply.federation_key.key_id = 3, "f" * 16

    def lie(method, reply):
        copy = type(reply)()
        copy.CopyFrom(reply)
        (relabel if method == "GetSealedKey" else third)(copy)
        return copy

    desk.lie = lie
    south.hear()
    assert south.key_id() == newest
    refused(south, "")


def test_a_forged_peer_is_sealed_nothing(desk):
    north = desk.add("north")
    desk.settle()
    genuine = parse_request((desk.add("south").folder.request_file).read_bytes())
    forged = genuine.model_copy(update={"sealing_key": OpeningKey.generate().public.text})

    def forge(reply) -> None:
        for peer in reply.peers:
            if peer.site == "south":
                peer.join_request = forged.to_json()

    lying(desk, "ListPeers", forge)
    desk.settle("north")
    assert north.receivers() == {"north"}
    refused(north, "site south")


def test_a_site_we_dealt_with_does_not_change_its_key_under_its_name(desk):
    north, south = desk.add("north"), desk.add("south")
    desk.settle()
    thief, opening = SigningKey.generate(), OpeningKey.generate()
    stolen = parse_request(south.folder.request_file.read_bytes()).model_copy(
        update={"ledger_key": thief.public.text, "sealing_key": opening.public.text}
    )

    def exchange(reply) -> None:
        for peer in reply.peers:
            if peer.site == "south":
                peer.join_request, peer.generation = stolen.signed(thief).to_json(), 0

    lying(desk, "ListPeers", exchange)
    before = len(north.sent())
    desk.settle("north")
    assert len(north.sent()) == before
    refused(north, "site south")


def test_a_sender_that_is_not_on_the_list_is_refused(desk):
    _, south, _ = with_a_key_on_its_way(desk)
    stranger, key = SigningKey.generate(), FederationKey.generate()
    newest = desk.ask("ListPeers", south.folder, pb.ListPeersBody()).federation_key
    opening = parse_request(south.folder.request_file.read_bytes()).sealing_key
    from common.crypto.exchange import SealingKey

    label = Label("brains", 1, key.key_id, "stranger", "south", south.fingerprint)
    box = seal(key, SealingKey.parse(str(opening)), label)

    def invent(reply) -> None:
        reply.key.ciphertext, reply.key.from_site = box, "stranger"
        reply.key.signature = sign_box(box, label, stranger)

    lying(desk, "GetSealedKey", invent)
    south.hear()
    assert newest.generation == 1
    assert south.held() is None
    refused(south, "from_site")


def test_another_key_of_a_generation_we_have_is_refused(desk):
    north, _ = desk.add("north"), desk.add("south")
    desk.settle()
    before = north.key_id()

    def other(reply) -> None:
        reply.federation_key.key_id = "f" * 16

    lying(desk, "ListPeers", other)
    north.hear()
    assert north.key_id() == before
    refused(north, "key id")


def test_our_own_name_with_other_keys_is_refused(desk):
    north = desk.add("north")
    other = parse_request(desk.add("south").folder.request_file.read_bytes())
    fake = other.model_copy(update={"site": "north"}).signed(SigningKey.generate())

    def usurp(reply) -> None:
        reply.peers[0].join_request = fake.to_json()

    lying(desk, "ListPeers", usurp)
    north.hear()
    refused(north, "site north")
    assert north.sent() == []


def test_join_ends_with_exit_4_when_the_aggregator_lies_and_says_so_in_a_line(desk):
    north = desk.add("north")
    other = parse_request(desk.add("south").folder.request_file.read_bytes())
    fake = other.model_copy(update={"site": "north"}).signed(SigningKey.generate())

    def usurp(reply) -> None:
        reply.peers[0].join_request = fake.to_json()

    lying(desk, "ListPeers", usurp)
    with pytest.raises(VerificationError, match="joined, but") as caught:
        key_step(north.folder)
    assert caught.value.exit_code == ExitCode.VERIFICATION_FAILED
    refused(north, "site north")


def test_join_tells_how_the_key_stands(desk):
    first, second = desk.add("north"), desk.add("south")
    desk.down = True
    assert "the courier goes on asking" in key_step(first.folder)
    desk.down = False
    assert "is here: id" in key_step(first.folder)
    assert first.key_id() in key_step(first.folder)
    assert first.key_id() in key_step(second.folder)
    third = desk.add("east", known=False)
    assert "north or south to be confirmed: cairn-site peers confirm north" in key_step(
        third.folder
    )
    third.confirm(first)
    said = key_step(third.folder)
    assert "waits for north, to seal generation 1 to us" in said
    assert "once confirmed there: cairn-site peers confirm east" in said


def test_news_that_are_no_news_are_refused_and_the_worker_lives_on(desk):
    north = desk.add("north")
    north.carrier.turn()
    (north.folder.spool / "inbox/federation-key.news").write_bytes(b'{"v": 1, "patient": "Doe"}')
    north.worker.turn()
    assert north.refusals()[-1].code == ReplyCode.UNTRUSTED_KEY
    assert b"Doe" not in (north.folder.ledger / "log.jsonl").read_bytes()
    desk.settle()
    assert north.key_id()


# What breaks.


def test_a_courier_without_a_desk_keeps_what_waits(desk):
    north = desk.add("north")
    north.hear()
    desk.down = True
    with pytest.raises(UnreachableError):
        north.carrier.turn()
    assert north.carrier.has_work
    desk.down = False
    desk.settle()
    assert north.key_id()
    assert north.audit().verdict.intact


def test_a_worker_that_was_killed_between_two_turns_goes_on(desk):
    north, south = desk.add("north"), desk.add("south")
    north.hear()
    proposed = KeyRing(north.folder).proposal()
    north.stop()
    desk.settle()
    assert north.key_id() == south.key_id() == proposed.key.key_id


def test_without_its_sealing_key_a_site_of_an_earlier_release_works_as_before(desk):
    north = desk.add("north", shared=FederationKey.generate())
    north.folder.sealing_key.unlink()
    desk.settle()
    assert north.held().generation == 0
    write_opening_key(north.folder.sealing_key, OpeningKey.generate())
    north.hear()
    refused(north, "site north")


def test_status_of_the_keys_names_sites_and_shows_no_secret(desk):
    north, south = desk.add("north"), desk.add("south")
    desk.settle()
    state = read_key_state(north.folder)
    assert state.peers == {"north": 1, "south": 1}
    assert state.fingerprints["south"] == south.fingerprint
    assert (state.waiting, state.trouble) == ("", "")
    for spelling in spellings(secrets_of(north)[0]):
        assert spelling not in (north.folder.key_ring / "status.json").read_bytes()
