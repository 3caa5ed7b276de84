"""Codes of DICOM and HL7 for what a ledger records; shared by both of their forms.

Source: DICOM PS3.16 CID 400, 401, 402 and 405; HL7 FHIR R4 AuditEvent; ISO 21089.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from common.audit.exports.event import ALARMS, AuditEvent
from common.wire.codes import EXPLANATIONS, ReplyCode

Action = Literal["C", "R", "U", "D", "E"]
_NO_XML: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


@dataclass(frozen=True)
class DicomCode:
    """A code of DICOM's own list (DCM)."""

    value: str
    meaning: str


EXPORT: Final = DicomCode("110106", "Export")
LOG_USED: Final = DicomCode("110101", "Audit Log Used")
ALERT: Final = DicomCode("110113", "Security Alert")
ACTIVITY: Final = DicomCode("110100", "Application Activity")
SOURCE_ROLE: Final = DicomCode("110153", "Source Role ID")
DESTINATION_ROLE: Final = DicomCode("110152", "Destination Role ID")
DESTINATION_MEDIA: Final = DicomCode("110154", "Destination Media")
APPLICATION: Final = DicomCode("110150", "Application")
URI: Final = DicomCode("110037", "URI")


@dataclass(frozen=True)
class Kind:
    """How a kind of record is named to others.

    Attributes:
        code: of the family of events.
        subtype: more closely; None where the family says it all.
        action: read, create, update, delete or execute.
    """

    code: DicomCode
    subtype: DicomCode | None
    action: Action


_LEFT: Final = Kind(EXPORT, None, "R")
_DECIDED: Final = Kind(ALERT, DicomCode("110129", "Security Configuration"), "E")
_KNOWN: Final = Kind(ALERT, DicomCode("110136", "Security Roles Changed"), "E")
_DOUBTED: Final = Kind(ALERT, DicomCode("110135", "Object Security Attributes Changed"), "E")
_KINDS: Final[dict[str, Kind]] = {
    "SEND": _LEFT,
    "SENT": _LEFT,
    "SEND_FAILED": _LEFT,
    "REFUSE": _LEFT,
    "GENESIS": Kind(ACTIVITY, DicomCode("110134", "Audit Recording Started"), "E"),
    "APPROVE": _DECIDED,
    "DECLINE": _DECIDED,
    "CONFIRM": _KNOWN,
    "FORGET": _KNOWN,
    "RESTORE": _DOUBTED,
    "ALERT": _DOUBTED,
}
_BOOKKEEPING: Final = Kind(LOG_USED, None, "R")


def kind_of(event: AuditEvent) -> Kind:
    """Return how an event is named; bookkeeping, and what is new here, as use of the log."""
    return _KINDS.get(event.event, _BOOKKEEPING)


def outcome_of(event: AuditEvent) -> str:
    """Return DICOM's and FHIR's indicator: 0 done, 4 refused (minor), 8 in doubt (serious)."""
    return {"done": "0", "refused": "4", "alert": "8"}[event.outcome]


def says(event: AuditEvent) -> str:
    """Say in a line what happened; every word is one of ours, or a number."""
    if event.alarm is not None:
        at = "" if event.broken_at is None else f" (record {event.broken_at})"
        return f"{ALARMS[event.alarm]}{at}"
    if event.outcome == "refused":
        left = "only a number left" if event.event == "SEND" else "held back"
        return f"{left}: {_explained(event.code)}"
    return {
        "SEND": "recorded, signed, and handed over",
        "GENESIS": "the ledger begins",
        "APPROVE": "a person approved a plan",
        "DECLINE": "a person declined a plan",
        "CONFIRM": "a person confirmed another site",
        "FORGET": "a person no longer knows another site",
        "RECEIPT": "the witness cosigned the ledger",
        "RESTORE": "the ledger was restored from a backup and goes on after a recorded gap",
    }.get(event.event, f"the ledger records {event.event}")


def _explained(code: int | None) -> str:
    try:
        return EXPLANATIONS[ReplyCode(code or 0)]
    except (ValueError, KeyError):
        return f"number {code}"


def plain(text: str) -> str:
    """Replace what no XML document and no log line may hold; people write their own names."""
    return _NO_XML.sub("?", text)


def site_urn(event: AuditEvent) -> str:
    """Name the site's ledger for machines."""
    return f"urn:cairn:site:{event.site}"


def receiver_urn(event: AuditEvent) -> str:
    """Name the aggregator for machines: by its key, which no name service can change."""
    return f"urn:cairn:aggregator:{event.receiver_key or 'unnamed'}"


def objects_of(event: AuditEvent) -> list[tuple[str, str, str, dict[str, str]]]:
    """List what an event is about: (what, name, identifier, details), the record first."""
    facts = {
        "seq": event.seq,
        "event": event.event,
        "outcome": says(event),
        "witnessed": event.witnessed,
        "federation": event.federation,
        "run": event.run,
        "round": event.round,
        "phase": event.phase,
        "code": event.code,
        "key_id": event.key_id,
        "generation": event.generation,
        "epsilon_total_milli": event.epsilon_total_milli,
        "app_sha256": event.app_sha256,
        "peer": event.peer,
        "peer_key": event.peer_key,
        "lost_size": event.lost_size,
        "lost_root": event.lost_root,
        "site_key": event.site_key,
    }
    listed = [("record", "ledger record", event.id, _texts(facts))]
    if event.payload_sha256 is not None:
        about = {
            "record_type": event.record_type,
            "bytes": event.bytes,
            "arrays": event.arrays,
            "masked": event.masked,
        }
        listed.append(("payload", event.record_type or "note", event.payload_sha256, _texts(about)))
    for what, digest in (
        ("order", event.order_sha256),
        ("plan", event.plan_fingerprint),
        ("policy", event.policy_sha256),
    ):
        if digest is not None:
            listed.append((what, what, digest, {}))
    return listed


def _texts(facts: Mapping[str, object]) -> dict[str, str]:
    return {
        name: str(fact).lower() if isinstance(fact, bool) else str(fact)
        for name, fact in facts.items()
        if fact is not None
    }
