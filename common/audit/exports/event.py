"""One record of a ledger as the world outside may hear of it: a closed set of fields.

Digests, counts, codes, times, and the names of runs, sites and people of the staff. The
texts of a refusal (``detail``) and the names of arrays stay in the ledger: a log server
needs neither. So no field here could hold anything of a patient, and an unknown one is
refused. This form is also the line of ``--format jsonl``; its schema is frozen in
``tests/vectors/audit_event_schema.json``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import Field

from common.canonical import canonical_json, sha256_hex
from common.ledger.merkle import leaf_hash
from common.ledger.records import (
    SITE_PATTERN,
    Address,
    Count,
    KeyId,
    LedgerRecord,
    Name,
    Person,
    Sha256,
    format_timestamp,
    record_line,
)
from common.settings import Frozen

SCHEMA: Final = "cairn-audit-event/1"
Outcome = Literal["done", "refused", "alert"]
Alarm = Literal["broken", "rewritten"]
ALARMS: Final[dict[Alarm, str]] = {
    "broken": "the ledger does not verify; nothing of it was exported",
    "rewritten": "the ledger does not continue what was exported before",
}
_REFUSED: Final = frozenset({"REFUSE", "SEND_FAILED"})
_COPIED: Final = (
    "run",
    "round",
    "phase",
    "record_type",
    "payload_sha256",
    "bytes",
    "plan_fingerprint",
    "policy_sha256",
    "app_sha256",
    "order_sha256",
    "code",
    "masked",
    "key_id",
    "generation",
    "person",
    "peer",
    "peer_key",
    "lost_size",
    "lost_root",
    "federation",
    "receiver",
)


class AuditEvent(Frozen):
    """One thing that happened at a site's door or in its ledger.

    Attributes:
        form: name and version of this form.
        id: of a record, its leaf in the Merkle tree: the same however often it is sent,
            and what an auditor finds it by. Of an alert, a digest of what it is about.
        site: whose ledger.
        seq: position of the record in it; None for an alert.
        event: as in the ledger, or ALERT.
        time: when, UTC to the second.
        outcome: ``refused`` where the door held something back, ``alert`` where the ledger
            itself is in doubt.
        witnessed: the aggregator had cosigned a checkpoint over it when it was exported.
        site_key, receiver_key: SHA-256 of the key that signs the ledger, and of the
            aggregator's witness key, where it is known.
        federation, receiver: of which federation, and the address of its aggregator.
        arrays: how many the payload holds.
        approved_by: the person whose approval of the plan stood then.
        epsilon_total_milli: privacy spent so far, ε × 1000.
        alarm: what an alert is about.
        broken_at: the first record that does not hold, where one can be named.

    The other fields are those of ``LedgerRecord``, with their meaning there.
    """

    form: Literal["cairn-audit-event/1"] = SCHEMA
    id: Sha256
    site: Annotated[str, Field(pattern=SITE_PATTERN)]
    seq: Count | None = None
    event: Annotated[str, Field(pattern=r"^[A-Z_]{1,32}$")]
    time: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z$")]
    outcome: Outcome = "done"
    witnessed: bool = False
    site_key: Sha256
    receiver_key: Sha256 | None = None
    run: Name | None = None
    round: Count | None = None
    phase: Name | None = None
    record_type: Name | None = None
    payload_sha256: Sha256 | None = None
    bytes: Count | None = None
    arrays: Count | None = None
    plan_fingerprint: Sha256 | None = None
    policy_sha256: Sha256 | None = None
    app_sha256: Sha256 | None = None
    order_sha256: Sha256 | None = None
    approved_by: Person | None = None
    code: Annotated[int, Field(ge=0, le=65_535)] | None = None
    masked: bool | None = None
    epsilon_total_milli: Count | None = None
    key_id: KeyId | None = None
    generation: Count | None = None
    person: Person | None = None
    peer: Annotated[str, Field(pattern=SITE_PATTERN)] | None = None
    peer_key: Sha256 | None = None
    federation: Name | None = None
    receiver: Address | None = None
    lost_size: Count | None = None
    lost_root: Sha256 | None = None
    alarm: Alarm | None = None
    broken_at: Count | None = None


class Keys(Frozen):
    """Fingerprints of the keys that a ledger was held to.

    Attributes:
        site: of the key that signs it.
        receiver: of the witness's key; None where none was given.
    """

    site: Sha256
    receiver: Sha256 | None = None


def json_line(event: AuditEvent) -> bytes:
    """Return an event as its canonical JSON line, with its end."""
    return canonical_json(event.model_dump(mode="json", exclude_none=True)) + b"\n"


def events_of(
    records: Iterable[LedgerRecord], keys: Keys, witnessed_size: int
) -> Iterator[AuditEvent]:
    """Yield one event for every record, in the ledger's order.

    Args:
        records: all of a verified ledger from the first on: who approved a plan is read
            from those before.
        keys: that the ledger was held to.
        witnessed_size: how many of them the witness cosigned.
    """
    approved: dict[str, str] = {}
    for record in records:
        plan = record.plan_fingerprint or ""
        if record.event == "APPROVE" and record.person is not None:
            approved[plan] = record.person
        elif record.event == "DECLINE":
            approved.pop(plan, None)
        copied = {name: getattr(record, name) for name in _COPIED}
        yield AuditEvent(
            id=leaf_hash(record_line(record)).hex(),
            site=record.site,
            seq=record.seq,
            event=record.event,
            time=record.ts,
            outcome="refused" if record.event in _REFUSED or record.code else "done",
            witnessed=record.seq < witnessed_size,
            site_key=keys.site,
            receiver_key=record.receiver_key or keys.receiver,
            arrays=None if record.arrays is None else len(record.arrays),
            approved_by=approved.get(plan) if record.event == "SEND" else None,
            epsilon_total_milli=None if record.dp is None else record.dp.epsilon_total_milli,
            **copied,
        )


def alert(alarm: Alarm, site: str, keys: Keys, broken_at: int | None, now: datetime) -> AuditEvent:
    """Return the event that stands for a ledger that cannot be believed.

    Args:
        alarm: what is wrong. The ledger's own texts are not quoted: whoever altered it
            wrote them.
        site: whose ledger, by its checkpoint or by its folder.
        keys: that it was held to.
        broken_at: the first record that does not hold, or how many were exported before.
        now: aware.
    """
    about = {"alarm": alarm, "at": broken_at, "key": keys.site, "site": site}
    return AuditEvent(
        id=sha256_hex(canonical_json(about)),
        site=site,
        event="ALERT",
        time=format_timestamp(now),
        outcome="alert",
        site_key=keys.site,
        receiver_key=keys.receiver,
        alarm=alarm,
        broken_at=broken_at,
    )
