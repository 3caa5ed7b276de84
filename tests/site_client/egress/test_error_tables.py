"""Tables of experience at the door: the plan's reader gets its own, and nobody gets another."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import RefusedError
from common.plan.experience import MOST_ERROR
from common.policy import check_phase
from common.wire.bounds import most_replays
from common.wire.envelope import Envelope, encode
from common.wire.records import ErrorTables
from common.wire.rules import answers_of, summed_of
from site_client.egress.gate import check, check_answer
from tests.site_client.egress.conftest import CODEC, KEY_ID, make_plan, make_table

WRONG_FIRST = {"learner": {"replay": "wrong-first", "updates": 60, "batch": 64}}
ALLOWED = {"records": {"allowed": ["ModelUpdate", "SketchTable", "ErrorTables", "RoundReport"]}}


@pytest.fixture
def replayed(build):
    """What a site tells of 100 replays, as bytes, with parts bent; and what it is held against."""
    answer = build(plan=WRONG_FIRST, policy=ALLOWED)
    tables = {"replays": make_table(), "errors": 30 * make_table()}
    record = ErrorTables(
        **{n: getattr(answer.update, n) for n in ("plan_fingerprint", "site", "run", "round")},
        rows=3,
        columns=64,
        key_id=KEY_ID,
        codec=CODEC,
        total=100,
        errors=3000,
    )

    def make(arrays=None, **changes) -> bytes:
        bent = record.model_copy(update=changes)
        return encode(Envelope(bent, {**tables, **(arrays or {})}))

    return answer, make


def refuse(data, context, field, words):
    with pytest.raises(RefusedError, match="nothing was sent") as caught:
        check(data, context)
    assert caught.value.field == field
    assert words in f"{caught.value.expected} {caught.value.got}"


def test_what_was_replayed_leaves_with_its_errors(replayed):
    answer, tables = replayed
    sent = [answer.update_bytes(), tables(), answer.report_bytes()]
    assert len(check_answer(sent, answer.context)) == 3


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"errors": 100 * MOST_ERROR + 1}, "errors", "a replay"),
        ({"errors": 1000}, "errors", "larger sum"),
        ({"total": most_replays(make_plan(**WRONG_FIRST)) + 1}, "total", "the plan's"),
        ({"total": 49}, "replays", "a larger"),
        ({"rows": 4}, "rows, columns", "the plan's"),
        ({"key_id": "f" * 16}, "key_id", "federation"),
        ({"codec": "d" * 64}, "codec", "the plan"),
    ],
)
def test_a_count_that_cannot_be_is_refused(replayed, changes, field, words):
    answer, tables = replayed
    refuse(tables(**changes), answer.context, field, words)


@pytest.mark.parametrize(
    ("arrays", "field", "words"),
    [
        ({"errors": np.full((3, 64), 2**60)}, "errors", "larger cell"),
        ({"errors": np.zeros((3, 63), np.int64)}, "errors", "int64"),
        ({"errors": np.zeros((3, 64), np.int32)}, "errors", "int64"),
        ({"replays": np.full((3, 64), 2)}, "replays", "larger sum"),
        ({"more": np.zeros(1, np.int64)}, "arrays", "exactly"),
    ],
)
def test_a_table_that_cannot_be_is_refused(replayed, arrays, field, words):
    answer, tables = replayed
    refuse(tables(arrays), answer.context, field, words)


def test_a_secret_key_is_asked_for(build, replayed):
    _, tables = replayed
    answer = build(plan=WRONG_FIRST, policy=ALLOWED, key_id="fedcba9876543210")
    refuse(tables(key_id="fedcba9876543210"), answer.context, "key_id", "tier 1")


def test_a_table_that_nobody_reads_does_not_leave(build, replayed):
    """Neither with a plan that reads none, nor one of the kind that its plan does not read."""
    read, tables = replayed
    unread = build(plan={"learner": {"replay": "uniform"}}, policy=ALLOWED)
    rare = build(plan={"learner": {"replay": "rare-first"}}, policy=ALLOWED)
    refuse(unread.sketch_bytes(), unread.context, "record_type", "ModelUpdate or RoundReport")
    refuse(read.sketch_bytes(), read.context, "record_type", "ErrorTables")
    about = {"plan_fingerprint": rare.context.plan.fingerprint}
    refuse(tables(**about), rare.context, "record_type", "SketchTable")
    check(rare.sketch_bytes(), rare.context)


def test_what_may_answer_follows_from_who_reads():
    def names(**plan):
        made = make_plan(**plan)
        return [k.__name__ for k in answers_of(made, "train")][1:-1], made.counts

    assert names(learner={"replay": "uniform"}) == ([], None)
    assert names(learner={"replay": "prioritised"}) == ([], None)
    assert names(learner={"replay": "rare-first"}) == (["SketchTable"], "experience")
    assert names(**WRONG_FIRST) == (["ErrorTables"], "errors")
    kept = {"rows": 3, "columns": 64, "key": "place", "kept": True}
    assert names(experience=kept) == (["SketchTable"], "experience")
    assert summed_of(make_plan(), "begin") == ()


def test_a_site_that_has_not_allowed_errors_is_not_asked_for_them(build):
    answer = build(plan=WRONG_FIRST)
    with pytest.raises(RefusedError, match="a need for ErrorTables"):
        check_phase(answer.context.policy, answer.context.plan, "train")
    check_phase(
        build(plan=WRONG_FIRST, policy=ALLOWED).context.policy, answer.context.plan, "train"
    )
