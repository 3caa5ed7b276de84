"""DICOM audit messages (XML): Data Export, Security Alert, Audit Log Used.

A release is an Export: who released, to whom, over the network (media type URI), and what,
by digests. The table of that message lists studies and patients. There are none to list: a
sum over many leaves, and no message from here names a patient.

Source: DICOM PS3.15 A.5.1 (schema), A.5.2, A.5.3.2, A.5.3.4 and A.5.3.11.
"""

from __future__ import annotations

import base64
from typing import Final
from xml.etree.ElementTree import Element, SubElement, tostring

from common.audit.exports.event import AuditEvent
from common.audit.exports.words import (
    APPLICATION,
    DESTINATION_MEDIA,
    DESTINATION_ROLE,
    EXPORT,
    SOURCE_ROLE,
    URI,
    DicomCode,
    kind_of,
    objects_of,
    outcome_of,
    plain,
    receiver_urn,
    says,
    site_urn,
)

MOST_BYTES: Final = 8192
"""What every receiver of RFC 5425 should take, and rsyslog takes without being told to."""
_DECLARATION: Final = b'<?xml version="1.0" encoding="UTF-8"?>'
_ROLES: Final = {"record": "13", "payload": "3", "order": "20", "plan": "20", "policy": "13"}


def message(event: AuditEvent) -> bytes:
    """Return one audit message (UTF-8, without an end of line); equal events, equal bytes."""
    kind = kind_of(event)
    root = Element("AuditMessage")
    identity = SubElement(
        root,
        "EventIdentification",
        EventActionCode=kind.action,
        EventDateTime=event.time,
        EventOutcomeIndicator=outcome_of(event),
    )
    _code(identity, "EventID", kind.code)
    if kind.subtype is not None:
        _code(identity, "EventTypeCode", kind.subtype)
    SubElement(identity, "EventOutcomeDescription").text = plain(says(event))
    _participants(root, event, releases=kind.code is EXPORT)
    source = SubElement(
        root, "AuditSourceIdentification", AuditEnterpriseSiteID=event.site, AuditSourceID="cairn"
    )
    SubElement(source, "AuditSourceTypeCode", {"csd-code": "4"})
    for each in objects_of(event):
        _object(root, *each)
    data: bytes = tostring(root, encoding="utf-8")
    return _DECLARATION + data


def _participants(root: Element, event: AuditEvent, *, releases: bool) -> None:
    """Add the site; where something left the receiver, who asked for it; and who decided."""
    person = event.person or event.approved_by
    ours = _participant(root, site_urn(event), requests=not releases and person is None)
    _code(ours, "RoleIDCode", SOURCE_ROLE if releases else APPLICATION)
    if person is not None:
        someone = _participant(root, plain(person), requests=not releases)
        someone.set("UserName", plain(person))
        if releases:  # who let it go is the second of those who export
            _code(someone, "RoleIDCode", SOURCE_ROLE)
    if releases:
        receiver = _participant(root, receiver_urn(event), requests=True)
        receiver.set("NetworkAccessPointID", plain(event.receiver or receiver_urn(event)))
        receiver.set("NetworkAccessPointTypeCode", "5")
        _code(receiver, "RoleIDCode", DESTINATION_ROLE)
        _code(receiver, "RoleIDCode", DESTINATION_MEDIA)
        _code(SubElement(receiver, "MediaIdentifier"), "MediaType", URI)


def _participant(root: Element, user: str, *, requests: bool) -> Element:
    return SubElement(
        root, "ActiveParticipant", UserID=user, UserIsRequestor="true" if requests else "false"
    )


def _object(root: Element, what: str, name: str, digest: str, details: dict[str, str]) -> None:
    about = SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=f"urn:cairn:{what}:sha256:{digest}",
        ParticipantObjectTypeCode="2",
        ParticipantObjectTypeCodeRole=_ROLES[what],
    )
    SubElement(
        about,
        "ParticipantObjectIDTypeCode",
        {"csd-code": "12", "codeSystemName": "RFC-3881", "originalText": "URI"},
    )
    SubElement(about, "ParticipantObjectName").text = name
    for key, text in details.items():
        value = base64.b64encode(plain(text).encode()).decode("ascii")
        SubElement(about, "ParticipantObjectDetail", type=key, value=value)


def _code(parent: Element, tag: str, code: DicomCode) -> None:
    SubElement(
        parent,
        tag,
        {"csd-code": code.value, "codeSystemName": "DCM", "originalText": code.meaning},
    )
