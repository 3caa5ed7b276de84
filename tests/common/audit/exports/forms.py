"""The two standards' structures as far as exports use them, written from their texts.

Closed: an element that does not stand here is a mistake, also where the standard has one.
"""

from __future__ import annotations

from typing import Annotated, Literal
from xml.etree.ElementTree import Element, fromstring

from pydantic import BaseModel, ConfigDict, Field

_TEXT = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f]+$"
Text = Annotated[str, Field(pattern=_TEXT)]
Uri = Annotated[str, Field(pattern=r"^\S+$")]
Token = Annotated[str, Field(pattern=r"^\S+(\s?\S+)*$")]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Coding(_Closed):
    system: Uri
    code: Token
    display: Text


class Concept(_Closed):
    coding: Annotated[list[Coding], Field(min_length=1)]


class Identifier(_Closed):
    system: Literal["urn:ietf:rfc:3986"]
    value: Uri


class Reference(_Closed):
    identifier: Identifier | None = None
    display: Text | None = None


class Network(_Closed):
    address: Text
    type: Literal["1", "2", "3", "4", "5"]


class Agent(_Closed):
    type: Concept
    who: Reference
    name: Text | None = None
    requestor: bool
    network: Network | None = None


class Source(_Closed):
    site: Text
    observer: Reference
    type: Annotated[list[Coding], Field(min_length=1)]


class Detail(_Closed):
    type: Text
    valueString: Text  # noqa: N815 - FHIR's own spelling


class Entity(_Closed):
    what: Reference
    type: Coding
    role: Coding
    name: Text  # sev-1: either a name or a query, never both
    description: Text
    detail: Annotated[list[Detail], Field(min_length=1)]


class FhirAuditEvent(_Closed):
    """FHIR R4 (4.0.1) AuditEvent."""

    resourceType: Literal["AuditEvent"]  # noqa: N815
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,64}$")]
    type: Coding
    subtype: Annotated[list[Coding], Field(min_length=1)] | None = None
    action: Literal["C", "R", "U", "D", "E"]
    recorded: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
    outcome: Literal["0", "4", "8", "12"]
    outcomeDesc: Text  # noqa: N815
    purposeOfEvent: Annotated[list[Concept], Field(min_length=1)]  # noqa: N815
    agent: Annotated[list[Agent], Field(min_length=1)]
    source: Source
    entity: Annotated[list[Entity], Field(min_length=1)]


_CODED = ({"csd-code", "codeSystemName", "originalText"}, set())
_ATTRIBUTES: dict[str, tuple[set[str], set[str]]] = {  # required, optional
    "AuditMessage": (set(), set()),
    "EventIdentification": ({"EventDateTime", "EventOutcomeIndicator"}, {"EventActionCode"}),
    "EventID": _CODED,
    "EventTypeCode": _CODED,
    "EventOutcomeDescription": (set(), set()),
    "ActiveParticipant": (
        {"UserID", "UserIsRequestor"},
        {"UserName", "NetworkAccessPointID", "NetworkAccessPointTypeCode"},
    ),
    "RoleIDCode": _CODED,
    "MediaIdentifier": (set(), set()),
    "MediaType": _CODED,
    "AuditSourceIdentification": ({"AuditSourceID"}, {"AuditEnterpriseSiteID"}),
    "AuditSourceTypeCode": ({"csd-code"}, set()),
    "ParticipantObjectIdentification": (
        {"ParticipantObjectID"},
        {"ParticipantObjectTypeCode", "ParticipantObjectTypeCodeRole"},
    ),
    "ParticipantObjectIDTypeCode": _CODED,
    "ParticipantObjectName": (set(), set()),
    "ParticipantObjectDetail": ({"type", "value"}, set()),
}
_CHILDREN: dict[str, list[tuple[str, int, int]]] = {  # in this order, so many
    "AuditMessage": [
        ("EventIdentification", 1, 1),
        ("ActiveParticipant", 1, 99),
        ("AuditSourceIdentification", 1, 1),
        ("ParticipantObjectIdentification", 0, 99),
    ],
    "EventIdentification": [
        ("EventID", 1, 1),
        ("EventTypeCode", 0, 99),
        ("EventOutcomeDescription", 0, 1),
    ],
    "ActiveParticipant": [("RoleIDCode", 0, 99), ("MediaIdentifier", 0, 1)],
    "MediaIdentifier": [("MediaType", 1, 1)],
    "AuditSourceIdentification": [("AuditSourceTypeCode", 0, 99)],
    "ParticipantObjectIdentification": [
        ("ParticipantObjectIDTypeCode", 1, 1),
        ("ParticipantObjectName", 1, 1),
        ("ParticipantObjectDetail", 0, 99),
    ],
}


def parsed(data: bytes) -> Element:
    """Read an audit message that was just made here."""
    return fromstring(data.decode())  # noqa: S314 - nobody else wrote it


def check_dicom(element: Element) -> None:
    """Hold an audit message to the schema of DICOM PS3.15 A.5.1."""
    required, optional = _ATTRIBUTES[element.tag]
    assert required <= set(element.keys()) <= required | optional
    tags = [child.tag for child in element]
    for tag, least, most in _CHILDREN.get(element.tag, []):
        count = 0
        while tags and tags[0] == tag:
            tags.pop(0)
            count += 1
        assert least <= count <= most, tag
    assert not tags
    for child in element:
        check_dicom(child)
