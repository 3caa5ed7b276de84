"""The records of one answer agree: what is large where it weighs is as large where it is seen."""

from __future__ import annotations

import pytest

from common.errors import RefusedError
from common.wire.envelope import Envelope
from common.wire.rules import ANSWERS
from common.wire.together import check_together

TRAIN = ("ModelUpdate", "SketchTable", "ErrorTables", "RoundReport")


@pytest.fixture
def answers(envelopes):
    """One answer of each phase that is answered by more than a report."""
    agreed = dict(envelopes)
    agreed["SketchTable"] = bent(envelopes["SketchTable"], total=200)
    answers = {
        phase: [agreed[kind.__name__] for kind in kinds]
        for phase, kinds in ANSWERS.items()
        if len(kinds) > 1
    }
    for phase, answer in answers.items():
        if phase != "train":
            # Two slides were read, and nothing was trained.
            answer[-1] = bent(answer[-1], images=2, transitions=0, updates=0)
    return answers


def bent(envelope: Envelope, **changes: object) -> Envelope:
    return Envelope(envelope.record.model_copy(update=changes), envelope.arrays)


def test_honest_answers_of_every_phase_pass(answers, envelopes):
    for answer in answers.values():
        check_together(answer)
        check_together(reversed(answer))
    check_together([envelopes["failure"]])
    check_together([])


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("ModelUpdate", "images", 1_000_000),
        ("ModelUpdate", "transitions", 10**9),
        ("ModelUpdate", "updates", 9),
        ("SketchTable", "total", 2**53 - 1),
        ("SketchTable", "total", 199),
        ("SketchTable", "key_id", "f" * 16),
        ("SketchTable", "codec", "0" * 64),
        ("RoundReport", "images", 3),
        ("RoundReport", "transitions", 100),
        ("RoundReport", "updates", 0),
        ("RoundReport", "round", 4),
        ("RoundReport", "site", "south"),
    ],
)
def test_lies_7_9_and_11_no_record_of_a_round_says_another_count(answers, name, field, value):
    answer = answers["train"]
    place = TRAIN.index(name)
    answer[place] = bent(answer[place], **{field: value})
    with pytest.raises(RefusedError, match="contradicts itself"):
        check_together(answer)


@pytest.mark.parametrize("phase", ["survey", "range", "sketch", "embed"])
def test_slides_are_the_images_of_the_report(answers, phase):
    records, report = answers[phase]
    with pytest.raises(RefusedError, match="RoundReport: images"):
        check_together([records, bent(report, images=3)])
    with pytest.raises(RefusedError, match="RoundReport: images"):
        check_together([bent(records, slides=1_000_000), report])


@pytest.mark.parametrize("phase", ["survey", "range", "sketch", "recover", "embed"])
def test_a_report_names_the_codec_of_its_record(answers, phase):
    record, report = answers[phase]
    with pytest.raises(RefusedError, match="codec"):
        check_together([record, bent(report, codec="0" * 64)])


@pytest.mark.parametrize("phase", ["sketch", "recover"])
def test_a_report_names_the_key_of_its_tables(answers, phase):
    record, report = answers[phase]
    with pytest.raises(RefusedError, match="key_id"):
        check_together([record, bent(report, key_id="0" * 16)])
    check_together([record, bent(report, key_id=None)])


def test_the_refusal_names_both_records_and_no_value(answers):
    answer = answers["train"]
    answer[0] = bent(answer[0], images=31_337)
    with pytest.raises(RefusedError) as caught:
        check_together(answer)
    assert caught.value.field == "RoundReport: images"
    assert caught.value.expected == "what its ModelUpdate says"
    assert "31337" not in str(caught.value)
