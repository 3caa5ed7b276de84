"""The closed set of records: what is not named here does not exist."""

import pytest

from common.errors import RefusedError
from common.wire.codes import EXPLANATIONS, ReplyCode
from common.wire.records import RECORD_TYPES, parse_record


def header(envelope, **changes):
    return envelope.record.model_dump(mode="json", exclude_none=True) | changes


def test_the_set_of_records_is_this_one():
    names = [kind.__name__ for kind in RECORD_TYPES]
    training = ["ModelUpdate", "SketchTable", "ErrorTables", "RoundReport"]
    assert names == [
        *training,
        "PixelStatistics",
        "PixelSketches",
        "HeavyHitters",
        "GroupCounts",
    ]


@pytest.mark.parametrize(
    "kind",
    [
        *("ModelUpdate", "SketchTable", "ErrorTables", "RoundReport", "failure"),
        *("PixelStatistics", "PixelSketches", "HeavyHitters", "GroupCounts"),
    ],
)
def test_a_header_is_read_back_as_it_was_written(envelopes, kind):
    assert parse_record(header(envelopes[kind])) == envelopes[kind].record


@pytest.mark.parametrize("name", ["modelupdate", "Image", "", None, 3])
def test_a_type_that_does_not_exist_is_refused(envelopes, name):
    with pytest.raises(RefusedError, match="unknown record type"):
        parse_record(header(envelopes["RoundReport"], record_type=name))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("note", "free text"),
        ("site", "North Hospital"),
        ("site", "a" * 33),
        ("run", "../etc"),
        ("plan_fingerprint", "AB" * 32),
        ("round", -1),
        ("round", 2**53),
        ("round", 1.0),
        ("round", "1"),
        ("round", True),
        ("v", 2),
        ("code", 99),
        ("code", "OK"),
        ("key_id", "0123"),
        ("loss_milli", 0.3),
        ("errors", [{"landmark": "AC"}]),
        ("errors", "none"),
    ],
)
def test_a_field_that_is_not_of_its_form_is_refused_without_quoting_it(envelopes, field, value):
    with pytest.raises(RefusedError) as caught:
        parse_record(header(envelopes["RoundReport"], **{field: value}))
    assert field in caught.value.field
    assert "free text" not in str(caught.value)
    assert "Hospital" not in str(caught.value)


@pytest.mark.parametrize("value", [None, [], "record", 7, {}])
def test_what_is_no_header_at_all_is_refused(value):
    with pytest.raises(RefusedError):
        parse_record(value)


def test_the_numbers_of_failures_are_frozen():
    assert {code.name: int(code) for code in ReplyCode} == {
        "OK": 0,
        "NO_ANSWER": 1,
        "REFUSED_BY_POLICY": 2,
        "REFUSED_AT_DOOR": 3,
        "BAD_DATA": 4,
        "BAD_ORDER": 5,
        "OUT_OF_MEMORY": 6,
        "DISK_FULL": 7,
        "INTERNAL": 8,
        "LEDGER_BROKEN": 9,
        "UNAPPROVED_APP": 10,
        "UNTRUSTED_KEY": 11,
        "NO_FEDERATION_KEY": 12,
        "FORGED_SUM": 13,
        "BEHIND": 14,
        "UNKNOWN_PEERS": 15,
        "PLAN_WAITS": 16,
        "PLAN_DECLINED": 17,
        "BUDGET_SPENT": 18,
        "BACKWARDS": 19,
        "CHANGED_PLAN": 20,
        "UNKNOWN_START": 21,
        "RECEIPTS_DUE": 22,
        "CONTRADICTED": 23,
        "UNWITNESSED": 24,
        "RUN_OVER": 25,
        "RUN_STOPPED": 26,
    }


def test_every_number_has_an_explanation():
    assert set(EXPLANATIONS) == set(ReplyCode)
