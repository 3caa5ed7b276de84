"""All attacks behind one rehearsal, and why there are none."""

from __future__ import annotations

import json

import numpy as np
import pytest

from common.model import initial_weights
from common.plan import parse_plan
from site_client.agent.federated import planned_learner
from site_client.exposure.examine import RehearsedRound, examine
from site_client.exposure.findings import Exposure, why_not
from tests.conftest import SMALL_PLAN
from tests.crafted import textured_cases
from tests.tasks import site_cases

PLAN = parse_plan(SMALL_PLAN | {"task": SMALL_PLAN["task"] | {"spacing_mm": 2.0}})
PIXELS = {"name": "p", "seed": 1, "kind": "pixels", "pixels": {"bands": list("abcdefgh")}}
EMBED = {
    "name": "e",
    "seed": 1,
    "kind": "embed",
    "embed": {"codec": "0" * 64, "codebook": "1" * 64, "groups": ["g"]},
}
NO_OP = {"name": "n", "seed": 1, "kind": "no-op", "task": {"landmarks": ["A"]}}


@pytest.fixture(scope="module")
def release():
    cases, watched, before = (
        site_cases(PLAN, textured_cases(10, side=32)),
        [],
        initial_weights(PLAN),
    )
    learner = planned_learner(PLAN, cases.task, 3, watch=watched.append)
    learner.load(before)
    learner.train(PLAN.updates_in(1))
    delta = {name: value - before[name] for name, value in learner.weights().items()}
    return RehearsedRound(PLAN, before, delta, cases, watched, 3)


def test_all_three_attacks_are_tried_and_told_in_json_without_a_pixel(release):
    steps = []
    exposure = examine(release, lambda what, done, total: steps.append((what, done, total)))
    told = json.loads(json.dumps(exposure.as_dict()))
    assert told["applicable"] is True
    assert [name for name, *_ in exposure.lines()] == ["slices", "imprint", "membership"]
    assert 0 <= told["membership"]["low"] <= told["membership"]["auc"] <= 1
    assert told["membership"]["trained"] == told["membership"]["others"] == 5
    assert steps[-1] == ("attacking the release", 3, 3)
    assert all(found.best is not None for found in exposure.readings)


def test_an_update_that_ran_away_is_not_attacked(release):
    broken = {**release.delta, "fc1.bias": np.full(256, np.nan, np.float32)}
    exposure = examine(
        RehearsedRound(PLAN, release.before, broken, release.cases, release.watched, 3)
    )
    assert "not finite" in exposure.reason
    assert exposure.lines() == []


@pytest.mark.parametrize(
    ("plan", "said"),
    [(PIXELS, "no weights leave"), (EMBED, "no weights leave"), (NO_OP, "nothing is trained")],
)
def test_plans_that_train_nothing_have_nothing_to_attack_and_say_why(plan, said):
    reason = why_not(parse_plan(plan))
    assert said in reason
    assert Exposure(reason).as_dict() == {"applicable": False, "reason": reason}
    assert why_not(PLAN) == ""
