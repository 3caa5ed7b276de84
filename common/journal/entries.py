"""The lines of the courier's journal: a closed set of forms, in one spelling, signed.

A line names digests, counts, codes and closed words; there is no field for a text that
somebody chose. Each carries the SHA-256 of the line before it, and an Ed25519 signature,
which is the same whenever the line is the same.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, TypeAdapter, ValidationError

from common.canonical import canonical_json, parse_canonical_json
from common.crypto.identity import PublicKey, SigningKey
from common.errors import VerificationError
from common.ledger.records import RefusalDetail
from common.settings import Frozen, describe_validation
from common.wire.records import Count, Digest, FederationName, SiteName

CONTEXT = b"cairn/journal/v1\n"
NOTHING_BEFORE = "0" * 64
MAX_LINE_BYTES = 1 << 16

Receiver = Literal["flower", "desk", "witness", "supernode"]
Kind = Literal[
    "activate-node",
    "deactivate-node",
    "send-node-heartbeat",
    "pull-messages",
    "pull-object",
    "pull-objects",
    "confirm-message-received",
    "get-run",
    "push-messages",
    "push-object",
    "push-objects",
    "greet",
    "Enrol",
    "EnrolStatus",
    "Renew",
    "ListPeers",
    "PutSealedKeys",
    "GetSealedKey",
    "AwaitOrders",
    "add-checkpoint",
    "get-checkpoint",
    "hand-over",
]
"""What is asked: Flower's calls, the desk's, a witness's, and what a SuperNode is handed."""
KINDS: tuple[Kind, ...] = get_args(Kind)
CONTROL: dict[Kind, tuple[int, int]] = {
    "pull-messages": (1024, 1024),
    "send-node-heartbeat": (256, 1024),
    "activate-node": (64, 1024),
    "deactivate-node": (16, 1024),
    "get-run": (256, 1024),
    "pull-object": (1024, 1280),
    "pull-objects": (256, 2048),
    "confirm-message-received": (256, 1024),
    "greet": (1024, 0),
    "ListPeers": (512, 512),
    "GetSealedKey": (512, 512),
    "EnrolStatus": (64, 512),
    "AwaitOrders": (64, 512),
}
"""Requests that carry nothing of the site: how many are declared at once, of how many bytes each
at most. They are declared before the first of them and counted after the last."""


class Allowance(Frozen):
    """So many requests of a kind may follow, each of at most so many bytes."""

    kind: Kind
    most: Count
    bytes: Count


class Use(Frozen):
    """So many of them followed, of so many bytes together."""

    kind: Kind
    count: Count
    bytes: Count


class Link(Frozen):
    """All connections to one receiver that ended, or were looked at, since the last such line.

    Attributes:
        connections: opened.
        handshake: bytes until TLS stood.
        plain: bytes written into TLS.
        tls: bytes that TLS added, by its own rules.
        sent, received: what the kernel counted on the sockets, without headers and repeats.
        resent: bytes that the kernel had to send again.
        unmeasured: connections of which the kernel said nothing.
    """

    receiver: Receiver
    connections: Count = 0
    handshake: Count = 0
    plain: Count = 0
    tls: Count = 0
    sent: Count = 0
    received: Count = 0
    resent: Count = 0
    unmeasured: Count = 0


class Network(Frozen):
    """Counters of the interfaces of the courier's own network: all that left it, by whomever.

    Attributes:
        sent_bytes: with the headers of Ethernet, IP and TCP.
        sent_packets: their number.
    """

    sent_bytes: Count
    sent_packets: Count


class Part(Frozen):
    """A released record, as the ledger knows it."""

    record_type: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z]{0,31}$")]
    sha256: Digest
    bytes: Count


class _Entry(Frozen):
    """Fields of every line.

    Attributes:
        seq: position, from 0.
        prev: SHA-256 of the line before, its signature included.
        ts: when, UTC to the second.
        session: ``seq`` of the BEGIN of the process that wrote it.
    """

    v: Literal[1] = 1
    seq: Count
    prev: Digest
    ts: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$")]
    session: Count


class Begin(_Entry):
    """A process began to write.

    Attributes:
        journal_key: that signs the lines.
        node_key: OpenSSH line of the key that authenticates the courier at the aggregator.
        certificate: its signature (ECDSA, DER, hex) over ``CONTEXT`` and the journal's key.
        network: counters, where the network is the courier's own.
    """

    event: Literal["BEGIN"] = "BEGIN"
    federation: FederationName
    site: SiteName
    journal_key: Annotated[str, Field(max_length=200)]
    node_key: Annotated[str, Field(max_length=2000)]
    certificate: Annotated[str, Field(pattern=r"^[0-9a-f]{16,320}$")]
    network: Network | None = None


class Allow(_Entry):
    """Control traffic that may follow, of this session, until its next SETTLE."""

    event: Literal["ALLOW"] = "ALLOW"
    control: Annotated[tuple[Allowance, ...], Field(max_length=32, strict=False)]


class Request(_Entry):
    """One request is about to be sent.

    Attributes:
        bytes: on the inside of TLS, head and body.
        body: of the body alone.
        sha256: of the body.
    """

    event: Literal["REQUEST"] = "REQUEST"
    receiver: Receiver
    kind: Kind
    bytes: Count
    body: Count
    sha256: Digest


class Release(_Entry):
    """A released reply passed the second door and is about to be pushed.

    Attributes:
        order: digest of the order's parcel; none of sealed keys, which answer no order.
        sha256, bytes: of the parcel that leaves.
        parts: the records inside.
        size, root: the ledger's checkpoint that its proofs rest on.
        policy_sha256: of the site's policy, as the ledger says.
    """

    event: Literal["RELEASE"] = "RELEASE"
    order: Digest | None = None
    sha256: Digest
    bytes: Count
    parts: Annotated[tuple[Part, ...], Field(min_length=1, max_length=8, strict=False)]
    size: Count
    root: Digest
    policy_sha256: Digest


class Code(_Entry):
    """The courier says one number by itself."""

    event: Literal["CODE"] = "CODE"
    order: Digest | None = None
    code: Annotated[int, Field(ge=0, le=255)]


class Refuse(_Entry):
    """Something in the outbox was held back.

    Attributes:
        what: what kind of thing it was.
        bytes, sha256: of what was read, where anything was.
        detail: field, expectation and kind of what did not hold.
    """

    event: Literal["REFUSE"] = "REFUSE"
    what: Literal["reply", "keys", "stranger", "folder"]
    bytes: Count | None = None
    sha256: Digest | None = None
    detail: RefusalDetail


class Settle(_Entry):
    """Count the allowance that the session used, and what its sockets sent since the last."""

    event: Literal["SETTLE"] = "SETTLE"
    used: Annotated[tuple[Use, ...], Field(max_length=32, strict=False)]
    links: Annotated[tuple[Link, ...], Field(max_length=8, strict=False)]
    network: Network | None = None


Entry = Begin | Allow | Request | Release | Code | Refuse | Settle
_ANY: TypeAdapter[Entry] = TypeAdapter(Annotated[Entry, Field(discriminator="event")])


def entry_line(entry: Entry, key: SigningKey) -> bytes:
    """Return the signed line of an entry, without a line end."""
    body = entry.model_dump(mode="json", exclude_none=True)
    return canonical_json(body | {"sig": key.sign(CONTEXT + canonical_json(body)).hex()})


def parse_entry(line: bytes, key: PublicKey | None, what: str = "line of the journal") -> Entry:
    """Read a line back.

    Args:
        line: without its end.
        key: that must have signed; None believes the key that a BEGIN names itself.
        what: for the error.

    Raises:
        VerificationError: not the one spelling of a signed entry, or not signed by this key.
    """
    if len(line) > MAX_LINE_BYTES:
        raise _unreadable(what, f"at most {MAX_LINE_BYTES} bytes", "a longer line")
    value = parse_canonical_json(line, what)
    if not isinstance(value, dict) or not isinstance(value.get("sig"), str):
        raise _unreadable(what, "a signed entry", "no signature")
    body = {name: part for name, part in value.items() if name != "sig"}
    try:
        entry = _ANY.validate_python(body)
        signature = bytes.fromhex(value["sig"])
    except ValidationError as error:
        field, expected, got = describe_validation(error)
        raise _unreadable(f"{what}, {field}", expected, got) from error
    except ValueError as error:
        raise _unreadable(what, "a signature in hex", "another text") from error
    if entry.model_dump(mode="json", exclude_none=True) != body or signature.hex() != value["sig"]:
        raise _unreadable(what, "the entry's one spelling", "another")
    if key is None:
        if not isinstance(entry, Begin):
            raise _unreadable(what, "BEGIN", entry.event)
        key = PublicKey.parse(entry.journal_key)
    key.verify(signature, CONTEXT + canonical_json(body))
    return entry


def _unreadable(what: str, expected: str, got: str) -> VerificationError:
    return VerificationError("the journal is unreadable", field=what, expected=expected, got=got)
