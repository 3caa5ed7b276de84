"""The plan's options for sites that differ: what they say, and what they leave as it was."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import InputDataError, RefusedError
from common.model import initial_weights, own_part, shared_part, shared_shapes, weight_shapes
from common.plan import parse_plan
from common.settings import parameters_of
from common.wire.envelope import Envelope
from common.wire.expected import Expected, RecordFloors
from common.wire.labels import LABELS, branch_rows, check_labels_told
from common.wire.records import ModelUpdate, RoundReport, TaskError
from common.wire.rules import check_record
from common.words.facts import facts_of
from common.words.leaving import leavings, sent_weights_of, weights_of
from common.words.plan import in_words

PLAN = {"name": "p", "seed": 3, "task": {"landmarks": ["A", "B", "C"], "roi": 9}}
KIND_OF = {
    "triplanar": {"kind": "landmark-3d"},
    "planar": {"kind": "landmark-2d"},
    "paper2d": {"kind": "landmark-2d", "roi": 45},
    "volume-light": {"kind": "landmark-3d-cube", "roi": 13},
    "network3d": {"kind": "landmark-3d-cube", "roi": 45},
    "collab": {"kind": "multi-agent-3d", "roi": 45},
    "commnet": {"kind": "multi-agent-3d", "roi": 45, "agents_per_landmark": 2},
}


def plan_of(architecture="triplanar", *, task=None, network=None, **sections):
    return parse_plan(
        PLAN
        | {
            "task": PLAN["task"] | KIND_OF[architecture] | (task or {}),
            "network": {"architecture": architecture, "dueling": True} | (network or {}),
        }
        | sections
    )


def test_plans_that_say_nothing_of_it_keep_their_bytes():
    said = parse_plan(
        PLAN | {"task": PLAN["task"] | {"missing": "refuse"}, "network": {"private_heads": False}}
    )
    assert said.canonical() == parse_plan(PLAN).canonical()
    assert b"missing" not in said.canonical()
    assert b"private" not in said.canonical()


@pytest.mark.parametrize(
    "change", [{"task": {"missing": "allow"}}, {"network": {"private_heads": True}}]
)
def test_a_plan_that_says_it_is_another_and_parses_back(change):
    plan = parse_plan(
        {
            k: PLAN.get(k, {}) | change.get(k, {}) if isinstance(PLAN.get(k, {}), dict) else PLAN[k]
            for k in {*PLAN, *change}
        }
    )
    assert plan.fingerprint != parse_plan(PLAN).fingerprint
    assert parse_plan(plan.model_dump(mode="json")) == plan


def test_a_kind_without_names_has_nothing_that_could_lack():
    for kind in ("view-plane", "registration-3d"):
        named = {"plane_landmarks": ["A", "B", "C"]} if kind == "view-plane" else {}
        with pytest.raises(InputDataError, match="missing is for landmark-3d"):
            parse_plan(PLAN | {"task": {"kind": kind, "missing": "allow"} | named})


def test_a_team_for_all_landmarks_at_once_cannot_lack_one():
    with pytest.raises(InputDataError, match=r"task\.missing"):
        plan_of("collab", task={"missing": "allow"})
    assert plan_of("commnet", task={"missing": "allow"}).tells_labels


@pytest.mark.parametrize("architecture", KIND_OF)
def test_every_row_of_a_branch_is_one_labels(architecture):
    plan = plan_of(architecture)
    parameters = parameters_of(plan.network, plan.space)
    for name, rows in branch_rows(plan).items():
        assert parameters[name].shape[0] == rows * len(plan.space.labels)
    ends = {name.rsplit(".", 1)[0] for name in branch_rows(plan)}
    assert {"heads", "state"} <= ends
    assert not any("conv" in name or "attend" in name for name in ends)


@pytest.mark.parametrize("architecture", KIND_OF)
def test_private_heads_are_drawn_as_ever_and_taken_apart(architecture):
    plan, whole = plan_of(architecture, network={"private_heads": True}), plan_of(architecture)
    drawn = initial_weights(plan)
    for name, array in initial_weights(whole).items():
        np.testing.assert_array_equal(drawn[name], array)
    shared, own = shared_part(drawn, plan), own_part(drawn, plan)
    assert {**shared, **own}.keys() == weight_shapes(plan).keys()
    assert not shared.keys() & own.keys()
    assert set(own) == set(branch_rows(plan))
    assert shared_shapes(plan) == {n: a.shape for n, a in shared.items()}
    assert own_part(drawn, whole) == {}


def test_the_words_say_what_is_shared_and_what_is_not():
    private = plan_of(network={"private_heads": True})
    text = " ".join(s for passage in in_words(private) for s in passage.sentences)
    assert f"the sites add up {sent_weights_of(private):,}" in text
    assert sent_weights_of(private) < weights_of(private)
    assert dict(facts_of(private))["heads"].startswith("private")
    update = next(each for each in leavings(private) if each.record == "ModelUpdate")
    assert update.array_bytes == 4 * sent_weights_of(private)
    lacking = plan_of(task={"missing": "allow"})
    text = " ".join(s for passage in in_words(lacking) for s in passage.sentences)
    assert "A site may lack some" in text
    assert "which of 3 labels the site trained" in text
    update = next(each for each in leavings(lacking) if each.record == "ModelUpdate")
    assert update.array_bytes == 4 * weights_of(lacking) + 4 * 3


# The rules of the array, at the door and at intake.


@pytest.fixture
def plan():
    return plan_of(task={"missing": "allow"})


def update_of(plan, has, **bent):
    arrays = {name: np.ones(shape, np.int32) for name, shape in weight_shapes(plan).items()}
    for name, rows in branch_rows(plan).items():
        arrays[name][np.repeat(np.array(has) == 0, rows)] = 0
    arrays[LABELS] = np.array(has, np.int32)
    record = ModelUpdate(
        plan_fingerprint=plan.fingerprint,
        site="north",
        run="run-1",
        round=1,
        images=4,
        samples=4,
        transitions=plan.limits.min_transitions,
        updates=1,
    )
    return Envelope(record, arrays | bent)


def check(envelope, plan):
    check_record(
        envelope,
        Expected("north", "run-1", 1, "train", plan, shared_shapes(plan), RecordFloors.of(plan)),
    )


def test_an_honest_update_with_labels_passes(plan):
    check(update_of(plan, [1, 0, 1]), plan)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.array([1, 0, 2], np.int32), "zeros and ones"),
        (np.array([1, 0, -1], np.int32), "zeros and ones"),
        (np.array([0, 0, 0], np.int32), "1 for one label"),
        (np.array([1, 1], np.int32), r"int32\[3\]"),
        (np.array([1, 0, 1], np.int64), r"int32\[3\]"),
    ],
)
def test_labels_that_are_none_are_refused(plan, labels, expected):
    with pytest.raises(RefusedError, match=expected):
        check(update_of(plan, [1, 0, 1], **{LABELS: labels}), plan)


def test_a_change_of_a_label_that_the_site_says_it_lacks_is_refused(plan):
    heads = np.zeros(weight_shapes(plan)["heads.weight"], np.int32)
    heads[plan.space.actions, 0] = 1  # the first row of the second label
    with pytest.raises(RefusedError, match=r"weights/heads\.weight.*lacks"):
        check(update_of(plan, [1, 0, 1], **{"heads.weight": heads}), plan)


def test_labels_are_of_plans_that_let_them_lack_alone(plan):
    plain = plan_of()
    update = update_of(plain, [1, 1, 1])
    with pytest.raises(RefusedError, match="weights"):
        check(update, plain)
    bare = {name: array for name, array in update.arrays.items() if name != LABELS}
    check(Envelope(update.record, bare), plain)
    told = update_of(plan, [1, 1, 1])
    without = {name: array for name, array in told.arrays.items() if name != LABELS}
    with pytest.raises(RefusedError, match="labels"):
        check(Envelope(told.record, without), plan)


def test_a_label_that_was_trained_has_an_error_in_the_report(plan):
    error = TaskError(
        label="A",
        part="training",
        searches=1,
        mean_milli=1,
        median_milli=1,
        consensus_milli=1,
        prior_milli=1,
        over_10mm=0,
    )
    update = update_of(plan, [1, 0, 1])
    about = {n: getattr(update.record, n) for n in ("plan_fingerprint", "site", "run", "round")}
    both = tuple(error.model_copy(update={"label": label}) for label in "AC")
    check_labels_told([update, Envelope(RoundReport(**about, code=0, errors=both), {})], plan)
    with pytest.raises(RefusedError, match="labels"):
        check_labels_told(
            [update, Envelope(RoundReport(**about, code=0, errors=both[:1]), {})], plan
        )


def test_private_heads_that_come_along_are_refused():
    plan = plan_of(network={"private_heads": True})
    update = update_of(plan, [1, 1, 1])
    whole = {name: array for name, array in update.arrays.items() if name != LABELS}
    with pytest.raises(RefusedError, match="weights"):
        check(Envelope(update.record, whole), plan)
    check(Envelope(update.record, {n: whole[n] for n in shared_shapes(plan)}), plan)
