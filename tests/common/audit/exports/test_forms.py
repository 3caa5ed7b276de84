"""Every record of a ledger becomes one event of each form, valid, and with nobody's data."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.audit.exports import fhir
from common.audit.exports.dicom import MOST_BYTES, message
from common.audit.exports.event import AuditEvent, Keys, alert, events_of, json_line
from common.audit.exports.syslog import syslog_message
from common.audit.load import audit
from common.canonical import canonical_json
from common.ledger.merkle import leaf_hash
from common.ledger.records import (
    EVENTS,
    ArrayRecord,
    LedgerRecord,
    PrivacyRecord,
    RefusalDetail,
    record_line,
)
from tests.common.audit.exports.forms import FhirAuditEvent, check_dicom, parsed

KEYS = Keys(site="a" * 64, receiver="b" * 64)
NOW = datetime(2026, 11, 7, 8, 9, 10, tzinfo=UTC)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_./:-]{0,127}", fullmatch=True)
counts = st.integers(0, 2**53 - 1)
# What people may write as their name: everything but controls, and no blank at its ends.
people = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp")), min_size=1)
privacy = PrivacyRecord(
    mechanism="gaussian", clip_milli=1, sigma_milli=1, epsilon_total_milli=3, delta="1e-6"
)
CANARY = "Erika Mustermann"


@st.composite
def records(draw) -> LedgerRecord:
    event = draw(st.sampled_from(EVENTS))
    key = draw(digests)
    return LedgerRecord(
        seq=draw(counts),
        event=event,
        ts="2026-11-07T08:00:00Z",
        site=draw(st.from_regex(r"[a-z0-9][a-z0-9-]{0,63}", fullmatch=True)),
        run=draw(names),
        round=draw(counts),
        record_type=draw(names),
        payload_sha256=key,
        bytes=draw(counts),
        arrays=(ArrayRecord(name="canary", dtype="float32", shape=(2,), sha256=key),),
        plan_fingerprint=key,
        policy_sha256=key,
        app_sha256=key,
        code=draw(st.integers(0, 65_535)),
        detail=RefusalDetail(field=CANARY, expected=CANARY, got=CANARY),
        dp=privacy,
        masked=draw(st.booleans()),
        key_id="0" * 16,
        generation=draw(counts),
        phase=draw(names),
        order_sha256=key,
        person=draw(people.map(lambda text: text[:64])),
        peer="site-b",
        peer_key=key,
        lost_size=draw(counts),
        lost_root=key,
    )


@settings(max_examples=40, deadline=None)
@given(records(), st.booleans())
def test_every_valid_record_has_a_valid_form_in_each_standard(record, witnessed):
    (event,) = events_of([record], KEYS, record.seq + witnessed)
    line = fhir.ndjson_line(event)
    assert line.count(b"\n") == 1
    FhirAuditEvent.model_validate_json(line)
    check_dicom(parsed(message(event)))
    assert AuditEvent.model_validate_json(json_line(event)) == event
    assert event.id == leaf_hash(record_line(record)).hex()


@settings(max_examples=40, deadline=None)
@given(records())
def test_the_texts_of_a_refusal_and_the_names_of_arrays_stay_in_the_ledger(record):
    (event,) = events_of([record], KEYS, 0)
    hidden = base64.b64encode(CANARY.encode())[:20]
    for data in (json_line(event), fhir.ndjson_line(event), message(event)):
        for canary in (CANARY.encode(), hidden, b'"canary"'):
            assert canary not in data


@settings(max_examples=40, deadline=None)
@given(records())
def test_no_message_is_longer_than_every_receiver_takes(record):
    (event,) = events_of([record], KEYS, 0)
    assert len(syslog_message(event, "h" * 255)) <= MOST_BYTES


def test_no_field_of_the_form_is_a_free_text():
    schema = AuditEvent.model_json_schema()["properties"]
    for name, about in schema.items():
        choices = about.get("anyOf", [about])
        for each in choices:
            if each.get("type") == "string":
                assert {"pattern", "enum", "const"} & each.keys(), name


def test_the_lines_keep_the_schema_that_is_frozen():
    frozen = Path(__file__).parents[3] / "vectors" / "audit_event_schema.json"
    schema = AuditEvent.model_json_schema()
    del schema["description"]
    assert json.loads(frozen.read_text(encoding="utf-8")) == schema


def test_a_release_follows_the_pattern_of_a_disclosure_at_its_source():
    record = LedgerRecord.model_validate(
        {
            "seq": 7,
            "event": "SEND",
            "ts": "2026-11-07T08:00:00Z",
            "site": "site-a",
            "run": "run-1",
            "round": 2,
            "record_type": "ModelUpdate",
            "payload_sha256": "1" * 64,
            "bytes": 3,
            "arrays": (),
            "plan_fingerprint": "2" * 64,
            "policy_sha256": "3" * 64,
            "phase": "train",
            "order_sha256": "4" * 64,
        }
    )
    (event,) = events_of([record], KEYS, 8)
    made = FhirAuditEvent.model_validate(fhir.resource(event))
    assert (made.type.code, made.action, made.outcome) == ("110106", "R", "0")
    assert [each.code for each in made.subtype or []] == ["disclose"]
    roles = {agent.type.coding[0].code: agent for agent in made.agent}
    assert roles["110153"].who == made.source.observer  # BALP: the source observes itself
    assert roles["110152"].requestor
    assert roles["110152"].network is not None
    assert {entity.name for entity in made.entity} >= {"ModelUpdate", "plan", "policy", "order"}
    root = parsed(message(event))
    codes = [each.get("csd-code") for each in root.iter("RoleIDCode")]
    assert codes == ["110153", "110152", "110154"]
    requestors = [each.get("UserIsRequestor") for each in root.iter("ActiveParticipant")]
    assert requestors.count("true") == 1


@pytest.mark.parametrize("alarm", ["broken", "rewritten"])
def test_an_alert_says_only_our_own_words(alarm):
    event = alert(alarm, "site-a", KEYS, 3, NOW)
    assert FhirAuditEvent.model_validate(fhir.resource(event)).outcome == "8"
    assert fhir.resource(event)["type"]["code"] == "110113"
    check_dicom(parsed(message(event)))
    assert syslog_message(event, "host").startswith(b"<82>1 ")


def test_who_approved_the_plan_is_named_until_it_is_declined(received):
    audited = audit(received.ledger, key_file=None, witness_file=None)
    events = list(events_of(audited.records, KEYS, audited.verdict.witnessed_size))
    assert {e.approved_by for e in events if e.event == "SEND"} == {"A. Smith"}
    declined = [
        record.model_copy(update={"event": "DECLINE"}) if record.event == "APPROVE" else record
        for record in audited.records
    ]
    assert {e.approved_by for e in events_of(declined, KEYS, 0)} == {None}


def test_a_bundle_holds_every_resource_under_a_name_of_its_own(received):
    audited = audit(received.ledger, key_file=None, witness_file=None)
    made = json.loads(fhir.bundle(events_of(audited.records, KEYS, 0)))
    assert (made["resourceType"], made["type"]) == ("Bundle", "collection")
    assert len({entry["fullUrl"] for entry in made["entry"]}) == len(audited.records)
    assert "entry" not in json.loads(fhir.bundle([]))


def test_equal_records_give_equal_bytes(received):
    audited = audit(received.ledger, key_file=None, witness_file=None)
    twice = [
        canonical_json([each.id for each in events_of(audited.records, KEYS, 0)]) for _ in "ab"
    ]
    assert twice[0] == twice[1]
