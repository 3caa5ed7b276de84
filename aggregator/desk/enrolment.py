"""The ``Enrolment`` service: a token opens it once, afterwards a signature over every request.

Answers only what a site may know: how it stands itself, the public keys of the
others, and what they sealed for it; and a relay, which sites are behind it. Each nonce is
taken once, and strangers may knock so often and no more (``limits``).
"""

# ruff: noqa: N802 - gRPC calls methods by the names of desk.proto

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import TypeVar

import grpc
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import DecodeError, Message

from aggregator.admin import arrival, sealed
from aggregator.admin.certificates import renew, valid_certificate
from aggregator.admin.folder import AdmittedSite, FederationFolder
from aggregator.admin.invites import Enrolled, admitted_site, enrol, site_that_asks, standing
from aggregator.admin.relays import members_of, standing_relay
from aggregator.bells import ring
from aggregator.desk.answering import Count, answering
from aggregator.desk.limits import Knocking, address_of
from aggregator.desk.telling import Telling
from common.crypto.identity import PublicKey
from common.desk import desk_pb2 as pb
from common.desk import desk_pb2_grpc
from common.desk.signing import LARGEST_SKEW_MS, check_signature, now_ms
from common.enrolment import JoinRequest, parse_request
from common.errors import InputDataError, InternalError, RefusedError

MOST_NONCES = 100_000
MOST_OF_ONE_SITE = 10_000
"""Nonces of one site that are remembered: one that asks for ever takes nothing from others."""
_Body = TypeVar("_Body", bound=Message)


class Nonces:
    """The nonces of the last minutes; none is taken twice."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, bytes], int] = OrderedDict()
        self._of: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, site: str, nonce: bytes, at_ms: int) -> None:
        """Remember a nonce for as long as its request could be sent again.

        Raises:
            RefusedError: it was taken before, or too many requests came at once.
        """
        with self._lock:
            while self._seen and next(iter(self._seen.values())) < at_ms - 3 * LARGEST_SKEW_MS:
                (asked, _), _ = self._seen.popitem(last=False)
                self._of[asked] -= 1
            full = len(self._seen) >= MOST_NONCES or self._of[site] >= MOST_OF_ONE_SITE
            if (site, nonce) in self._seen or full:
                raise RefusedError(
                    "a request was sent twice",
                    field="nonce",
                    expected="a new one",
                    got="an old one",
                )
            self._seen[site, nonce] = at_ms
            self._of[site] += 1


class EnrolmentService(desk_pb2_grpc.EnrolmentServicer):
    """Answers sites.

    Args:
        folder: the federation's.
        count: takes a method's name and how it ended.
        knocking: limits on the one call that nobody has signed.
        telling: tells sites that an order waits; nobody is told when omitted.
    """

    def __init__(
        self,
        folder: FederationFolder,
        count: Count,
        knocking: Knocking | None = None,
        telling: Telling | None = None,
    ) -> None:
        self._folder = folder
        self._count = count
        self._nonces = Nonces()
        self._handed: dict[str, int] = {}
        self._telling = telling
        self._knocking = knocking or Knocking()

    def Enrol(self, request: pb.EnrolRequest, context: grpc.ServicerContext) -> pb.EnrolReply:
        """Let keys in with a token."""
        with answering("Enrol", context, self._count):
            said = {
                name: value
                for name, value in context.invocation_metadata()
                if isinstance(value, str)
            }
            self._knocking.require(address_of(context.peer(), said), request.token)
            join_request = parse_request(request.join_request)
            return self._stands(enrol(self._folder, request.token, join_request))

    def EnrolStatus(
        self, request: pb.SignedRequest, context: grpc.ServicerContext
    ) -> pb.EnrolReply:
        """Say how the site that asks stands."""
        with answering("EnrolStatus", context, self._count):
            site = self._asks("EnrolStatus", request)
            body_of(pb.EnrolStatusBody, request)
            return self._stands(standing(self._folder, site))

    def Renew(self, request: pb.SignedRequest, context: grpc.ServicerContext) -> pb.RenewReply:
        """Return a certificate with its full time ahead."""
        with answering("Renew", context, self._count):
            site = self._admitted("Renew", request, tls_key_will_do=True)
            body_of(pb.RenewBody, request)
            with self._folder.locked():
                certificate = renew(self._folder, site)
            return pb.RenewReply(certificate=certificate, server_unix_ms=now_ms())

    def ListPeers(
        self, request: pb.SignedRequest, context: grpc.ServicerContext
    ) -> pb.ListPeersReply:
        """Return the admitted sites, with what each signed about its own keys."""
        with answering("ListPeers", context, self._count):
            asks = self._admitted("ListPeers", request, tls_key_will_do=True).name
            body_of(pb.ListPeersBody, request)
            # What a courier was handed before, it has given its worker before it asks again.
            arrival.note_asking(self._folder, asks, self._handed.get(asks, 0))
            peers = [
                pb.Peer(
                    site=site.name,
                    join_request=site.request.to_json(),
                    generation=0 if box is None else box.generation,
                )
                for site in self._folder.admitted().values()
                for box in [sealed.fetch(self._folder, site.name)]
            ]
            return pb.ListPeersReply(peers=peers, federation_key=self._generation())

    def PutSealedKeys(
        self, request: pb.SignedRequest, context: grpc.ServicerContext
    ) -> pb.PutSealedKeysReply:
        """Keep what the site that asks has sealed for others."""
        with answering("PutSealedKeys", context, self._count):
            site = self._admitted("PutSealedKeys", request, tls_key_will_do=True)
            keys = [
                sealed.Sealed(
                    for_site=key.for_site,
                    from_site=key.from_site,
                    key_id=key.key_id,
                    generation=key.generation,
                    ciphertext=key.ciphertext,
                    signature=key.signature,
                )
                for key in body_of(pb.PutSealedKeysBody, request).keys
            ]
            stored = sealed.put(self._folder, site.name, keys)
            return pb.PutSealedKeysReply(stored=stored, federation_key=self._generation())

    def GetSealedKey(
        self, request: pb.SignedRequest, context: grpc.ServicerContext
    ) -> pb.GetSealedKeyReply:
        """Hand over what was sealed for the site that asks."""
        with answering("GetSealedKey", context, self._count):
            site = self._admitted("GetSealedKey", request, tls_key_will_do=True)
            generation = body_of(pb.GetSealedKeyBody, request).generation
            parcel = sealed.fetch(self._folder, site.name, generation)
            reply = pb.GetSealedKeyReply(federation_key=self._generation())
            if parcel is not None:
                reply.key.CopyFrom(pb.SealedKey(**vars(parcel)))
                self._handed[site.name] = parcel.generation
            return reply

    def AwaitOrders(
        self, request: pb.SignedRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.OrderWaits]:
        """Say when an order waits for the site that asks, while it is admitted and there."""
        with answering("AwaitOrders", context, self._count):
            site = self._admitted("AwaitOrders", request, tls_key_will_do=True)
            body_of(pb.AwaitOrdersBody, request)
            if self._telling is None:
                raise RefusedError("nobody is told here", advice="Who is not told asks")
            context.add_callback(self._telling.wake)
            for ask in self._telling.words(
                site.name, lambda: context.is_active() and not site.revoked
            ):
                yield pb.OrderWaits(ask=ask)

    def Relay(self, request: pb.SignedRequest, context: grpc.ServicerContext) -> pb.RelayReply:
        """Hear which sites are connected to a relay, tell some of them, and name its sites."""
        with answering("Relay", context, self._count):
            relay = standing_relay(self._folder, request.site)
            self._check("Relay", request, relay.desk_key, pb.REQUEST_KEY_LEDGER)
            body = body_of(pb.RelayBody, request)
            members = members_of(self._folder, relay.name)
            behind = {member.name for member in members if not member.revoked}
            relay.note_here(behind & set(body.online))
            ring(self._folder.order_bells, sorted(behind & set(body.told)))
            return pb.RelayReply(
                members=[
                    pb.RelayMember(site=m.name, node_key=m.node_key, revoked=m.revoked)
                    for m in members
                ],
                server_unix_ms=now_ms(),
            )

    def _asks(self, method: str, request: pb.SignedRequest) -> JoinRequest:
        """Return the site that signed a request with its ledger key, admitted or waiting."""
        site = site_that_asks(self._folder, request.site)
        self._check(method, request, PublicKey.parse(site.ledger_key), pb.REQUEST_KEY_LEDGER)
        return site

    def _admitted(
        self, method: str, request: pb.SignedRequest, *, tls_key_will_do: bool = False
    ) -> AdmittedSite:
        """Return the admitted site that signed a request, whose certificate is valid."""
        site = admitted_site(self._folder, request.site)
        if tls_key_will_do and request.key == pb.REQUEST_KEY_TLS:
            key = valid_certificate(site).public_key()
            if not isinstance(key, ec.EllipticCurvePublicKey):
                raise InternalError("a site's certificate has another kind of key")
            self._check(method, request, key, pb.REQUEST_KEY_TLS)
        else:
            self._check(method, request, site.ledger_key, pb.REQUEST_KEY_LEDGER)
            valid_certificate(site)
        return site

    def _check(
        self,
        method: str,
        request: pb.SignedRequest,
        key: PublicKey | ec.EllipticCurvePublicKey,
        kind: pb.RequestKey.ValueType,
    ) -> None:
        if request.key != kind:
            raise RefusedError(
                "signed with a key that does not serve this request",
                field="key",
                expected=pb.RequestKey.Name(kind),
                got="another kind",
            )
        at_ms = now_ms()
        name = self._folder.settings().name
        check_signature(name, method, request, key, at_ms=at_ms)
        self._nonces.take(request.site, request.nonce, at_ms)

    def _stands(self, enrolled: Enrolled) -> pb.EnrolReply:
        admitted = enrolled.state == "admitted"
        return pb.EnrolReply(
            state=pb.ENROL_STATE_ADMITTED if admitted else pb.ENROL_STATE_WAITING,
            certificate=enrolled.certificate,
            server_unix_ms=now_ms(),
            federation_key=self._generation(),
        )

    def _generation(self) -> pb.KeyGeneration:
        newest = sealed.newest(self._folder)
        return pb.KeyGeneration(
            generation=newest.generation,
            key_id=newest.key_id,
            made_by=newest.made_by,
            renew=sealed.must_renew(self._folder),
        )


def body_of(cls: type[_Body], request: pb.SignedRequest) -> _Body:
    """Return the message in a signed request.

    Raises:
        InputDataError: it is another message's bytes.
    """
    try:
        return cls.FromString(request.body)
    except DecodeError as error:
        raise InputDataError(
            "a request's body cannot be read",
            field="body",
            expected=cls.DESCRIPTOR.name,
            got=f"{len(request.body)} other bytes",
        ) from error
