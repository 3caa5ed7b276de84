"""The site's side of the enrolment desk: send the request, ask, renew, relay sealed keys.

Speaks to the address of the invite only, trusts the invite's authority only, and
sends nothing but what ``desk.proto`` names: public keys, signatures, sealed keys.
Whatever comes back is checked against the authority and our own keys before it is
written. Opens no image and reads no ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Literal

from cryptography import x509

from common.crypto.certificates import (
    certificate_to_pem,
    days_left,
    parse_certificate,
    read_certificate,
    read_tls_key,
)
from common.crypto.clients import ClientName, check_client_certificate
from common.crypto.files import read_public
from common.crypto.identity import read_signing_key
from common.desk import desk_pb2 as pb
from common.desk.channel import CALL_S, DeskAddress, connected, greet
from common.desk.desk_pb2_grpc import EnrolmentStub
from common.desk.listening import Listening, standing_channel
from common.desk.signing import LedgerSigner, RequestSigner, TlsSigner, now_ms, sign_request
from common.enrolment import Invite
from common.errors import CairnError, InputDataError, InternalError, RefusedError, UnreachableError
from site_client.files import write_atomically
from site_client.journal import LongCall, desk_meter
from site_client.site import SiteFolder

RENEW_BELOW_DAYS = 45
LOOK_S = 6 * 3600.0


@dataclass(frozen=True)
class Admission:
    """This site's standing with the aggregator.

    Attributes:
        state: admitted, or waiting for the coordinator.
        certificate_days: until our certificate expires; None while we wait.
        skew_s: seconds by which this machine's clock is ahead of the aggregator's.
        generation: of the newest federation key that any site has sealed; 0: none.
    """

    state: Literal["waiting", "admitted"]
    certificate_days: int | None
    skew_s: float
    generation: int


def look_who_answers(invite: Invite) -> None:
    """Return only if the federation's own desk answers at the invite's address.

    Raises:
        UnreachableError: nobody answers; nothing was made or sent.
        VerificationError: somebody else does.
    """
    if invite.enrolment is None:
        raise _no_token()
    try:
        greet(DeskAddress(invite.enrolment, invite.ca_certificate.encode()))
    except UnreachableError as error:
        raise UnreachableError(
            error.problem,
            field=error.field,
            expected=error.expected,
            got=error.got,
            advice="Ask whether it runs and this machine may reach it; or join with --offline "
            "and send request.json by mail",
        ) from error


def send_request(invite: Invite, site: SiteFolder) -> Admission:
    """Send our request.json with the invite's token; the same again is answered the same.

    Raises:
        UnreachableError: nobody answers at the invite's address.
        VerificationError: somebody else does, or what came back is not ours.
        RefusedError: an unknown, used or expired token, or a revoked site.
        InputDataError: the invite has no token.
    """
    if invite.enrolment is None or invite.token is None:
        raise _no_token()
    data = site.request_file.read_bytes()
    with _stub(site, invite.enrolment, invite.ca_certificate.encode()) as stub:
        request = pb.EnrolRequest(token=invite.token, join_request=data)
        reply = stub.Enrol(request, timeout=CALL_S)
    return _take(site, reply)


def ask_standing(site: SiteFolder) -> Admission:
    """Ask how we stand, and take the certificate that was issued meanwhile.

    Raises:
        CairnError: as ``send_request``.
    """
    with _desk(site) as stub:
        body = pb.EnrolStatusBody().SerializeToString()
        request = _sign(site, "EnrolStatus", body, _ledger(site))
        reply = stub.EnrolStatus(request, timeout=CALL_S)
    return _take(site, reply)


def renew_certificate(site: SiteFolder) -> int:
    """Ask for a certificate with its full time ahead; keys and identity stay as they are.

    The courier's TLS key is enough, so that no key of the worker is needed.

    Returns:
        Days until the certificate now in place expires.

    Raises:
        RefusedError: the site was revoked.
        VerificationError: the certificate has expired already, or clocks differ.
        UnreachableError: nobody answers.
    """
    with _desk(site) as stub:
        request = _sign(site, "Renew", pb.RenewBody().SerializeToString(), _tls(site))
        reply = stub.Renew(request, timeout=CALL_S)
    certificate = _check(site, reply.certificate)
    _write(site, certificate)
    return days_left(certificate)


def renew_if_due(site: SiteFolder, now: datetime | None = None) -> int | None:
    """Renew when fewer than 45 days are left.

    Returns:
        Days left now; None for a site without a certificate.

    Raises:
        CairnError: as ``renew_certificate``.
    """
    days = certificate_days(site, now)
    if days is None or days >= RENEW_BELOW_DAYS:
        return days
    return renew_certificate(site)


def keep_renewed(site: SiteFolder, stop: Event, say: Callable[[str], None]) -> None:
    """Until ``stop`` is set: renew in time, a few times a day, and say what prevents it.

    For the courier, which has the TLS key and the network. A site that joined by mail
    has nothing to renew. Nothing that goes wrong here ends a courier: rounds do not
    depend on the certificate.
    """
    if site.settings().enrolment is None:
        return
    while not stop.is_set():
        try:
            before = certificate_days(site)
            days = renew_if_due(site)
            if days is not None and days != before:
                say(f"certificate renewed; good for {days} days")
        except CairnError as error:
            say(f"certificate not renewed: {error}")
        stop.wait(LOOK_S)


def certificate_days(site: SiteFolder, now: datetime | None = None) -> int | None:
    """Whole days until our certificate expires (negative: it has); None without one.

    Raises:
        InputDataError: the file is not one certificate.
    """
    if not site.has_certificate:
        return None
    return days_left(read_certificate(site.tls_certificate), now)


@contextmanager
def orders_awaited(
    site: SiteFolder, long: LongCall, hear: Callable[[pb.OrderWaits], None], life_s: float
) -> Iterator[Listening[pb.OrderWaits]]:
    """Be told, while this lasts, when an order waits for this site.

    Args:
        site: the site's folder.
        long: counts the connection.
        hear: takes every word, in another thread.
        life_s: seconds after which the call is over, whatever the desk does.

    Raises:
        CairnError: as ``renew_certificate``.
    """
    address, desk = _desk_of(site)
    with ExitStack() as stack:
        stack.callback(long.end)
        # Nobody else of this process connects until it is known which connection is this one.
        with desk_meter(site, address) as meter:
            greet(desk, meter)
            try:
                stub = EnrolmentStub(stack.enter_context(standing_channel(desk)))
            finally:
                meter.standing(long)
            body = pb.AwaitOrdersBody().SerializeToString()
            request = _sign(site, "AwaitOrders", body, _tls(site))
            meter.calling("AwaitOrders", request.SerializeToString())
        call = stub.AwaitOrders(request, timeout=life_s)
        stack.callback(call.cancel)
        yield Listening(call, desk, hear)


def list_peers(site: SiteFolder) -> pb.ListPeersReply:
    """The admitted sites, each with its own signed request.

    What each signed is for the caller to verify, and its ledger key for two people
    to compare: the aggregator hands the list out, and could add to it.

    Raises:
        CairnError: as ``renew_certificate``.
    """
    with _desk(site) as stub:
        body = pb.ListPeersBody().SerializeToString()
        return stub.ListPeers(_sign(site, "ListPeers", body, _tls(site)), timeout=CALL_S)


def put_sealed_keys(site: SiteFolder, keys: Sequence[pb.SealedKey]) -> pb.PutSealedKeysReply:
    """Have the aggregator keep what we sealed for other sites.

    Raises:
        RefusedError: another site was first with this generation, or it is not the next.
        CairnError: as ``renew_certificate``.
    """
    with _desk(site) as stub:
        body = pb.PutSealedKeysBody(keys=keys).SerializeToString()
        request = _sign(site, "PutSealedKeys", body, _tls(site))
        return stub.PutSealedKeys(request, timeout=CALL_S)


def get_sealed_key(site: SiteFolder, generation: int = 0) -> pb.GetSealedKeyReply:
    """Get what another site sealed for us: of one generation, or (0) the newest.

    Raises:
        CairnError: as ``renew_certificate``.
    """
    with _desk(site) as stub:
        body = pb.GetSealedKeyBody(generation=generation).SerializeToString()
        request = _sign(site, "GetSealedKey", body, _tls(site))
        return stub.GetSealedKey(request, timeout=CALL_S)


@contextmanager
def _stub(site: SiteFolder, address: str, authority: bytes) -> Iterator[EnrolmentStub]:
    with (
        desk_meter(site, address) as meter,
        connected(DeskAddress(address, authority), meter) as channel,
    ):
        yield EnrolmentStub(channel)


@contextmanager
def _desk(site: SiteFolder) -> Iterator[EnrolmentStub]:
    address, desk = _desk_of(site)
    with _stub(site, address, desk.authority) as stub:
        yield stub


def _desk_of(site: SiteFolder) -> tuple[str, DeskAddress]:
    """Return the desk that this site has joined at.

    Raises:
        InputDataError: it joined by mail.
    """
    settings = site.settings()
    if settings.enrolment is None:
        raise InputDataError(
            "this site joined by mail",
            field="enrolment",
            expected="host:port in site.toml",
            got="nothing",
            advice="Ask the coordinator for an invite with a token, and join with it: keys stay",
        )
    return settings.enrolment, DeskAddress(settings.enrolment, read_public(site.authority))


def _ledger(site: SiteFolder) -> LedgerSigner:
    return LedgerSigner(read_signing_key(site.ledger_key))


def _tls(site: SiteFolder) -> TlsSigner:
    """The courier's key: what is carried is public, or sealed and signed by the worker."""
    return TlsSigner(read_tls_key(site.tls_key))


def _sign(site: SiteFolder, method: str, body: bytes, signer: RequestSigner) -> pb.SignedRequest:
    settings = site.settings()
    return sign_request(settings.federation, method, settings.site, body, signer)


def _no_token() -> InputDataError:
    return InputDataError(
        "this invite has no token",
        field="enrolment",
        expected="host:port and a token",
        got="nothing",
        advice="Send request.json to the coordinator by mail",
    )


def _take(site: SiteFolder, reply: pb.EnrolReply) -> Admission:
    skew = (now_ms() - reply.server_unix_ms) / 1000
    generation = reply.federation_key.generation
    if reply.state == pb.ENROL_STATE_WAITING:
        return Admission("waiting", None, skew, generation)
    if reply.state != pb.ENROL_STATE_ADMITTED:
        raise InternalError("an answer that this release does not know", field="state")
    if not reply.certificate:
        raise RefusedError("admitted without a certificate", field="certificate", got="nothing")
    certificate = _check(site, reply.certificate)
    _write(site, certificate)
    return Admission("admitted", days_left(certificate), skew, generation)


def _check(site: SiteFolder, pem: bytes) -> x509.Certificate:
    certificate = parse_certificate(pem)
    check_client_certificate(
        certificate,
        read_certificate(site.authority),
        read_tls_key(site.tls_key).public_key(),
        ClientName("site", site.settings().site),
    )
    return certificate


def _write(site: SiteFolder, certificate: x509.Certificate) -> None:
    path: Path = site.tls_certificate
    write_atomically(path, certificate_to_pem(certificate))
