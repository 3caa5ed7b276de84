"""A record has a closed form and one spelling; nothing else can be written into the ledger."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.canonical import canonical_json
from common.errors import InputDataError, RefusedError, VerificationError
from common.ledger.records import (
    LedgerRecord,
    PrivacyRecord,
    RefusalDetail,
    format_timestamp,
    make_record,
    parse_record,
    parse_timestamp,
    record_line,
)

UNTIMED = settings(deadline=None)  # a busy machine is no failure

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DIGEST = "a" * 64


def refusal(**fields) -> LedgerRecord:
    return make_record(seq=3, event="REFUSE", now=NOW, site="site-a", fields={"code": 12, **fields})


def test_fields_that_say_nothing_do_not_appear_in_the_line():
    assert record_line(refusal()) == (
        b'{"code":12,"event":"REFUSE","seq":3,"site":"site-a","ts":"2026-01-02T03:04:05Z","v":1}'
    )


def test_a_line_reads_back_as_the_record_it_was_written_from():
    dp = PrivacyRecord(
        mechanism="gaussian",
        clip_milli=1000,
        sigma_milli=4225,
        epsilon_total_milli=1500,
        delta="1e-6",
    )
    record = refusal(dp=dp, masked=False, detail=RefusalDetail(field="weights/fc1"))
    assert parse_record(record_line(record)) == record


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("v", 2),
        ("seq", -1),
        ("seq", 1.5),
        ("seq", True),
        ("seq", "3"),
        ("event", "LEAK"),
        ("ts", "2026-01-02 03:04:05"),
        ("ts", "2026-13-02T03:04:05Z"),
        ("ts", "2026-01-02T03:04:05Z\n"),
        ("ts", "２026-01-02T03:04:05Z"),
        ("site", "Site A"),
        ("code", 70_000),
        ("payload_sha256", "A" * 64),
        ("payload_sha256", DIGEST + "\n"),
        ("bytes", 2**53),
        ("run", "a b"),
        ("app_sha256", DIGEST[1:]),
        ("masked", 1),
        ("note", "free text"),
        ("detail", {"field": "x", "got": "Müller, Hans"}),
        ("detail", {"field": "x", "note": "y"}),
        ("arrays", [{"name": "a", "dtype": "float32", "shape": [1.5], "sha256": DIGEST}]),
    ],
)
def test_anything_outside_the_closed_form_is_refused(field, value):
    good = json.loads(record_line(refusal()))
    with pytest.raises(VerificationError):
        parse_record(canonical_json({**good, field: value}))


@pytest.mark.parametrize(
    "line",
    [
        b'{"code":12,"event":"REFUSE","seq":3,"site":"site-a","ts":"2026-01-02T03:04:05Z", "v":1}',
        b'{"event":"REFUSE","code":12,"seq":3,"site":"site-a","ts":"2026-01-02T03:04:05Z","v":1}',
        b'{"code":12,"event":"REFUSE","run":null,"seq":3,"site":"site-a",'
        b'"ts":"2026-01-02T03:04:05Z","v":1}',
        b'{"code":12,"code":12,"event":"REFUSE","seq":3,"site":"site-a",'
        b'"ts":"2026-01-02T03:04:05Z","v":1}',
        b"",
        b"[]",
        b"\xff",
    ],
)
def test_a_record_has_one_spelling(line):
    with pytest.raises(VerificationError):
        parse_record(line)


@pytest.mark.parametrize(
    ("event", "missing"),
    [
        ("SEND", "payload_sha256"),
        ("SEND_FAILED", "code"),
        ("REFUSE", "code"),
        ("BUDGET", "dp"),
        ("APPROVE", "plan_fingerprint"),
    ],
)
def test_an_event_must_say_what_it_is_about(event, missing):
    with pytest.raises(InputDataError, match=missing):
        make_record(seq=0, event=event, now=NOW, site="site-a", fields={})


def test_an_error_names_the_field_and_never_its_value():
    with pytest.raises(InputDataError) as caught:
        refusal(run="Hans Müller 1943-02-01")
    assert "run" in str(caught.value)
    assert "Hans" not in str(caught.value)


@UNTIMED
@given(st.text(max_size=400), st.text(max_size=400), st.text(max_size=400))
def test_the_detail_of_any_refusal_fits_the_ledgers_small_alphabet(field, expected, got):
    error = RefusedError("egress refused", field=field, expected=expected, got=got)
    detail = RefusalDetail.of(error)
    assert parse_record(record_line(refusal(detail=detail))).detail == detail


@UNTIMED
@given(st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)))  # noqa: DTZ001 - zone added below
def test_times_are_utc_to_the_second_and_read_back(moment):
    here = moment.replace(tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert parse_timestamp(format_timestamp(here)) == here.replace(microsecond=0)


def test_a_time_without_a_zone_is_no_time():
    with pytest.raises(InputDataError, match="zone"):
        format_timestamp(NOW.replace(tzinfo=None))
