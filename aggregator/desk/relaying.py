"""A relay at the aggregator's desk: says which of its sites are there, hears which are its own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from aggregator.admin.relays import Member, RelayFile
from common.crypto.identity import SigningKey
from common.desk import desk_pb2 as pb
from common.desk.channel import CALL_S, DeskAddress, connected
from common.desk.desk_pb2_grpc import EnrolmentStub
from common.desk.signing import LedgerSigner, sign_request

Stand = Callable[[Collection[str], Collection[str]], list[Member]]
"""Takes the sites that are connected and those to be told; returns the relay's sites."""


@contextmanager
def standing(file: RelayFile, key: SigningKey) -> Iterator[Stand]:
    """Open a connection to the desk; what a call on it raises is the error that the desk meant.

    Args:
        file: the relay's.
        key: that signs what it asks.

    Raises:
        UnreachableError: nobody answers.
        VerificationError: somebody else does.
        RefusedError: the relay was withdrawn.
    """
    signer = LedgerSigner(key)

    def stand(online: Collection[str], told: Collection[str]) -> list[Member]:
        body = pb.RelayBody(online=sorted(online), told=sorted(told)).SerializeToString()
        request = sign_request(file.federation, "Relay", file.name, body, signer)
        reply = stub.Relay(request, timeout=CALL_S)
        return [Member(m.site, m.node_key, m.revoked) for m in reply.members]

    with connected(DeskAddress(file.enrolment, file.ca_certificate.encode())) as channel:
        stub = EnrolmentStub(channel)
        yield stand
