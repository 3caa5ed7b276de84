from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputDataError
from common.plan import Agent
from common.settings import (
    EvaluationSettings,
    LadderSettings,
    LearnerSettings,
    NetworkSettings,
    PoseSettings,
    evaluation_settings,
    ladder_settings,
    learner_settings,
    network_settings,
    parse_settings,
    pose_settings,
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
    agent=st.builds(
        Agent,
        batch=st.integers(1, 4096),
        gamma=st.floats(0, 0.99),
        double=st.booleans(),
        rare_first=st.one_of(st.just(0.0), st.floats(0.01, 2)),
        warm_start=st.floats(0, 1),
        epsilon_end=st.floats(0, 1),
        replay_capacity=st.integers(100, 10_000_000),
        evaluation_starts=st.integers(1, 100),
        rotation_deg=st.floats(0, 180),
    )
)
@settings(max_examples=30, deadline=None)
def test_a_plan_is_taken_at_its_word(make_plan_of, agent):
    plan = make_plan_of(agent)
    learner = learner_settings(plan)
    for name in set(LearnerSettings.model_fields) & set(Agent.model_fields) - {"rare_first"}:
        asked = getattr(agent, name)
        wanted = asked * plan.rounds.training if name == "updates" else asked
        assert getattr(learner, name) == wanted, name
    assert learner.replay == ("rare-first" if agent.rare_first else "uniform")
    if agent.rare_first:
        assert learner.rare_first == agent.rare_first
    assert (learner.epsilon_start, learner.epsilon_over) == (1.0, 0.5)
    assert pose_settings(plan).rotation_deg == agent.rotation_deg
    assert ladder_settings(plan).steps_mm == agent.steps_mm
    assert evaluation_settings(plan).starts == agent.evaluation_starts
    assert network_settings(plan).width == plan.model.width


@pytest.fixture(scope="module")
def make_plan_of():
    from common.plan import parse_plan

    def make(agent):
        return parse_plan(
            {
                "name": "any",
                "seed": 1,
                "task": {"landmarks": ("A",)},
                "agent": agent.model_dump(),
                "rounds": {"training": 3},
            }
        )

    return make
