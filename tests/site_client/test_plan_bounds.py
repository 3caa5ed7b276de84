"""The table of bounds that people read is the policy that really refuses."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import RefusedError
from common.plan import parse_plan
from common.policy import Policy, check_plan
from common.words.bounds import RULES, USUAL, held_against
from site_client.commands.plans import _flat
from site_client.egress.policy import default_policy_text
from site_client.worker.study import weights_bytes

NOT_ABOUT_A_PLAN = {
    "keys.share",
    "keys.peers",
    "peers.least_known",
    "peers.least_in_sum",
    "plans.approval",
    "plans.start_models",
    "receipts.due_within",
    "retention.payload_days",
    "witnesses.contradicted",
    "witnesses.unwitnessed",
    *(f"held_out.{name}" for name in ("share", "subjects", "subject")),
    *(f"budget.{name}" for name in ("days", "runs", "rounds", "evaluations", "bytes")),
}
"""Lines about people, witnesses, known models, and all runs together."""

TRAINING = {"name": "p", "seed": 1, "task": {"landmarks": ["A", "B"]}}
PIXELS = {"name": "p", "kind": "pixels", "seed": 1, "pixels": {"bands": ["a", "b", "c"]}}
PIXELS["pixels"] |= {"components": 3, "columns": 1000}
EMBED = {
    "name": "p",
    "kind": "embed",
    "seed": 1,
    "embed": {"codec": "0" * 64, "codebook": "1" * 64, "groups": ["g"]},
}
FREE = {"plans.kinds": ["training", "no-op", "pixels", "embed"]}


def policy(**changes) -> Policy:
    """The default, with lines changed by dotted name (``__`` for the dot)."""
    values = tomllib.loads(default_policy_text())
    for name, value in changes.items():
        section, _, field = name.replace("__", ".").partition(".")
        values.setdefault(section, {})[field] = value
    return Policy.model_validate(values)


def test_the_usual_bounds_are_those_that_join_writes():
    written = _flat(policy())
    for name, value in USUAL.items():
        said = written[name]
        assert (tuple(said) if isinstance(said, list) else said) == value, name


def test_every_line_of_a_policy_is_in_the_table_or_about_no_plan():
    lines = set(_flat(policy()))
    rules = {rule.policy for rule in RULES}
    assert rules == set(USUAL)
    assert lines - NOT_ABOUT_A_PLAN == rules, "add a rule to common/words/bounds.py"


def refused(plan, bounds) -> str | None:
    try:
        check_plan(bounds, plan, weights_bytes=weights_bytes(plan))
    except RefusedError as error:
        return error.field
    return None


ALLOWED = {
    "plans__kinds": ["training", "no-op", "pixels", "embed"],
    "records__allowed": [
        *("ModelUpdate", "SketchTable", "RoundReport", "PixelStatistics"),
        *("PixelSketches", "HeavyHitters", "GroupCounts"),
    ],
}


@pytest.mark.parametrize("base", [TRAINING, PIXELS, EMBED], ids=["training", "pixels", "embed"])
def test_a_plan_within_every_line_is_not_refused(base):
    plan, bounds = parse_plan(base), policy(**ALLOWED)
    assert refused(plan, bounds) is None
    assert all(each.holds for each in held_against(plan, _flat(bounds)))


@pytest.mark.parametrize(
    ("base", "changes", "asked", "line"),
    [
        (TRAINING, {"plans__kinds": ["no-op"]}, {}, "plans.kinds"),
        (TRAINING, {"plans__landmarks": ["A"]}, {}, "plans.landmarks"),
        (TRAINING, {"plans__tasks": []}, {}, "plans.tasks"),
        (TRAINING, {"plans__fingerprints": ["0" * 64]}, {}, "plans.fingerprints"),
        (TRAINING, {}, {"limits": {"privacy_tier": 0}}, "privacy.least_tier"),
        (TRAINING, {"bytes__per_round": 1000}, {}, "bytes.per_round"),
        (
            TRAINING,
            {"bytes__per_round": 900_000, "bytes__per_run": 1_000_000},
            {},
            "bytes.per_run",
        ),
        (PIXELS, {"pixels__key_pixels": 51}, {}, "pixels.key_pixels"),
        (PIXELS, {"pixels__key_sites": 3}, {}, "pixels.key_sites"),
        (EMBED, {"pixels__group_pixels": 101}, {}, "pixels.group_pixels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_table_calls_beyond_is_refused(base, changes, asked, line):
    plan, bounds = parse_plan(base | asked), policy(**(ALLOWED | changes))
    broken = [each.policy for each in held_against(plan, _flat(bounds)) if not each.holds]
    assert line in broken
    assert refused(plan, bounds) is not None


FIELDS = {
    "learner": {
        "batch": [1, 15, 16, 64, 1024, 1025],
        "updates": [6, 59, 60, 30_000, 30_001],
        "warmup": [50, 99, 100, 1000],
        "replay_capacity": [100, 999, 1000],
        "searches": [1, 3, 4, 256, 257],
        "episode_steps": [2, 4, 5, 200, 201],
        "learning_rate": [1e-7, 1e-3, 1e-2, 0.02],
        "gradient_clip": [1e-4, 1.0, 100.0, 101.0],
        "rare_first": [0.01, 0.5, 0.6],
        "priority_alpha": [0.1, 0.7, 0.8],
    },
    "pose": {"scale_fraction": [0.1, 0.5, 0.6], "shift_mm": [0.0, 100.0, 101.0]},
    "evaluation": {
        "starts": [1, 20, 21],
        "poses": [1, 10, 11],
        "most_steps": [5, 400, 401],
    },
    "network": {"width": [4, 32, 33], "hidden": [[8, 512], [7, 8], [513]]},
    "task": {"spacing_mm": [0.4, 0.5, 1.0, 4.0, 4.1], "roi": [9, 45, 65, 67]},
    "experience": {
        "rows": [1, 32, 33],
        "columns": [16, 200_000, 200_001],
        "position_bins": [2, 33],
    },
    "rounds": {
        "training": [1, 2, 6],
        "quorum": [1, 2],
        "deadline_s": [0.5, 60.0],
        "server_momentum": [0.0, 0.9, 0.95],
    },
    "limits": {
        "privacy_tier": [0, 1],
        "update_l2": [1.0, 100.0, 101.0],
        "min_transitions": [1, 1_000_001],
        "max_cells_per_input": [0.001, 100.0, 101.0],
    },
}


@st.composite
def training_plans(draw):
    """Plans whose fields lie within the usual bounds, at their edges, or just beyond."""
    plan = {"name": "p", "seed": 1, "task": {"landmarks": ["A", "B"]}}
    for section, fields in FIELDS.items():
        for name in draw(st.sets(st.sampled_from(sorted(fields)), max_size=1)):
            plan.setdefault(section, {})[name] = draw(st.sampled_from(fields[name]))
    return parse_plan(plan)


@given(training_plans())
def test_the_table_calls_a_plan_within_exactly_when_the_policy_lets_it_pass(plan):
    bounds = policy()
    within = all(each.holds for each in held_against(plan, _flat(bounds)))
    assert within == (refused(plan, bounds) is None)
    assert within == all(each.holds for each in held_against(plan)), "and so says the coordinator"


def test_of_a_floor_the_stricter_is_said_to_hold():
    plan = parse_plan(TRAINING | {"limits": {"min_images": 9}})
    rows = {each.policy: each for each in held_against(plan)}
    assert rows["floors.images"].bound == "the stricter holds: 9"
    assert rows["floors.transitions"].bound == "the stricter holds: 100"


def test_a_section_that_the_policy_lacks_allows_nothing():
    values = {name: value for name, value in USUAL.items() if not name.startswith("pixels.")}
    rows = {each.policy: each for each in held_against(parse_plan(PIXELS), values)}
    assert not rows["pixels.key_pixels"].holds
    assert rows["pixels.key_pixels"].bound == "not in the policy"
