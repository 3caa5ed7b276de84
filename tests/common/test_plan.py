"""A plan is frozen, complete and known by its fingerprint; anything odd in it is an error."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InputDataError
from common.plan import FederationPlan, parse_plan, read_plan

LEAST = {"name": "p", "seed": 1, "task": {"landmarks": ["AC", "PC"]}}
PLANS = Path(__file__).resolve().parents[2] / "deploy" / "plans"


def test_the_fingerprint_does_not_depend_on_how_the_plan_is_spelt(tmp_path):
    first, second = tmp_path / "a.toml", tmp_path / "b.toml"
    first.write_text('name="p"\nseed=1\n[task]\nlandmarks=["AC","PC"]\n')
    second.write_text('# the same\nseed = 0x1\nname = "p"\ntask = {landmarks = ["AC", "PC"]}\n')
    assert read_plan(first).fingerprint == read_plan(second).fingerprint


@given(st.integers(0, 2**53 - 1), st.integers(0, 2**53 - 1))
def test_plans_that_differ_have_other_fingerprints(a, b):
    one, other = parse_plan(LEAST | {"seed": a}), parse_plan(LEAST | {"seed": b})
    assert (one.fingerprint == other.fingerprint) == (a == b)


def test_defaults_are_part_of_the_fingerprinted_bytes():
    assert b'"learning_rate"' in parse_plan(LEAST).canonical()


@pytest.mark.parametrize("rounds", [{}, {"training": 30, "server_momentum": 0.8}])
def test_canonical_bytes_parse_back_to_the_same_plan(rounds):
    import json

    plan = parse_plan(LEAST | {"rounds": rounds})
    assert parse_plan(json.loads(plan.canonical())) == plan


def test_a_plan_without_momentum_has_the_fingerprint_that_it_always_had():
    plain, none, some = (
        parse_plan(LEAST | {"rounds": rounds})
        for rounds in ({}, {"server_momentum": 0.0}, {"server_momentum": 0.5})
    )
    assert b"server_momentum" not in plain.canonical()
    assert plain.fingerprint == none.fingerprint != some.fingerprint


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"quorom": 2}, "quorom"),
        ({"task": {"landmarks": ["AC"], "spacing": 1}}, "task.spacing"),
        ({"task": {"landmarks": []}}, "task.landmarks"),
        ({"task": {"landmarks": ["AC", "AC"]}}, "task"),
        ({"task": {"landmarks": ["../../etc"]}}, "task.landmarks.0"),
        ({"seed": -1}, "seed"),
        ({"seed": "1"}, "seed"),
        ({"seed": True}, "seed"),
        ({"name": "Über"}, "name"),
        ({"rounds": {"training": 0}}, "rounds.training"),
        ({"rounds": {"server_momentum": 1.0}}, "rounds.server_momentum"),
        ({"rounds": {"server_momentum": -0.1}}, "rounds.server_momentum"),
        ({"rounds": {"deadline_s": float("inf")}}, "rounds.deadline_s"),
        ({"limits": {"update_l2": float("nan")}}, "limits.update_l2"),
        ({"limits": {"privacy_tier": 3}}, "limits.privacy_tier"),
        ({"ladder": {"scales": [1.0]}}, "ladder"),
        ({"learner": {"gamma": 1.0}}, "learner.gamma"),
        ({"agent": {"gamma": 0.9}}, "agent"),
        ({"learner": {"gama": 0.9}}, "learner.gama"),
        ({"network": {"architecture": "planar"}}, "network.architecture"),
        ({"learner": {"updates": 5}}, "learner.updates"),
        ({"plane": {"slab": 2.0}}, "plane"),
        ({"kind": "other"}, "kind"),
        ({"version": 1}, "version"),
    ],
)
def test_a_wrong_field_is_refused_by_name(change, field):
    with pytest.raises(InputDataError) as caught:
        parse_plan(LEAST | change)
    assert caught.value.field == field
    assert caught.value.exit_code == 6


def test_a_plan_cannot_be_changed():
    plan = parse_plan(LEAST)
    with pytest.raises(ValueError, match="frozen"):
        plan.seed = 2


@pytest.mark.parametrize("text", ["not toml [", "", '"just text"'])
def test_a_file_that_is_no_plan_is_bad_input(tmp_path, text):
    path = tmp_path / "plan.toml"
    path.write_text(text)
    with pytest.raises(InputDataError):
        read_plan(path)
    with pytest.raises(InputDataError, match="cannot read"):
        read_plan(tmp_path / "absent.toml")


@pytest.mark.parametrize("path", sorted(PLANS.glob("*.toml")), ids=lambda p: p.name)
def test_every_plan_we_ship_is_valid(path):
    assert isinstance(read_plan(path), FederationPlan)
