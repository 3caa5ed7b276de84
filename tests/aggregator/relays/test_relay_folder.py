"""A relay's file and folder: made at the aggregator, unpacked where the relay runs."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from aggregator.admin.enrol import admit_locked, create_federation
from aggregator.admin.folder import FederationFolder, FederationSettings
from aggregator.admin.invites import make_invite, withdraw_invites
from aggregator.admin.relays import (
    DIRECT,
    HERE_S,
    Member,
    add_relay,
    groups,
    known_relays,
    members,
    read_relay_file,
    relay_of,
    standing_relay,
    withdraw_relay,
    write_relay_file,
)
from aggregator.relays.folder import RelayFolder, listening_port, unpack
from common.crypto.certificates import generate_node_key, node_public_line, read_certificate
from common.crypto.identity import SigningKey
from common.enrolment import JoinRequest
from common.errors import InputDataError, InternalError, RefusedError

EAST = "east.example.org:9443"


@pytest.fixture
def fed(tmp_path: Path) -> FederationFolder:
    folder = FederationFolder(tmp_path / "fed")
    settings = FederationSettings(name="brains", address="127.0.0.1:9443", port=9443)
    create_federation(folder, settings, ["127.0.0.1"])
    return folder


def admitted(fed: FederationFolder, site: str) -> JoinRequest:
    request = JoinRequest(
        federation="brains",
        site=site,
        node_key=node_public_line(generate_node_key()),
        ledger_key=SigningKey.generate().public.text,
    )
    admit_locked(fed, request)
    return request


def invite(fed: FederationFolder, site: str, relay: str = ""):
    return make_invite(fed, site, "0" * 64, relay=relay)


def test_an_invite_behind_a_relay_names_its_address_and_the_aggregators_desk(fed):
    add_relay(fed, "east", EAST)
    behind, beside = invite(fed, "north", "east"), invite(fed, "south")
    assert (behind.address, behind.enrolment) == (EAST, "127.0.0.1:9444")
    assert beside.address == "127.0.0.1:9443"
    assert (behind.relay, beside.relay) == ("east", None)
    assert (relay_of(fed, "north"), relay_of(fed, "south")) == ("east", "")


def test_a_site_stays_behind_its_relay_until_an_invite_says_otherwise(fed):
    for relay in ("east", "west"):
        add_relay(fed, relay, f"{relay}.example.org:9443")
    assert invite(fed, "north", "east").address == EAST
    assert invite(fed, "north").address == EAST, "as before"
    assert invite(fed, "north", "west").address == "west.example.org:9443"
    assert invite(fed, "north", DIRECT).address == "127.0.0.1:9443"
    assert relay_of(fed, "north") == ""


def test_groups_and_members_are_those_who_are_admitted_and_stand(fed):
    add_relay(fed, "east", EAST)
    add_relay(fed, "west", EAST)
    invite(fed, "north", "east")
    invite(fed, "south", "west")
    north = admitted(fed, "north")
    assert groups(fed) == {"east": {"north"}, "west": frozenset()}
    assert withdraw_relay(fed, "west") == ()
    assert groups(fed) == {"east": {"north"}}
    standing = {(m.name, m.revoked) for m in members(fed)}
    assert standing == {("north", False), ("east", False), ("west", True)}
    assert Member("north", north.node_key) in members(fed)


def test_a_file_that_is_made_anew_ends_the_former(fed):
    former = add_relay(fed, "east", EAST)
    before = known_relays(fed)["east"]
    add_relay(fed, "east", EAST)
    now = known_relays(fed)["east"]
    assert former.desk_key != before.desk_key.text
    assert now.desk_key != before.desk_key
    assert now.former_node_keys == (before.node_key,)
    assert Member("east", before.node_key, revoked=True) in members(fed)


def test_a_name_is_a_relays_or_a_sites_and_never_comes_back(fed):
    add_relay(fed, "east", EAST)
    admitted(fed, "north")
    with pytest.raises(RefusedError, match="a site has this name"):
        add_relay(fed, "north", EAST)
    for calls in (lambda: invite(fed, "east"), lambda: admitted(fed, "east")):
        with pytest.raises(RefusedError, match="a relay has this name"):
            calls()
    withdraw_relay(fed, "east")
    with pytest.raises(RefusedError, match="withdrawn"):
        add_relay(fed, "east", EAST)
    for calls in (lambda: invite(fed, "south", "east"), lambda: withdraw_relay(fed, "east")):
        with pytest.raises(RefusedError, match="this relay was withdrawn"):
            calls()
    with pytest.raises(RefusedError, match="no such relay"):
        standing_relay(fed, "west")


def test_an_invite_that_is_withdrawn_leaves_no_word_of_a_relay(fed):
    add_relay(fed, "east", EAST)
    invite(fed, "north", "east")
    assert withdraw_invites(fed, "north")
    assert relay_of(fed, "north") == ""


@pytest.mark.parametrize(
    ("name", "address"), [("East", EAST), ("", EAST), ("east", "no-port"), ("../east", EAST)]
)
def test_what_is_no_relay_is_told_field_by_field_and_leaves_nothing(fed, name, address):
    with pytest.raises(InputDataError):
        add_relay(fed, name, address)
    assert known_relays(fed) == {}


def test_a_relay_is_there_for_seconds_after_its_word(fed):
    add_relay(fed, "east", EAST)
    relay = known_relays(fed)["east"]
    assert relay.online(lambda: 1000.0) is None
    relay.note_here({"north"}, lambda: 1000.0)
    assert relay.online(lambda: 1000.0 + HERE_S - 1) == {"north"}
    assert relay.online(lambda: 1000.0 + HERE_S) is None
    assert relay.online(lambda: 1000.0 - HERE_S) is None, "a clock that was set back"
    (relay.folder / "here.json").write_text("{")
    assert relay.online(lambda: 1000.0) is None


def test_a_record_that_was_damaged_is_said_and_not_skipped(fed):
    add_relay(fed, "east", EAST)
    (fed.relays / "east" / "relay.json").write_text("{}")
    with pytest.raises(InternalError, match="a relay's record cannot be read"):
        known_relays(fed)


def test_a_file_comes_back_as_it_was_and_is_its_owners_alone(fed, tmp_path):
    made, path = add_relay(fed, "east", EAST), tmp_path / "east.toml"
    write_relay_file(path, made)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_relay_file(path) == made
    assert made.node_key not in repr(made)
    path.chmod(0o640)
    with pytest.raises(InputDataError):
        read_relay_file(path)


def test_a_folder_is_laid_out_from_the_file_and_keeps_its_archive(fed, tmp_path):
    made = add_relay(fed, "east", EAST)
    relay = unpack(tmp_path / "east", made, "127.0.0.1", listening_port(EAST))
    assert relay.is_one
    assert relay.file() == made
    assert (relay.federation.settings().port, relay.members()) == (9443, [])
    for name in ("server.key", "node.key", "desk.key"):
        assert stat.S_IMODE((relay.federation.pki / name).stat().st_mode) == 0o600
    assert not (relay.federation.pki / "ca.key").exists()
    assert not (relay.federation.pki / "witness.key").exists()
    record = known_relays(fed)["east"]
    assert node_public_line(relay.node_key()) == record.node_key
    assert relay.desk_key().public == record.desk_key
    (relay.archive / "run-1").mkdir()
    again = unpack(tmp_path / "east", add_relay(fed, "east", EAST), "127.0.0.1", 9443)
    assert (again.archive / "run-1").is_dir()
    assert again.desk_key().public == known_relays(fed)["east"].desk_key
    certificate = read_certificate(again.federation.pki / "server.crt")
    assert "east.example.org" in str(certificate.extensions)


def test_another_relays_folder_is_left_alone(fed, tmp_path):
    unpack(tmp_path / "relay", add_relay(fed, "east", EAST), "127.0.0.1", 9443)
    with pytest.raises(InputDataError, match="another relay's folder"):
        unpack(tmp_path / "relay", add_relay(fed, "west", EAST), "127.0.0.1", 9443)
    assert RelayFolder(tmp_path / "relay").file().name == "east"


def test_the_sites_that_were_named_last_are_kept(fed, tmp_path):
    relay = unpack(tmp_path / "relay", add_relay(fed, "east", EAST), "127.0.0.1", 9443)
    named = [Member("north", "key"), Member("south", "other", revoked=True)]
    relay.keep_members(named)
    assert relay.members() == named
    (relay.root / "members.json").write_text("[{}]")
    with pytest.raises(InternalError, match="cannot be read"):
        relay.members()
