"""FHIR R4 AuditEvents after IHE's Basic Audit Log Patterns (BALP).

A release follows BALP's *Privacy Disclosure at Source*: type Export, subtype disclose,
action R, an agent of the source and one of the receiver, the source as its own observer.
One thing it asks for is not there: a patient. What leaves here is a sum over many, and no
patient can be named; so the profile is not claimed in ``meta``.

Source: HL7 FHIR R4 (4.0.1) AuditEvent; IHE ITI BALP 1.1.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterable
from typing import Final

from common.audit.exports.event import AuditEvent
from common.audit.exports.words import (
    DESTINATION_ROLE,
    EXPORT,
    SOURCE_ROLE,
    DicomCode,
    kind_of,
    objects_of,
    outcome_of,
    plain,
    receiver_urn,
    says,
    site_urn,
)

_DCM: Final = "http://dicom.nema.org/resources/ontology/DCM"
_HL7: Final = "http://terminology.hl7.org/CodeSystem"
_URI: Final = "urn:ietf:rfc:3986"
_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "urn:cairn:audit-event")
_ROLES: Final = {  # of HL7's object-role
    "record": ("13", "Security Resource"),
    "payload": ("3", "Report"),
    "order": ("20", "Job"),
    "plan": ("20", "Job"),
    "policy": ("13", "Security Resource"),
}


def ndjson_line(event: AuditEvent) -> bytes:
    """Return one resource on one line, as FHIR's bulk formats have it."""
    return json.dumps(resource(event), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def bundle(events: Iterable[AuditEvent]) -> bytes:
    """Return a Bundle of type ``collection``."""
    entries = [
        {"fullUrl": f"urn:uuid:{uuid.uuid5(_NAMESPACE, event.id)}", "resource": resource(event)}
        for event in events
    ]
    about = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    if not entries:  # FHIR has no empty arrays
        del about["entry"]
    return (json.dumps(about, ensure_ascii=False, indent=1) + "\n").encode()


def resource(event: AuditEvent) -> dict[str, object]:
    """Return the AuditEvent of one event; equal events give equal resources."""
    kind = kind_of(event)
    releases = kind.code is EXPORT
    subtypes = [_disclose()] if releases else []
    if kind.subtype is not None:
        subtypes.append(_dcm(kind.subtype))
    made: dict[str, object] = {
        "resourceType": "AuditEvent",
        "id": event.id,
        "type": _dcm(kind.code),
        "subtype": subtypes,
        "action": kind.action,
        "recorded": event.time,
        "outcome": outcome_of(event),
        "outcomeDesc": plain(says(event)),
        "purposeOfEvent": [_concept(f"{_HL7}/v3-ActReason", "HRESCH", "healthcare research")],
        "agent": _agents(event, releases=releases),
        "source": {
            "site": event.site,
            "observer": _who(event.site, site_urn(event)),
            "type": [_coding(f"{_HL7}/security-source-type", "4", "Application Server")],
        },
        "entity": [_entity(*each) for each in objects_of(event)],
    }
    return {name: value for name, value in made.items() if value != []}


def _agents(event: AuditEvent, *, releases: bool) -> list[dict[str, object]]:
    """List the site; where something left the receiver, too; and the person who decided."""
    person = event.person or event.approved_by
    agents: list[dict[str, object]] = [
        {
            "type": _concept(_DCM, SOURCE_ROLE.value, SOURCE_ROLE.meaning),
            "who": _who(event.site, site_urn(event)),
            "requestor": not releases and person is None,
            "network": {"address": site_urn(event), "type": "5"},
        }
    ]
    if releases:
        agents.append(
            {
                "type": _concept(_DCM, DESTINATION_ROLE.value, DESTINATION_ROLE.meaning),
                "who": _who(plain(event.receiver or "aggregator"), receiver_urn(event)),
                "requestor": True,
                "network": {"address": receiver_urn(event), "type": "5"},
            }
        )
    if person is not None:
        name = plain(person)
        agents.append(
            {
                "type": _concept(f"{_HL7}/v3-ParticipationType", "RESP", "responsible party"),
                "who": {"display": name},
                "name": name,
                "requestor": not releases,
            }
        )
    return agents


def _entity(what: str, name: str, digest: str, details: dict[str, str]) -> dict[str, object]:
    code, meaning = _ROLES[what]
    entity: dict[str, object] = {
        "what": {"identifier": {"system": _URI, "value": named_information(digest)}},
        "type": _coding(f"{_HL7}/audit-entity-type", "2", "System Object"),
        "role": _coding(f"{_HL7}/object-role", code, meaning),
        "name": name,
        "description": f"{what}, by its SHA-256",
        "detail": [
            {"type": key, "valueString": plain(text)}
            for key, text in {"sha256": digest, **details}.items()
        ],
    }
    return entity


def named_information(digest: str) -> str:
    """Name bytes by their SHA-256 (RFC 6920).

    Args:
        digest: 64 hex digits.
    """
    encoded = base64.urlsafe_b64encode(bytes.fromhex(digest)).rstrip(b"=").decode("ascii")
    return f"ni:///sha-256;{encoded}"


def _who(display: str, urn: str) -> dict[str, object]:
    return {"identifier": {"system": _URI, "value": urn}, "display": display}


def _disclose() -> dict[str, str]:
    return _coding(f"{_HL7}/iso-21089-lifecycle", "disclose", "Disclose Record Lifecycle Event")


def _dcm(code: DicomCode) -> dict[str, str]:
    return _coding(_DCM, code.value, code.meaning)


def _coding(system: str, code: str, display: str) -> dict[str, str]:
    return {"system": system, "code": code, "display": display}


def _concept(system: str, code: str, display: str) -> dict[str, object]:
    return {"coding": [_coding(system, code, display)]}
