"""One record of the ledger: a closed set of fields, in one spelling, without floats.

A record names digests, shapes, counts, codes and times. There is no field for a
value taken from an image, a path or a patient, and unknown fields are refused,
so none can be added by accident. Its canonical line is what the Merkle tree
hashes; ``None`` fields do not appear in it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Literal, Self, TypedDict, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from common.canonical import canonical_json, parse_some_json
from common.errors import CairnError, InputDataError, VerificationError
from common.settings import Frozen, describe_validation

Event = Literal[
    "GENESIS",
    "SEND",
    "SENT",
    "SEND_FAILED",
    "REFUSE",
    "RECEIPT",
    "BUDGET",
    "APPROVE",
    "DECLINE",
    "CONFIRM",
    "FORGET",
    "EXPIRE",
    "STOP",
    "ROTATE",
    "RESTORE",
]
EVENTS: tuple[Event, ...] = get_args(Event)
SITE_PATTERN = r"^[a-z0-9][a-z0-9-]{0,63}$"
MAX_LINE_BYTES = 1 << 20
_LARGEST = 2**53 - 1  # JSON integers beyond this do not survive every reader
_SAFE = r"A-Za-z0-9 _./:,;=<>()\[\]%+*-"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_UNSAFE = re.compile(f"[^{_SAFE}]")
_MAX_TEXT = 160

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./:-]{0,127}$")]
SafeText = Annotated[str, Field(pattern=f"^[{_SAFE}]{{0,{_MAX_TEXT}}}$")]
Address = Annotated[str, Field(pattern=r"^[^\s/\x00-\x1f\x7f]{1,261}$")]
Count = Annotated[int, Field(ge=0, le=_LARGEST)]
KeyId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Person = Annotated[
    str, Field(pattern=r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]{0,62}[^\s\x00-\x1f\x7f])?$")
]
"""A person's name as they write it. It stands in the log and leaves with no proof."""
KEYS_RECORD = "SealedKeys"
"""The one record type that belongs to no run: the federation key, sealed to other sites."""


class ArrayRecord(Frozen):
    """One array inside a released payload.

    Attributes:
        name: its key in the envelope.
        dtype: numpy's name for it, e.g. ``float32``.
        shape: its extent along each axis.
        sha256: of its little-endian, C-ordered bytes.
    """

    name: Name
    dtype: Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{1,15}$")]
    shape: Annotated[tuple[Count, ...], Field(max_length=16, strict=False)]
    sha256: Sha256


class RefusalDetail(Frozen):
    """The field that was refused, what it had to be and what kind of thing it was.

    Attributes:
        field: name of what was refused.
        expected: what would have been let through.
        got: description of what was found, never a value.
    """

    field: SafeText
    expected: SafeText = ""
    got: SafeText = ""

    @classmethod
    def of(cls, error: CairnError) -> Self:
        """Return the detail of a refusal, in the ledger's small alphabet and cut to its length."""
        return cls(field=_safe(error.field), expected=_safe(error.expected), got=_safe(error.got))


class PrivacyRecord(Frozen):
    """The differential privacy applied to a release, in thousandths.

    Attributes:
        mechanism: e.g. ``gaussian``.
        clip_milli: clipping bound × 1000.
        sigma_milli: noise standard deviation × 1000.
        epsilon_total_milli: ε spent so far, this release included, × 1000.
        delta: as text, e.g. ``1e-6``.
    """

    mechanism: Name
    clip_milli: Count
    sigma_milli: Count
    epsilon_total_milli: Count
    delta: Annotated[str, Field(pattern=r"^[0-9](\.[0-9]{1,9})?(e-[0-9]{1,3})?$")]


class RecordFields(TypedDict, total=False):
    """The writer's part of a record; the ledger adds v, seq, event, ts and site."""

    run: str | None
    round: int | None
    record_type: str | None
    payload_sha256: str | None
    bytes: int | None
    arrays: tuple[ArrayRecord, ...] | None
    plan_fingerprint: str | None
    policy_sha256: str | None
    app_sha256: str | None
    code: int | None
    detail: RefusalDetail | None
    dp: PrivacyRecord | None
    masked: bool | None
    key_id: str | None
    generation: int | None
    phase: str | None
    order_sha256: str | None
    order_signature: str | None
    person: str | None
    peer: str | None
    peer_key: str | None
    lost_size: int | None
    lost_root: str | None


class Place(TypedDict):
    """The ledger's own part of a record: the leaf before it, and the parties."""

    prev: str | None
    federation: str
    receiver: str
    receiver_key: str | None


_REQUIRED: dict[str, tuple[str, ...]] = {
    "GENESIS": (),
    "SEND": (
        "run",
        "round",
        "record_type",
        "payload_sha256",
        "bytes",
        "arrays",
        "plan_fingerprint",
        "policy_sha256",
        "phase",
        "order_sha256",
    ),
    "SENT": ("payload_sha256",),
    "SEND_FAILED": ("payload_sha256", "code"),
    "REFUSE": ("code",),
    "RECEIPT": ("payload_sha256", "bytes"),
    "BUDGET": ("dp",),
    "APPROVE": ("plan_fingerprint", "person"),
    "DECLINE": ("plan_fingerprint", "person"),
    "CONFIRM": ("peer", "peer_key", "person"),
    "FORGET": ("peer", "person"),
    "EXPIRE": ("payload_sha256", "bytes", "policy_sha256"),
    "STOP": ("run", "payload_sha256", "bytes"),
    "ROTATE": ("payload_sha256", "bytes", "peer_key"),
    "RESTORE": ("payload_sha256", "bytes", "lost_size", "lost_root", "person"),
}
_REQUIRED_OF_KEYS = (
    "record_type",
    "payload_sha256",
    "bytes",
    "arrays",
    "policy_sha256",
    "key_id",
    "generation",
)


class LedgerRecord(Frozen):
    """One line of the ledger.

    Attributes:
        v: version of this form.
        seq: position in the log, from 0.
        event: what happened. SEND is written before anything leaves; SENT and
            SEND_FAILED say what became of it; REFUSE what the door held back;
            RECEIPT that the witness cosigned; BUDGET what privacy was spent;
            APPROVE and DECLINE what a person decided about a plan; CONFIRM and FORGET
            whom a person knows among the other sites; EXPIRE that a released payload is
            deleted by the policy's rule, of which only digest and size stay; STOP that the
            aggregator signed that a run is over for good; ROTATE that its
            key was exchanged; RESTORE that the log goes on from a backup, and which
            records after it are lost.
        ts: when, UTC to the second.
        site: whose ledger.
        run, round: which run and round of the federation.
        record_type: type of the released record.
        payload_sha256: of the released bytes (RECEIPT, RESTORE: of the cosigned note; STOP and
            ROTATE: of the aggregator's signed note, which lies in the archive, like that of
            RESTORE, or beside the log).
        bytes: their number.
        arrays: the arrays inside.
        plan_fingerprint, policy_sha256, app_sha256: what was in force.
        code: number of the refusal or failure; texts stay in the site's log. A SEND has one
            when no more than a failure's number left.
        detail: field, expectation and kind of what was refused.
        dp: differential privacy applied.
        masked: whether secure aggregation masked the payload.
        key_id, generation: which federation key was sealed; the arrays are named after
            the sites, and the fingerprints of their ledger keys, that it was sealed to.
        phase: of the order that is answered.
        order_sha256, order_signature: of that order; its bytes lie in the archive under
            the digest, and the signature (hex) is the aggregator's.
        person: who decided.
        peer, peer_key: another site, and the fingerprint of its ledger key; of ROTATE the
            fingerprint of the aggregator's new key.
        prev: leaf hash of the record before, so that an audit can name the one that was
            altered; only GENESIS has none.
        federation, receiver, receiver_key: see ``common.ledger.parties``.
        lost_size, lost_root: of the newest checkpoint of what a restore has lost, which the
            witness cosigned; the records from this one's place up to that size are gone.
    """

    v: Literal[1] = 1
    seq: Count
    event: Event
    ts: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$")]
    site: Annotated[str, Field(pattern=SITE_PATTERN)]
    run: Name | None = None
    round: Count | None = None
    record_type: Name | None = None
    payload_sha256: Sha256 | None = None
    bytes: Count | None = None
    arrays: Annotated[tuple[ArrayRecord, ...] | None, Field(strict=False)] = None
    plan_fingerprint: Sha256 | None = None
    policy_sha256: Sha256 | None = None
    app_sha256: Sha256 | None = None
    code: Annotated[int, Field(ge=0, le=65_535)] | None = None
    detail: RefusalDetail | None = None
    dp: PrivacyRecord | None = None
    masked: bool | None = None
    key_id: KeyId | None = None
    generation: Count | None = None
    phase: Name | None = None
    order_sha256: Sha256 | None = None
    order_signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")] | None = None
    person: Person | None = None
    peer: Annotated[str, Field(pattern=SITE_PATTERN)] | None = None
    peer_key: Sha256 | None = None
    prev: Sha256 | None = None
    federation: Name | None = None
    receiver: Address | None = None
    receiver_key: Sha256 | None = None
    lost_size: Count | None = None
    lost_root: Sha256 | None = None

    @field_validator("ts")
    @classmethod
    def _is_a_time(cls, ts: str) -> str:
        parse_timestamp(ts)
        return ts

    @model_validator(mode="after")
    def _says_what_its_event_needs(self) -> Self:
        sealed = self.event == "SEND" and self.record_type == KEYS_RECORD
        required = _REQUIRED_OF_KEYS if sealed else _REQUIRED[self.event]
        missing = [name for name in required if getattr(self, name) is None]
        if missing:
            raise ValueError(f"{self.event} needs {', '.join(missing)}")
        return self


def record_line(record: LedgerRecord) -> bytes:
    """Return the canonical bytes of a record, without a line end."""
    return canonical_json(record.model_dump(mode="json", exclude_none=True))


def parse_record(line: bytes, what: str = "ledger record") -> LedgerRecord:
    """Read one line back; it must be the one spelling of a valid record.

    Raises:
        VerificationError: it is not.
    """
    if len(line) > MAX_LINE_BYTES:
        raise VerificationError(
            "unreadable record", field=what, expected="at most 1 MiB", got="a longer line"
        )
    value = parse_some_json(line, what)
    try:
        record = LedgerRecord.model_validate(value)
    except ValidationError as error:
        field, expected, got = describe_validation(error)
        raise VerificationError(
            "unreadable record", field=f"{what}, {field}", expected=expected, got=got
        ) from error
    # The one spelling of what was read: neither a repeated key nor an explicit null is in it.
    if record_line(record) != line:
        raise VerificationError(
            "unreadable record",
            field=what,
            expected="RFC 8785 canonical JSON without empty fields",
            got="JSON in another spelling",
        )
    return record


def make_record(
    *,
    seq: int,
    event: Event,
    now: datetime,
    site: str,
    fields: RecordFields,
    place: Place | None = None,
) -> LedgerRecord:
    """Assemble a record; ``place`` is the ledger's own part of it.

    Raises:
        InputDataError: a field is missing, unknown or not of its form.
    """
    try:
        return LedgerRecord.model_validate(
            {
                **{"seq": seq, "event": event, "ts": format_timestamp(now), "site": site},
                **fields,
                **(place or {}),
            }
        )
    except ValidationError as error:
        field, expected, got = describe_validation(error)
        raise InputDataError(
            "a ledger record is not valid", field=field, expected=expected, got=got
        ) from error


def format_timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, to the second.

    Raises:
        InputDataError: the time has no zone.
    """
    if moment.tzinfo is None:
        raise InputDataError(
            "a time needs its zone", expected="an aware datetime", got="a naive one"
        )
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_timestamp(text: str) -> datetime:
    """Inverse of ``format_timestamp``.

    Raises:
        ValueError: no such time.
    """
    if not _TIME.fullmatch(text):  # fromisoformat reads other spellings, too
        raise ValueError("not a time in UTC, to the second")
    return datetime.fromisoformat(text)


def _safe(text: str) -> str:
    return _UNSAFE.sub("_", text)[:_MAX_TEXT]
