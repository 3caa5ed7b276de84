"""Counts are bounded by the plan: what a site cannot have gathered, it cannot say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import RefusedError
from common.plan import FederationPlan, parse_plan
from common.schedule import PHASES
from common.wire.bounds import (
    LARGEST_SLIDE,
    MAX_IMAGES,
    MAX_PIXELS,
    SHARES_OF_A_ROUND,
    most_pixels,
    most_present,
    most_transitions,
    most_updates,
    samples_of,
)
from common.wire.codes import ReplyCode
from common.wire.envelope import Envelope
from common.wire.expected import Expected, RecordFloors, require_table
from common.wire.records import (
    ErrorTables,
    ModelUpdate,
    Record,
    RoundReport,
    SketchTable,
    TaskError,
)
from common.wire.rules import check_record

KEY_ID, CODEC = "0123456789abcdef", "c" * 64
PLAN = parse_plan(
    {
        "name": "p",
        "seed": 1,
        "task": {"landmarks": ["AC", "PC"]},
        "learner": {"searches": 32, "updates": 60, "warmup": 100, "replay": "rare-first"},
        "experience": {"rows": 3, "columns": 64},
    }
)
BY_TIME = PLAN.model_copy(update={"rounds": PLAN.rounds.model_copy(update={"train_s": 5.0})})
MOST = 32 * (4 + 10)
EXPECTED = Expected(
    site="north",
    run="run-1",
    round=2,
    phase="train",
    plan=PLAN,
    shapes={"w": (2,)},
    floors=RecordFloors.of(PLAN),
    key_id=KEY_ID,
    codec=CODEC,
    samples=3,
)
ABOUT = {"plan_fingerprint": PLAN.fingerprint, "site": "north", "run": "run-1", "round": 2}


def by_time(**said: int) -> Envelope:
    record = update(**said).record.model_copy(update={"plan_fingerprint": BY_TIME.fingerprint})
    return Envelope(record, update().arrays)


def update(**said: int) -> Envelope:
    counts = {"images": 4, "samples": 3, "transitions": MOST, "updates": 10} | said
    return Envelope(ModelUpdate(**ABOUT, **counts), {"w": np.array([5, -5], np.int32)})


def report(**said: int) -> Envelope:
    counts = {"images": 4, "transitions": MOST, "updates": 10} | said
    return Envelope(RoundReport(**ABOUT, code=ReplyCode.OK, **counts), {})


def sketch(total: int = MOST, cell: int = 1) -> Envelope:
    record = SketchTable(**ABOUT, rows=3, columns=64, key_id=KEY_ID, codec=CODEC, total=total)
    table = np.ones((3, 64), np.int64)
    table[:, 0] = cell
    return Envelope(record, {"table": table})


def refuse(envelope: Envelope, field: str, expected: Expected = EXPECTED) -> None:
    with pytest.raises(RefusedError) as caught:
        check_record(envelope, expected)
    assert caught.value.field == field


def test_what_a_whole_round_gathers_passes():
    for envelope in (update(), report(), sketch()):
        check_record(envelope, EXPECTED)


@pytest.mark.parametrize("make", [update, report])
@pytest.mark.parametrize(("field", "most"), [("transitions", MOST), ("updates", 10)])
def test_a_count_beyond_the_plan_is_refused(make, field, most):
    check_record(make(**{field: most}), EXPECTED)
    refuse(make(**{field: most + 1}), field)


def test_lie_9_a_table_of_huge_cells_would_need_a_huge_total_which_is_refused():
    check_record(sketch(cell=MOST - 63), EXPECTED)
    refuse(sketch(cell=MOST - 62), "table")
    refuse(sketch(total=MOST + 1, cell=MOST - 62), "total")
    refuse(sketch(total=2**53 - 1, cell=2**53 - 100), "total")


def test_lie_10_the_least_of_all_integers_is_no_cell():
    refuse(sketch(cell=-(2**63)), "table")


def test_row_sums_do_not_wrap_around():
    table = np.full((2, 64), 2**58, np.int64)
    with pytest.raises(RefusedError, match="larger sum"):
        require_table(table, "table", (2, 64), 2**58)


def test_lie_11_a_no_op_that_claims_a_billion_transitions_is_refused():
    no_op = PLAN.model_copy(update={"kind": "no-op"})
    assert most_transitions(no_op) == 100
    expected = replace(EXPECTED, plan=no_op)
    fingerprint = {"plan_fingerprint": no_op.fingerprint}
    for lie in (10**9, 101):
        envelope = update(transitions=lie)
        record = envelope.record.model_copy(update=fingerprint)
        refuse(Envelope(record, envelope.arrays), "transitions", expected)


@pytest.mark.parametrize("phase", sorted(set(PHASES) - {"train"}))
def test_nothing_is_gathered_where_nothing_is_trained(phase):
    assert most_transitions(PLAN, phase) == most_updates(PLAN, phase) == 0


def test_a_report_of_an_evaluation_says_that_nothing_was_trained():
    expected = replace(EXPECTED, phase="evaluate")
    check_record(report(transitions=0, updates=0), expected)
    refuse(report(updates=0), "transitions", expected)
    refuse(report(transitions=0, updates=1), "updates", expected)


def planned(searches: int, updates: int, warmup: int, capacity: int) -> FederationPlan:
    learner = {"searches": searches, "updates": updates, "warmup": warmup}
    values = PLAN.model_dump(mode="json") | {"learner": learner | {"replay_capacity": capacity}}
    return parse_plan(values | {"rounds": {"training": 1}})


@given(st.integers(1, 1024), st.integers(1, 10_000), st.integers(1, 10**6), st.integers(100, 10**6))
def test_the_bound_lies_a_lockstep_above_warm_up_and_updates_at_most(
    searches, updates, warmup, capacity
):
    most = most_transitions(planned(searches, updates, warmup, capacity))
    least = min(warmup, capacity) + searches * updates
    assert least <= most < least + searches


def test_a_site_of_few_slides_cannot_have_all_the_pixels_in_the_world():
    assert most_pixels(1) == LARGEST_SLIDE
    assert most_pixels(3) == 3 * LARGEST_SLIDE
    assert most_pixels(10**6) == MAX_PIXELS


def test_no_more_keys_are_present_than_there_could_be():
    asked = parse_plan(
        {
            "name": "p",
            "kind": "pixels",
            "seed": 1,
            "pixels": {"bands": ["a", "b", "c"], "components": 3, "bins": 2, "presence_floor": 10},
        }
    ).pixels
    assert most_present(asked, 59) == 5
    assert most_present(asked, 10**6) == asked.keys == 8


def test_lie_8_a_million_and_one_images_are_more_than_any_site_has():
    check_record(report(images=1_000_000), EXPECTED)
    refuse(report(images=1_000_001), "images")


def test_lies_4_and_5_whoever_claims_a_million_images_weighs_what_it_was_admitted_for():
    check_record(update(images=1_000_000), EXPECTED)
    refuse(update(images=1_000_000, samples=4), "samples")
    refuse(update(images=1_000_000, samples=1_000_000), "samples")
    refuse(update(images=2, samples=3), "samples")
    refuse(update(samples=0), "samples")


def test_lie_16_invented_errors_are_of_no_more_searches_than_so_many_images_have():
    """That they are invented nobody can see; they move no weights."""
    most = 4 * PLAN.evaluation.starts
    figures = dict.fromkeys(("mean_milli", "median_milli", "consensus_milli", "over_10mm"), 0)
    for searches, holds in ((most, True), (most + 1, False)):
        error = TaskError(
            label="AC", part="training", searches=searches, prior_milli=10_000_000, **figures
        )
        said = report()
        lie = Envelope(said.record.model_copy(update={"errors": (error,)}), {})
        if holds:
            check_record(lie, EXPECTED)
        else:
            refuse(lie, "errors.searches")


MOST_SEARCHES = 2 * PLAN.evaluation.starts


@pytest.mark.parametrize(
    ("held_out", "searches", "field"),
    [
        (2, MOST_SEARCHES, ""),
        (2, MOST_SEARCHES + 1, "errors.searches"),
        (0, 1, "errors.searches"),
        (MAX_IMAGES + 1, 1, "held_out"),
    ],
)
def test_held_out_errors_are_of_no_more_searches_than_held_out_images_have(
    held_out, searches, field
):
    figures = dict.fromkeys(
        ("mean_milli", "median_milli", "consensus_milli", "prior_milli", "over_10mm"), 0
    )
    error = TaskError(label="AC", part="held-out", searches=searches, **figures)
    changes = {"errors": (error,), "held_out": held_out}
    told = Envelope(report().record.model_copy(update=changes), {})
    if field:
        refuse(told, field)
    else:
        check_record(told, EXPECTED)


@pytest.mark.parametrize("images", [1, 2])
def test_fewer_held_out_images_than_the_floor_are_not_spoken_of(images):
    floors = replace(EXPECTED.floors, images=3)
    told = Envelope(report().record.model_copy(update={"held_out": images}), {})
    with pytest.raises(RefusedError, match="held_out") as caught:
        check_record(told, replace(EXPECTED, floors=floors))
    assert caught.value.expected == "at least 3"


@given(st.integers(0, 2**52), st.integers(1, 10**6))
def test_a_site_counts_as_no_more_than_it_was_admitted_for(claimed, cap):
    assert samples_of(PLAN, claimed, 10, cap) <= cap
    assert samples_of(PLAN, claimed, 10, cap) <= claimed
    assert samples_of(PLAN, 1_000_000, 10, cap) == cap


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(0, 10))
def test_in_a_round_by_time_a_site_counts_by_what_it_has_done_of_it(images, cap, updates):
    counts = samples_of(BY_TIME, images, updates, cap)
    whole = samples_of(BY_TIME, images, 10, cap)
    assert whole == SHARES_OF_A_ROUND * samples_of(PLAN, images, updates, cap)
    assert counts == max(1, whole * updates // 10)


def test_in_a_round_by_time_nobody_counts_by_more_updates_than_it_says():
    said = {"samples": 3 * SHARES_OF_A_ROUND * 4 // 10, "updates": 4}
    check_record(by_time(**said), replace(EXPECTED, plan=BY_TIME))
    for lie in ({"samples": said["samples"] + 1}, {"updates": 3}, {"updates": 11}):
        with pytest.raises(RefusedError, match=r"samples|updates"):
            check_record(by_time(**said | lie), replace(EXPECTED, plan=BY_TIME))


def test_every_count_of_a_round_that_trains_is_bounded_or_held_against_one_that_is():
    """A new count in a record of training has to find its bound first."""
    known = {
        "round": "the order's",
        "images": "MAX_IMAGES",
        "held_out": "MAX_IMAGES",
        "samples": "images, and what the site was admitted for",
        "transitions": "most_transitions",
        "total": "most_transitions, or most_replays",
        "errors": "MOST_ERROR a replay",
        "updates": "most_updates",
        "rows": "the plan's",
        "columns": "the plan's",
        "loss_milli": "MAX_LOSS_MILLI",
        "epsilon_milli": "1000",
        "train_ms": "MAX_TRAIN_MS",
    }
    kinds: tuple[type[Record], ...] = (ModelUpdate, SketchTable, ErrorTables, RoundReport)
    counts = {n for kind in kinds for n, f in kind.model_fields.items() if f.annotation is int}
    assert counts == known.keys()
