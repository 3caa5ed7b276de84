"""Every field of a plan and of an order is bounded, or harmless for a reason; none is forgotten."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from operator import attrgetter
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from common.errors import InputDataError, RefusedError
from common.plan import FederationPlan, parse_plan
from common.policy import (
    BOUNDED,
    HARMLESS,
    ORDER_FIELDS,
    TOGETHER,
    Bounds,
    Budget,
    Policy,
    check_plan,
)
from common.wire.orders import OrderHeader
from site_client.egress.policy import default_policy_text

TRAINING = {"name": "p", "seed": 1, "task": {"landmarks": ["AC", "PC"]}}
PLANE = TRAINING | {"task": {"kind": "view-plane", "plane_landmarks": ["A", "B", "C"]}}
SEED = TRAINING | {"task": {"kind": "seed-2d", "landmarks": ["1"]}}
TRACE = TRAINING | {"task": {"kind": "centreline-3d"}}
MOTION = TRAINING | {"task": {"kind": "registration-3d"}}
PIXELS = {"name": "p", "seed": 1, "kind": "pixels", "pixels": {"bands": list("abcdefghij")}}
EMBED = {
    "name": "p",
    "seed": 1,
    "kind": "embed",
    "embed": {"codec": "0" * 64, "codebook": "1" * 64, "groups": ["tissue"]},
}
BEYOND: dict[str, list[tuple[dict, dict]]] = {
    "kind": [(PIXELS, {"kind": "pixels"})],
    "task.kind": [],  # the default policy has all of them; one without is asked below
    "task.landmarks": [(TRAINING, {"task.landmarks": [f"L{n}" for n in range(33)]})],
    "task.spacing_mm": [
        (TRAINING, {"task.spacing_mm": 0.4, "ladder.scales": [2.0, 2.0, 2.0]}),
        (TRAINING, {"task.spacing_mm": 50.0}),
    ],
    "task.roi": [(TRAINING, {"task.roi": 129, "ladder.scales": [1.0, 1.0, 1.0]})],
    "network.width": [(TRAINING, {"network.width": 64})],
    "ladder.scales": [
        (TRAINING, {"ladder.scales": [3.0, 2.0, 1e-9]}),
        (TRAINING, {"ladder.scales": [1e6, 2.0, 1.0]}),
    ],
    "ladder.steps_mm": [
        (TRAINING, {"ladder.steps_mm": [9.0, 3.0, 1e-9]}),
        (TRAINING, {"ladder.steps_mm": [9e9, 3.0, 1.0]}),
    ],
    "learner.searches": [
        (TRAINING, {"learner.searches": 1}),
        (TRAINING, {"learner.searches": 1024}),
    ],
    "learner.episode_steps": [
        (TRAINING, {"learner.episode_steps": 2}),
        (TRAINING, {"learner.episode_steps": 1000, "learner.warmup": 1_000_000}),
    ],
    "learner.updates": [
        (TRAINING, {"learner.updates": 6}),
        (TRAINING, {"learner.updates": 59}),
        (TRAINING, {"learner.updates": 1_000_000}),
    ],
    "task.more_planes": [],  # likewise
    "task.plane_landmarks": [],  # any names, unless a policy names its own; asked below
    "network.hidden": [
        (TRAINING, {"network.hidden": [4096, 128]}),
        (TRAINING, {"network.hidden": [256, 1]}),
    ],
    "plane.offsets_mm": [
        (PLANE, {"plane.offsets_mm": [6.0, 2.0, 1e-9]}),
        (PLANE, {"plane.offsets_mm": [9e9, 2.0, 1.0]}),
    ],
    "plane.angles_deg": [(PLANE, {"plane.angles_deg": [8.0, 3.0, 1e-9]})],
    "plane.reach_mm": [(PLANE, {"plane.reach_mm": 9e9})],
    "registration.translations_mm": [(MOTION, {"registration.translations_mm": [8.0, 3.0, 1e-9]})],
    "registration.rotations_deg": [(MOTION, {"registration.rotations_deg": [8.0, 3.0, 1e-9]})],
    "registration.reach_mm": [(MOTION, {"registration.reach_mm": 9e9})],
    "growing.steps_mm": [
        (SEED, {"growing.steps_mm": [8.0, 3.0, 1e-9]}),
        (SEED, {"growing.steps_mm": [9e9, 3.0, 1.0]}),
    ],
    "centreline.step_mm": [
        (TRACE, {"centreline.step_mm": 1e-9}),
        (TRACE, {"centreline.step_mm": 9e9}),
    ],
    "centreline.turn_deg": [(TRACE, {"centreline.turn_deg": 90.0})],
    "learner.priority_alpha": [
        (TRAINING, {"learner.replay": "prioritised", "learner.priority_alpha": 2.0})
    ],
    "evaluation.poses": [(TRAINING, {"evaluation.poses": 1000})],
    "evaluation.most_steps": [(TRAINING, {"evaluation.most_steps": 10_000})],
    "learner.batch": [(TRAINING, {"learner.batch": 1}), (TRAINING, {"learner.batch": 4096})],
    "learner.learning_rate": [
        (TRAINING, {"learner.learning_rate": 1e3}),
        (TRAINING, {"learner.learning_rate": 1e-9}),
    ],
    "learner.warmup": [
        (TRAINING, {"learner.warmup": 1}),
        (TRAINING, {"learner.warmup": 10_000_000}),
    ],
    "learner.replay_capacity": [
        (TRAINING, {"learner.replay_capacity": 100}),
        (TRAINING, {"learner.replay_capacity": 10_000_000}),
    ],
    "learner.rare_first": [(TRAINING, {"learner.rare_first": 2.0})],
    "learner.gradient_clip": [
        (TRAINING, {"learner.gradient_clip": 1e-12}),
        (TRAINING, {"learner.gradient_clip": 1e9}),
    ],
    "pose.scale_fraction": [(TRAINING, {"pose.scale_fraction": 0.999})],
    "pose.shift_mm": [(TRAINING, {"pose.shift_mm": 500.0})],
    "evaluation.starts": [(TRAINING, {"evaluation.starts": 100})],
    "experience.rows": [(TRAINING, {"experience.rows": 64})],
    "experience.columns": [(TRAINING, {"experience.columns": 2_000_000})],
    "experience.position_bins": [(TRAINING, {"experience.position_bins": 64})],
    "pixels.rows": [(PIXELS, {"pixels.rows": 64})],
    "pixels.columns": [(PIXELS, {"pixels.columns": 2_000_000})],
    "pixels.top": [(PIXELS, {"pixels.top": 2**20})],
    "pixels.key_pixels": [(PIXELS, {"pixels.key_pixels": 2})],
    "pixels.key_sites": [],  # a plan of one site is none; a stricter policy is asked below
    "embed.group_pixels": [(EMBED, {"embed.group_pixels": 1})],
    "rounds.training": [(TRAINING, {"rounds.training": 501, "learner.updates": 20_000})],
    "rounds.quorum": [
        (TRAINING, {"rounds.quorum": 1}),
        (PIXELS, {"rounds.quorum": 1}),
        (EMBED, {"rounds.quorum": 1}),
    ],
    "rounds.deadline_s": [(TRAINING, {"rounds.deadline_s": 0.5})],
    "rounds.server_momentum": [(TRAINING, {"rounds.server_momentum": 0.999})],
    "limits.privacy_tier": [(TRAINING, {"limits.privacy_tier": 0})],
    "limits.update_l2": [(TRAINING, {"limits.update_l2": 1e12})],
    "limits.min_transitions": [(TRAINING, {"limits.min_transitions": 10**12})],
    "limits.max_cells_per_input": [
        (TRAINING, {"limits.max_cells_per_input": 1e12}),
        (TRAINING, {"limits.max_cells_per_input": 1e-9}),
    ],
}
"""Of every bounded field, plans that go beyond the default policy in it and in nothing else."""

BEYOND_TOGETHER = {
    "bounds.episodes": [
        {"learner.episode_steps": 200, "learner.searches": 8},
        {"learner.warmup": 100, "learner.searches": 4},
        {"learner.replay_capacity": 1000, "learner.searches": 4, "learner.episode_steps": 100},
    ],
    "bounds.view_mm": [
        {"task.roi": 9, "ladder.scales": [3.0, 2.0, 0.5]},
        {"task.spacing_mm": 4.0},
    ],
}


def default_policy() -> Policy:
    """As ``cairn-site join`` writes it, with plans about slides allowed, too."""
    values = tomllib.loads(default_policy_text())
    values["plans"]["kinds"] += ["pixels", "embed"]
    return Policy.model_validate(values)


def changed(base: dict, changes: dict) -> FederationPlan:
    values = {name: dict(v) if isinstance(v, dict) else v for name, v in base.items()}
    for path, value in changes.items():
        section, _, name = path.partition(".")
        if name:
            values.setdefault(section, {})[name] = value
        else:
            values[section] = value
    return parse_plan(values)


def refused(policy: Policy, plan: FederationPlan) -> RefusedError:
    with pytest.raises(RefusedError, match="policy does not allow this plan") as caught:
        check_plan(policy, plan)
    return caught.value


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of the fields that hold no further model; those of a list's entries, too."""
    for name, field in model.model_fields.items():
        inner = [*_models(field.annotation)]
        if not inner:
            yield prefix + name
        for one in inner:
            yield from leaves(one, f"{prefix}{name}.")


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def test_every_field_of_a_plan_is_either_bounded_or_harmless():
    fields = list(leaves(FederationPlan))
    assert len(set(fields)) == len(fields) > 100
    assert sorted([*BOUNDED, *HARMLESS]) == sorted(fields), "each of them in one table, once"
    assert all(len(reason) > 10 for reason in HARMLESS.values())
    assert {field for field, _ in TOGETHER} <= set(BOUNDED)


def test_every_field_of_an_order_is_verified_somewhere():
    assert sorted(ORDER_FIELDS) == sorted(leaves(OrderHeader))
    assert all(len(where) > 10 for where in ORDER_FIELDS.values())


def test_a_field_that_somebody_adds_is_noticed():
    class Grown(FederationPlan):
        telemetry: str = ""

    assert set(leaves(Grown)) - {*BOUNDED, *HARMLESS} == {"telemetry"}


@pytest.mark.parametrize(
    "base",
    [TRAINING, PLANE, MOTION, PIXELS, EMBED],
    ids=["training", "plane", "motion", "pixels", "embed"],
)
def test_the_default_plan_of_every_kind_fits(base):
    check_plan(default_policy(), parse_plan(base))


@pytest.mark.parametrize("field", BOUNDED)
def test_a_plan_beyond_the_default_bound_is_refused_by_name(field):
    policy = default_policy()
    if field == "kind":
        policy = Policy.model_validate(tomllib.loads(default_policy_text()))
    plans = [changed(base, change) for base, change in BEYOND[field]]
    if field == "task.kind":
        policy = policy.model_copy(update={"plans": policy.plans.model_copy(update={"tasks": ()})})
        plans = [parse_plan(TRAINING)]
    if field == "task.plane_landmarks":
        named = policy.plans.model_copy(update={"landmarks": ("A", "B")})
        policy = policy.model_copy(update={"plans": named})
        plans = [parse_plan(PLANE)]
    if field == "task.more_planes":
        named = policy.plans.model_copy(update={"landmarks": ("A", "B", "C")})
        policy = policy.model_copy(update={"plans": named})
        more = {"task.more_planes": [["A", "B", "D"]], "plane.more_normals": [[0.0, 0.0, 1.0]]}
        plans = [changed(PLANE, more)]
    if field == "pixels.key_sites":
        pixels = policy.pixels.model_copy(update={"key_sites": 3})
        policy = policy.model_copy(update={"pixels": pixels})
        plans = [parse_plan(PIXELS)]
    assert plans, "an entry without a plan that it refuses bounds nothing"
    for plan in plans:
        error = refused(policy, plan)
        assert error.field == field
        assert BOUNDED[field].by in error.expected, "and the site's owner learns where it is set"


@pytest.mark.parametrize(
    ("rule", "changes"),
    [(rule, change) for rule, changes in BEYOND_TOGETHER.items() for change in changes],
)
def test_fields_that_only_together_make_a_gradient_speak_of_little_are_refused(rule, changes):
    error = refused(default_policy(), changed(TRAINING, changes))
    named = {rule.by: field for field, rule in TOGETHER}
    assert (error.field, rule in error.expected) == (named[rule], True)
    assert set(BEYOND_TOGETHER) == set(named)


def test_the_plan_of_the_published_attack_breaks_many_bounds_and_is_refused():
    """Slices out of one transition: what the site computed before there were bounds."""
    attack = {
        "name": "harmless-study",
        "seed": 1,
        "task": {"landmarks": ["AC", "PC"], "spacing_mm": 2.0, "roi": 129},
        "ladder": {"scales": [1.0], "steps_mm": [2.0]},
        "network": {"width": 64},
        "learner": {
            "searches": 4,
            "episode_steps": 2,
            "updates": 1,
            "batch": 1,
            "warm_start": 1.0,
            "warmup": 120,
            "gradient_clip": 1e9,
        },
        "rounds": {"training": 1, "quorum": 1},
        "limits": {"update_l2": 1e12},
    }
    plan, policy = parse_plan(attack), default_policy()
    broken = [
        field
        for field, rule in BOUNDED.items()
        if "training" in rule.kinds and not rule.judge(policy, plan).holds
    ]
    assert broken == [
        "task.roi",
        "network.width",
        "learner.episode_steps",
        "learner.updates",
        "learner.batch",
        "learner.gradient_clip",
        "rounds.quorum",
        "limits.update_l2",
    ]
    assert refused(policy, plan).field == broken[0]


def test_what_trains_nothing_may_be_small_and_may_not_be_large():
    small = {
        "updates": 0,
        "batch": 1,
        "warmup": 1,
        "searches": 1,
    }
    ladder = {"scales": [1e-6], "steps_mm": [1.0]}
    no_op = TRAINING | {"kind": "no-op", "learner": small, "ladder": ladder}
    check_plan(default_policy(), parse_plan(no_op))
    large = changed(no_op, {"limits.min_transitions": 10**12})
    assert refused(default_policy(), large).field == "limits.min_transitions"


RANGES = {
    field: rule.by.removeprefix("bounds.")
    for field, rule in BOUNDED.items()
    if rule.by.startswith("bounds.")
}


@given(st.sampled_from(sorted(RANGES)), st.booleans(), st.data())
def test_a_bound_allows_both_its_ends_and_nothing_beyond(field, beyond, data):
    """By the rule itself, for a plan at the end of one bound may break another one."""
    rule, name = BOUNDED[field], RANGES[field]
    section = field.partition(".")[0]
    special = {"pixels": PIXELS, "plane": PLANE, "registration": MOTION}
    special |= {"centreline": TRACE, "growing": SEED}
    base = special.get(section, TRAINING)
    planned = parse_plan(base)
    found = attrgetter(field)(planned)
    if field == "learner.updates":  # of all rounds; bounded is a round's share
        found = tuple({planned.updates_in(n) for n in (1, planned.rounds.training)})
    value = found[0] if isinstance(found, tuple) else found
    if beyond:
        span = data.draw(st.floats(1e-3, 1e3))
        side = data.draw(st.sampled_from([-1, 1]))
        ends = (value + span, value + span) if side > 0 else (0, max(0, value - span))
        ends = tuple(map(int if isinstance(value, int) else float, ends))
        if ends[0] <= value <= ends[1]:
            return
    else:
        ends = data.draw(st.sampled_from([(value, value), (0, value), (value, 2 * value + 1)]))
    if isinstance(found, tuple) and not beyond:
        ends = (min(found), max(found))
    policy = default_policy()
    policy = policy.model_copy(
        update={"bounds": policy.bounds.model_copy(update={name: tuple(ends)})}
    )
    assert rule.judge(policy, parse_plan(base)).holds is not beyond


def test_a_policy_that_does_not_speak_of_bounds_has_the_safe_ones():
    values = tomllib.loads(default_policy_text())
    assert set(values["bounds"]) == set(Bounds.model_fields), "the file says every one of them"
    assert set(values["budget"]) == set(Budget.model_fields)
    whole = Policy.model_validate(values)
    bare = Policy.model_validate(
        {name: v for name, v in values.items() if name not in ("bounds", "budget", "peers")}
    )
    assert bare == whole
    assert bare.sha256 == whole.sha256


@pytest.mark.parametrize(
    "bounds",
    [
        {"batch": [64, 16]},
        {"batch": [16.0, 64]},
        {"batch": [16]},
        {"batch": 16},
        {"learning_rate": [0.0, float("inf")]},
        {"learning_rate": [float("nan"), 1.0]},
        {"batches": [16, 64]},
        {"episodes": 0},
    ],
)
def test_bounds_that_cannot_be_meant_are_refused(bounds):
    values = tomllib.loads(default_policy_text())
    with pytest.raises(ValidationError):
        Policy.model_validate(values | {"bounds": bounds})


def test_a_start_model_is_named_by_its_digest():
    values = tomllib.loads(default_policy_text())
    values["plans"]["start_models"] = ["a" * 64]
    assert Policy.model_validate(values).plans.start_models == ("a" * 64,)
    values["plans"]["start_models"] = ["model.npz"]
    with pytest.raises(ValidationError):
        Policy.model_validate(values)


def test_a_plan_that_is_none_is_refused_before_any_bound():
    with pytest.raises(InputDataError):
        changed(TRAINING, {"learner.batch": 0})
