"""Who gets into a federation over the network, and what it may ask afterwards."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from aggregator.admin import sealed
from aggregator.admin.certificates import issue_to_site
from aggregator.admin.enrol import admit, admit_waiting, revoke
from aggregator.admin.invites import make_invite
from aggregator.desk.server import DeskServer
from common.crypto.certificates import (
    certificate_to_pem,
    create_authority,
    days_left,
    issue_server_certificate,
    read_certificate,
    read_tls_key,
    write_certificate,
    write_tls_key,
)
from common.crypto.clients import ClientName, client_of
from common.crypto.identity import SigningKey, read_signing_key
from common.crypto.sealing import Label, sign_box
from common.desk import desk_pb2 as pb
from common.desk.channel import DeskAddress, connected
from common.desk.desk_pb2_grpc import EnrolmentStub
from common.desk.signing import LedgerSigner, TlsSigner, now_ms, sign_request
from common.enrolment import parse_request
from common.errors import (
    CairnError,
    InputDataError,
    RefusedError,
    UnreachableError,
    VerificationError,
)
from site_client import enrol
from site_client.join import join_again

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def call(served, method: str, request):
    """One call at the enrolment desk, as any client could make it."""
    peer = DeskAddress(
        served.settings.public_enrolment, (served.folder.pki / "ca.crt").read_bytes()
    )
    with connected(peer) as channel:
        return getattr(EnrolmentStub(channel), method)(request, timeout=10)


def signed(site, method: str, body: bytes = b"", signer=None, **words) -> pb.SignedRequest:
    known = site.settings()
    signer = signer or LedgerSigner(read_signing_key(site.ledger_key))
    return sign_request(known.federation, method, known.site, body, signer, **words)


# Enrolment by token.


def test_a_good_token_admits_a_site_and_gives_it_a_certificate_for_its_own_key(served):
    invite = served.invite()
    site = served.site(invite)
    standing = served.send(invite, site)
    assert standing.state == "admitted"
    assert abs(standing.skew_s) < 30
    assert served.folder.admitted()["north"].request == served.request(site)
    certificate = read_certificate(site.tls_certificate)
    assert certificate.public_key() == read_tls_key(site.tls_key).public_key()
    assert client_of(certificate) == ClientName("site", "north")
    assert standing.certificate_days == enrol.certificate_days(site) == days_left(certificate)


def test_the_aggregator_keeps_the_digest_of_a_token_and_never_the_token(served):
    invite = served.invite()
    assert invite.token is not None
    for path in served.folder.root.rglob("*"):
        if path.is_file():
            assert invite.token.encode() not in path.read_bytes(), path
            assert invite.token not in path.name
    assert invite.token not in repr(invite)


def test_a_lost_answer_costs_nothing_the_same_keys_are_answered_the_same(served):
    invite = served.invite()
    site = served.site(invite)
    served.send(invite, site)
    first = site.tls_certificate.read_bytes()
    site.tls_certificate.unlink()
    assert served.send(invite, site).state == "admitted"
    assert site.tls_certificate.read_bytes() == first


def test_a_token_lets_in_one_set_of_keys_only(served):
    invite = served.invite()
    served.send(invite, served.site(invite))
    other = served.site(invite, "thief")
    with pytest.raises(RefusedError, match="used already") as caught:
        served.send(invite, other)
    assert caught.value.field == "token"
    assert "new invite" in caught.value.advice
    assert not other.tls_certificate.exists()


def test_an_expired_token_lets_nobody_in(served):
    invite = served.invite(days=7, now=LONG_AGO)
    with pytest.raises(RefusedError, match="expired") as caught:
        served.send(invite, served.site(invite))
    assert caught.value.got.startswith("2020-01-08")
    assert served.folder.admitted() == {}


def test_a_token_spent_in_time_answers_its_keys_after_its_time(served):
    invite = served.invite()
    site = served.site(invite)
    served.send(invite, site)
    (path,) = served.folder.invites.iterdir()
    text = path.read_text().replace(str(datetime.now(UTC).year), "2020", 1)
    path.write_text(text)
    assert served.send(invite, site).state == "admitted"


def test_a_token_of_another_federation_is_not_known(served):
    invite = served.invite()
    site = served.site(invite)
    foreign = invite.model_copy(update={"token": "A" * 43})
    with pytest.raises(RefusedError, match="not known here"):
        served.send(foreign, site)


def test_a_token_for_one_name_serves_no_other(served):
    north, south = served.invite("north"), served.invite("south")
    site = served.site(south)
    stolen = south.model_copy(update={"token": north.token})
    with pytest.raises(RefusedError, match="another site"):
        served.send(stolen, site)


def test_keys_that_must_wait_are_admitted_by_the_coordinator_and_asked_after(served):
    invite = served.invite(auto_admit=False)
    site = served.site(invite)
    assert served.send(invite, site).state == "waiting"
    assert served.folder.admitted() == {}
    assert enrol.ask_standing(site).state == "waiting"
    with pytest.raises(RefusedError, match="not admitted yet"):
        call(served, "ListPeers", signed(site, "ListPeers"))
    admit_waiting(served.folder, "north")
    assert enrol.ask_standing(site).state == "admitted"
    assert site.tls_certificate.exists()
    assert served.folder.waiting() == {}


def test_a_request_signed_by_somebody_else_is_refused(served):
    invite = served.invite()
    site = served.site(invite)
    bent = served.request(site).signed(SigningKey.generate())
    site.request_file.write_bytes(bent.to_json())
    with pytest.raises(VerificationError, match="signature"):
        served.send(invite, site)


@pytest.mark.parametrize("name", ["sealing_key", "tls_csr"])
def test_a_request_without_one_of_the_keys_is_refused_by_name(served, name):
    invite = served.invite()
    site = served.site(invite)
    key = read_signing_key(site.ledger_key)
    less = served.request(site).model_copy(update={name: None}).signed(key)
    site.request_file.write_bytes(less.to_json())
    with pytest.raises(InputDataError) as caught:
        served.send(invite, site)
    assert caught.value.field == name


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"x" * 20_000, b'{"v": 1}', b"\xff"])
def test_bytes_that_are_no_request_are_bad_input(served, data):
    invite = served.invite()
    with pytest.raises(InputDataError, match="join request"):
        call(served, "Enrol", pb.EnrolRequest(token=invite.token, join_request=data))


# Who answers, and who does not.


def within_5_s(action, error: type[CairnError]) -> CairnError:
    start = time.monotonic()
    with pytest.raises(error) as caught:
        action()
    assert time.monotonic() - start < 5, "within five seconds"
    return caught.value


def test_a_wrong_ca_is_told_from_a_wrong_address_before_a_byte_is_sent(served):
    invite, (_, other) = served.invite(), create_authority("brains")
    pem = certificate_to_pem(other).decode()
    forged = invite.model_copy(update={"ca_certificate": pem})
    error = within_5_s(lambda: enrol.look_who_answers(forged), VerificationError)
    assert error.field == invite.enrolment
    assert "another authority" in error.got
    assert "telephone" in error.advice


def test_a_certificate_for_another_host_is_not_taken(served):
    invite = served.invite()
    port = invite.enrolment.rpartition(":")[2]
    moved = invite.model_copy(update={"enrolment": f"localhost:{port}"})
    error = within_5_s(lambda: enrol.look_who_answers(moved), VerificationError)
    assert "another host name" in error.got


def test_an_unreachable_desk_is_named_with_its_address(served):
    invite = served.invite().model_copy(update={"enrolment": "127.0.0.1:9"})
    error = within_5_s(lambda: enrol.look_who_answers(invite), UnreachableError)
    assert error.field == "127.0.0.1:9"
    assert "--offline" in error.advice


def test_an_expired_server_certificate_is_named(new_federation):
    folder = new_federation
    key, certificate = issue_server_certificate(
        read_tls_key(folder.pki / "ca.key"),
        read_certificate(folder.pki / "ca.crt"),
        ["127.0.0.1"],
        days=1,
        now=LONG_AGO,
    )
    for name in ("server.key", "server.crt"):
        (folder.pki / name).unlink()
    write_tls_key(folder.pki / "server.key", key)
    write_certificate(folder.pki / "server.crt", certificate)
    server = DeskServer(folder)
    server.start()
    try:
        invite = make_invite(folder, "north", "0" * 64)
        error = within_5_s(lambda: enrol.look_who_answers(invite), VerificationError)
        assert "expired" in error.got
    finally:
        server.stop()


# After admission.


def test_a_revoked_site_is_refused_at_every_method(served):
    site = served.enrolled()
    revoke(served.folder, "north")
    for method in ("EnrolStatus", "Renew", "ListPeers", "PutSealedKeys", "GetSealedKey"):
        with pytest.raises(RefusedError, match="revoked"):
            call(served, method, signed(site, method))
    with pytest.raises(RefusedError, match="revoked"):
        served.invite()


def test_no_method_takes_another_sites_signature(served):
    north, south = served.enrolled("north"), served.enrolled("south")
    thief = LedgerSigner(read_signing_key(south.ledger_key))
    for method in ("EnrolStatus", "Renew", "ListPeers", "PutSealedKeys", "GetSealedKey"):
        with pytest.raises(VerificationError, match="does not hold"):
            call(served, method, signed(north, method, signer=thief))


def test_a_request_is_taken_once(served):
    request = signed(served.enrolled(), "EnrolStatus")
    call(served, "EnrolStatus", request)
    with pytest.raises(RefusedError, match="sent twice"):
        call(served, "EnrolStatus", request)


def test_a_request_for_one_method_serves_no_other(served):
    with pytest.raises(VerificationError):
        call(served, "Renew", signed(served.enrolled(), "EnrolStatus"))


def test_a_clock_that_is_off_is_refused_with_the_difference(served):
    site = served.enrolled()
    late = signed(site, "EnrolStatus", unix_ms=now_ms() - 600_000)
    with pytest.raises(VerificationError, match=r"\d+ s behind") as caught:
        call(served, "EnrolStatus", late)
    assert "NTP" in caught.value.advice


def test_a_name_nobody_has_is_not_known(served):
    site = served.enrolled()
    request = signed(site, "Renew")
    request.site = "nobody"
    with pytest.raises(RefusedError, match="no such site"):
        call(served, "Renew", request)


def test_a_young_certificate_is_kept_and_an_old_one_renewed_for_the_same_key(served):
    site = served.enrolled()
    young = site.tls_certificate.read_bytes()
    enrol.renew_certificate(site)
    assert site.tls_certificate.read_bytes() == young
    request = served.request(site)
    issue_to_site(served.folder, request, datetime.now(UTC) - timedelta(days=80))
    left = enrol.renew_certificate(site)
    assert left >= 88
    renewed = read_certificate(site.tls_certificate)
    assert site.tls_certificate.read_bytes() != young
    assert renewed.public_key() == read_tls_key(site.tls_key).public_key()
    assert served.folder.admitted()["north"].request == request, "same identity"


def test_renewal_is_due_when_the_days_run_out(served):
    site = served.enrolled()
    before = site.tls_certificate.read_bytes()
    assert enrol.renew_if_due(site) >= 88
    assert site.tls_certificate.read_bytes() == before
    old = issue_to_site(served.folder, served.request(site), datetime.now(UTC) - timedelta(days=60))
    site.tls_certificate.write_bytes(old)
    assert enrol.certificate_days(site) <= 30
    assert enrol.renew_if_due(site) >= 88


def test_a_courier_keeps_its_certificate_renewed_and_lives_on_when_it_cannot(served):
    site = served.enrolled()
    old = issue_to_site(served.folder, served.request(site), datetime.now(UTC) - timedelta(days=60))
    site.tls_certificate.write_bytes(old)
    stop, said = threading.Event(), []

    def say(text: str) -> None:
        said.append(text)
        stop.set()

    enrol.keep_renewed(site, stop, say)
    assert said == ["certificate renewed; good for 89 days"]
    issue_to_site(served.folder, served.request(site), datetime.now(UTC) - timedelta(days=91))
    site.tls_certificate.write_bytes((served.folder.sites / "north/tls.crt").read_bytes())
    stop.clear()
    said.clear()
    enrol.keep_renewed(site, stop, say)
    assert "not renewed" in said[0]
    assert "has expired" in said[0]


def test_an_expired_certificate_is_not_renewed_and_a_new_invite_mends_it(served):
    site = served.enrolled()
    issue_to_site(served.folder, served.request(site), datetime.now(UTC) - timedelta(days=91))
    with pytest.raises(VerificationError, match="has expired") as caught:
        enrol.renew_certificate(site)
    assert "new invite" in caught.value.advice
    key = site.ledger_key.read_bytes()
    invite = served.invite()
    join_again(invite, site, served.root / "images")
    assert served.send(invite, site).certificate_days >= 88
    assert site.ledger_key.read_bytes() == key
    assert enrol.renew_certificate(site) >= 88


def test_the_couriers_key_renews_and_carries_sealed_keys_and_does_nothing_else(served):
    site = served.enrolled()
    tls = TlsSigner(read_tls_key(site.tls_key))
    for method in ("Renew", "ListPeers", "GetSealedKey"):
        call(served, method, signed(site, method, signer=tls))
    with pytest.raises(RefusedError, match="does not serve"):
        call(served, "EnrolStatus", signed(site, "EnrolStatus", signer=tls))


def test_a_site_of_an_earlier_release_joins_again_with_its_own_keys(served):
    invite = served.invite(by_mail=True)
    site = served.site(invite)
    old = served.request(site).model_copy(
        update={"sealing_key": None, "tls_csr": None, "signature": None}
    )
    for path in (site.sealing_key, site.tls_key, site.request_file):
        path.unlink()
    site.request_file.write_bytes(old.to_json())
    admit(served.folder, old)
    again = served.invite()
    join_again(again, site, served.root / "images")
    assert served.send(again, site).state == "admitted"
    known = served.folder.admitted()["north"].request
    assert (known.node_key, known.ledger_key) == (old.node_key, old.ledger_key)
    assert known.sealing_key is not None


# Sealed keys.


def box(**changes) -> pb.SealedKey:
    """What a worker would have signed, as far as the desk can tell."""
    words = {
        "for_site": "south",
        "from_site": "north",
        "key_id": "0123456789abcdef",
        "generation": 1,
        "ciphertext": b"sealed",
    }
    return pb.SealedKey(**(words | changes))


def put(sender, *boxes, signer=None) -> pb.PutSealedKeysReply:
    """Put boxes as the site ``sender``, signed by its ledger key for their receivers."""
    return enrol.put_sealed_keys(sender, [by(sender, one, signer) for one in boxes])


def by(sender, sealed_key, signer=None) -> pb.SealedKey:
    done, known = pb.SealedKey(), sender.root.parent / sealed_key.for_site / "worker/ledger.key"
    done.CopyFrom(sealed_key)
    label = Label(
        federation=sender.settings().federation,
        generation=done.generation,
        key_id=done.key_id,
        from_site=done.from_site,
        for_site=done.for_site,
        for_ledger_key=read_signing_key(known).public.fingerprint if known.exists() else "0" * 64,
    )
    key = signer or read_signing_key(sender.ledger_key)
    done.signature = sign_box(done.ciphertext, label, key)
    return done


def test_a_sealed_key_comes_out_as_it_went_in_at_the_site_it_is_for_alone(served):
    north, south, east = (served.enrolled(name) for name in ("north", "south", "east"))
    reply = put(north, box(), box(for_site="north", ciphertext=b"own"))
    assert reply.stored == 2
    found = enrol.get_sealed_key(south)
    assert found.key == by(north, box())
    assert not enrol.get_sealed_key(east).HasField("key")
    assert enrol.get_sealed_key(east).federation_key == pb.KeyGeneration(
        generation=1, key_id="0123456789abcdef", made_by="north"
    )


def test_generations_go_forward_one_key_at_a_time(served):
    north, south = served.enrolled("north"), served.enrolled("south")
    put(north, box())
    put(south, box(from_site="south", for_site="north"))  # the same key
    mine = {"from_site": "south", "for_site": "north"}
    for bad in (
        box(**mine, key_id="f" * 16),  # a second key of this generation
        box(**mine, generation=3),  # a gap
        box(**mine, generation=0),
    ):
        with pytest.raises(RefusedError, match="next"):
            put(south, bad)
    put(south, box(**mine, generation=2, key_id="f" * 16))
    with pytest.raises(RefusedError, match="next"):
        put(north, box())
    assert enrol.get_sealed_key(north).key.generation == 2
    assert enrol.get_sealed_key(north, 1).key.key_id == "0123456789abcdef"
    assert sealed.newest(served.folder).made_by == "south"


def test_a_courier_that_lost_its_mind_can_put_no_key_of_its_own(served):
    north = served.enrolled("north")
    served.enrolled("south")
    with pytest.raises(VerificationError, match="does not hold"):
        put(north, box(), signer=SigningKey.generate())
    replayed = by(north, box())
    replayed.generation = 2
    put(north, box())
    with pytest.raises(VerificationError, match="does not hold"):
        enrol.put_sealed_keys(north, [replayed])
    assert sealed.newest(served.folder).generation == 1


def test_a_revocation_asks_for_the_next_generation_until_it_is_there(served):
    north, _, _ = (served.enrolled(name) for name in ("north", "south", "east"))
    revoke(served.folder, "east")  # before there was a key: it has none
    put(north, box(), box(for_site="north"))
    assert not enrol.list_peers(north).federation_key.renew
    revoke(served.folder, "south")
    assert enrol.list_peers(north).federation_key.renew
    following = box(for_site="north", generation=2, key_id="f" * 16)
    with pytest.raises(RefusedError, match="not admitted"):
        put(north, following, box(generation=2, key_id="f" * 16))
    put(north, following)
    newest = enrol.list_peers(north).federation_key
    assert (newest.generation, newest.renew) == (2, False)


def test_two_new_keys_at_once_are_refused_whole(served):
    north = served.enrolled("north")
    served.enrolled("south")
    with pytest.raises(RefusedError):
        put(north, box(), box(for_site="north", key_id="f" * 16))
    assert sealed.newest(served.folder).generation == 0


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"from_site": "south"}, RefusedError),
        ({"for_site": "nobody"}, RefusedError),
        ({"for_site": "../south"}, RefusedError),
        ({"key_id": "xyz"}, InputDataError),
        ({"ciphertext": b""}, InputDataError),
        ({"ciphertext": b"x" * 5000}, InputDataError),
    ],
)
def test_what_is_no_key_for_an_admitted_site_in_ones_own_name_is_not_kept(served, changes, error):
    north = served.enrolled("north")
    served.enrolled("south")
    with pytest.raises(error):
        put(north, box(**changes))
    assert not list(served.folder.sites.rglob("sealed/*"))


def test_peers_are_the_admitted_sites_with_what_each_signed(served):
    north, south = served.enrolled("north"), served.enrolled("south")
    put(north, box())
    peers = {peer.site: peer for peer in enrol.list_peers(south).peers}
    assert {name: peer.generation for name, peer in peers.items()} == {"north": 0, "south": 1}
    for name, site in (("north", north), ("south", south)):
        request = parse_request(peers[name].join_request)
        request.verify()
        assert request == served.request(site)
    revoke(served.folder, "north")
    assert [peer.site for peer in enrol.list_peers(south).peers] == ["south"]
