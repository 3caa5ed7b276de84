"""Settings of a learner of displacements: what it has no use for is refused, by field."""

from __future__ import annotations

import pytest

from common.errors import InputDataError
from common.plan import parse_plan
from common.settings import KINDS
from common.wire.bounds import draws_behind, most_transitions
from common.wire.records import ModelUpdate, RoundReport, SketchTable
from common.wire.rules import answers_of, summed_of

OF_POINTS = [kind for kind, entry in KINDS.items() if entry.section == "ladder"]


def plan_of(kind="landmark-2d", **sections):
    whole = {"task": {"kind": kind, "frames": 1}, "learner": {"method": "displacement"}}
    entry = KINDS[kind]
    if entry.named:
        whole["task"][entry.named] = ["A", "B", "C"]
    for name, values in sections.items():
        whole[name] = whole.get(name, {}) | values
    if "frames" not in entry.settings:
        whole["task"].pop("frames", None)
    return parse_plan({"name": "p", "seed": 1, **whole})


@pytest.mark.parametrize("kind", OF_POINTS)
def test_a_displacement_has_an_axis_for_each_of_the_images(kind):
    space = plan_of(kind).space
    assert space.actions == KINDS[kind].dim
    assert len(space.reach_mm) == space.levels
    # The unit of a finer level is what its searches begin within.
    steps = plan_of(kind).ladder.steps_mm
    assert space.reach_mm[1:] == tuple(2 * step for step in steps[:-1])
    assert space.reach_mm[0] >= space.views_mm[0]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in OF_POINTS])
def test_kinds_that_look_for_no_points_refuse_it(kind):
    with pytest.raises(InputDataError) as refused:
        plan_of(kind)
    assert refused.value.field == "learner.method"
    assert "landmark-2d" in refused.value.expected
    assert refused.value.got == "displacement"


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("task", "frames", 4),
        ("network", "dueling", True),
        ("learner", "path_supervision_only", True),
        ("learner", "warm_start", 0.5),
        ("learner", "replay", "rare-first"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(section, key, value):
    with pytest.raises(InputDataError) as refused:
        plan_of(**{section: {key: value}})
    assert refused.value.field == f"{section}.{key}"
    assert str(value).lower() == refused.value.got.lower()


def test_foreign_weights_have_values_and_no_displacements():
    with pytest.raises(InputDataError) as refused:
        plan_of("landmark-3d-cube", task={"world": "rl-medical"})
    assert refused.value.field == "task.world"


def test_a_plan_that_does_not_speak_of_it_keeps_its_fingerprint():
    silent = parse_plan({"name": "p", "seed": 1, "task": {"landmarks": ["A"]}})
    told = parse_plan(
        {"name": "p", "seed": 1, "task": {"landmarks": ["A"]}, "learner": {"method": "dqn"}}
    )
    assert silent.fingerprint == told.fingerprint
    assert b'"method"' not in silent.canonical()
    assert b'"method"' in plan_of().canonical()


def test_what_stands_behind_an_update_is_counted_in_places():
    plan = plan_of(learner={"batch": 24, "updates": 30}, rounds={"training": 3})
    assert draws_behind(plan) == 24
    assert most_transitions(plan) == 24 * 10


def test_a_table_of_experience_answers_no_order_of_displacements():
    silent, counted = plan_of(), plan_of(learner={"method": "dqn", "replay": "rare-first"})
    assert SketchTable in answers_of(counted, "train")
    assert SketchTable in summed_of(counted, "train")
    assert answers_of(silent, "train") == (ModelUpdate, RoundReport)
    assert summed_of(silent, "train") == (ModelUpdate,)
    for phase in ("begin", "evaluate"):
        assert answers_of(silent, phase) == answers_of(counted, phase) == (RoundReport,)
        assert summed_of(silent, phase) == ()
