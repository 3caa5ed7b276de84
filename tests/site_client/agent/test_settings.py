from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputDataError
from common.plan import parse_plan
from common.settings import (
    EvaluationSettings,
    LadderSettings,
    LearnerSettings,
    NetworkSettings,
    PoseSettings,
    parse_settings,
)

ALL = [NetworkSettings, LadderSettings, PoseSettings, LearnerSettings, EvaluationSettings]


@pytest.mark.parametrize("kind", ALL)
def test_every_default_is_valid_and_survives_being_written(kind):
    assert parse_settings(kind, kind().model_dump(mode="json")) == kind()


@pytest.mark.parametrize("kind", ALL)
def test_a_misspelt_key_is_refused_by_its_name(kind):
    with pytest.raises(InputDataError, match=r"agent\.gama must be a known key, got an unknown"):
        parse_settings(kind, {"gama": 0.9}, "agent")


@pytest.mark.parametrize("kind", ALL)
def test_every_field_is_explained(kind):
    for name in kind.model_fields:
        assert re.search(rf"\b{name}\b", kind.__doc__ or ""), name


@pytest.mark.parametrize(
    ("kind", "wrong", "complaint"),
    [
        (LearnerSettings, {"gamma": 1.0}, "gamma must be"),
        (LearnerSettings, {"batch": 64.5}, "batch must be"),
        (LearnerSettings, {"batch": "64"}, "batch must be"),
        (LearnerSettings, {"learning_rate": float("inf")}, "learning_rate must be"),
        (LearnerSettings, {"replay": "prioritized"}, "replay must be"),
        (LearnerSettings, {"epsilon_start": 0.05}, "epsilon_end must not be above"),
        (
            LearnerSettings,
            {"warm_start": 0.5, "path_supervision_only": True},
            "makes a warm_start meaningless",
        ),
        (LadderSettings, {"scales": (2.0, 1.0)}, "the same length"),
        (LadderSettings, {"scales": (), "steps_mm": ()}, "scales must be"),
        (NetworkSettings, {"architecture": "resnet"}, "architecture must be"),
        (PoseSettings, {"rotation_deg": -1.0}, "rotation_deg must be"),
        (EvaluationSettings, {"starts": 0}, "starts must be"),
    ],
)
def test_what_makes_no_sense_is_refused(kind, wrong, complaint):
    with pytest.raises(InputDataError, match=complaint):
        parse_settings(kind, wrong)


@given(
    learner=st.builds(
        LearnerSettings,
        updates=st.integers(3, 100_000_000),
        batch=st.integers(1, 4096),
        gamma=st.floats(0, 0.99),
        double=st.booleans(),
        replay=st.sampled_from(["uniform", "prioritised", "rare-first"]),
        rare_first=st.floats(0.01, 2),
        warm_start=st.floats(0, 1),
        epsilon_end=st.floats(0, 1),
        replay_capacity=st.integers(100, 10_000_000),
    ),
    pose=st.builds(PoseSettings, rotation_deg=st.floats(0, 180)),
    starts=st.integers(1, 100),
)
@settings(max_examples=30, deadline=None)
def test_a_plan_is_taken_at_its_word(learner, pose, starts):
    """What is said in a section is what the agent is given: nothing lies between the two."""
    plan = parse_plan(
        {
            "name": "any",
            "seed": 1,
            "task": {"landmarks": ("A",)},
            "learner": learner.model_dump(),
            "pose": pose.model_dump(),
            "evaluation": {"starts": starts},
            "rounds": {"training": 3},
        }
    )
    assert (plan.learner, plan.pose) == (learner, pose)
    assert plan.evaluation == EvaluationSettings(starts=starts, poses=1, native=False)
    assert (plan.network, plan.ladder) == (NetworkSettings(), LadderSettings())


@given(updates=st.integers(1, 10_000_000), rounds=st.integers(1, 500))
@settings(max_examples=50, deadline=None)
def test_the_rounds_share_all_updates_out_evenly(updates, rounds):
    plan = {"name": "any", "seed": 1, "task": {"landmarks": ("A",)}}
    plan |= {"learner": {"updates": updates}, "rounds": {"training": rounds}}
    if updates < rounds:
        with pytest.raises(InputDataError, match=r"learner\.updates"):
            parse_plan(plan)
        return
    shares = [parse_plan(plan).updates_in(k) for k in range(1, rounds + 1)]
    assert sum(shares) == updates
    assert max(shares) - min(shares) <= 1
