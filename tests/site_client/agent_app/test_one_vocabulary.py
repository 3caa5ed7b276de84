"""One vocabulary: what train prints is what a plan says, and the plan's sizes are the task's."""

from __future__ import annotations

import json
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputDataError
from common.model import initial_weights, weights_digest
from common.plan import parse_plan
from common.settings import KINDS, AgentSettings, sections_of
from site_client.agent.federated import evaluate_weights, planned_learner, require_planned
from site_client.agent_app.config import parse_config, render_config
from site_client.exposure.examine import RehearsedRound, examine
from site_client.exposure.findings import LEAST_CASES, UNREADABLE
from site_client.worker.site_cases import read_site_cases

# What is looked for in the made-up cases of each kind, and which cases those are.
LOOKED_FOR = {
    "landmark-3d": ("volumes", ["AC", "PC"]),
    "landmark-3d-cube": ("volumes", ["AC", "PC"]),
    "landmark-2d": ("pictures", ["spot", "corner"]),
    "multi-agent-3d": ("volumes", ["AC", "PC"]),
    "box-2d": ("lesions", ["1", "2"]),
    "box-3d": ("labelled", ["1"]),
    "turned-box-2d": ("lesions", ["1", "2"]),
    "view-plane": ("marked", ["AC", "PC", "top"]),
    "registration-2d": ("pictures", None),
    "registration-3d": ("volumes", None),
    "seed-2d": ("lesions", ["1", "2"]),
    "seed-3d": ("labelled", ["1"]),
    "glimpses-2d": ("lesions", ["1", "2"]),
    "tracking-2d": ("sequences", ["tip"]),
    "centreline-2d": ("vessels_2d", None),
    "centreline-3d": ("vessels_3d", None),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
# What costs seconds a kind is tried by default of one kind of each pair that share a task.
TWINS = ("turned-box-2d", "centreline-2d", "seed-3d")
each_once = pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.slow) if kind in TWINS else kind for kind in KINDS],
)
# What is tried of their networks and losses is what is tried of others'.
ALIKE = (*TWINS, "seed-2d", "glimpses-2d", "tracking-2d")
# The same, beside the method that the kind learns by.
each_method_once = pytest.mark.parametrize(
    ("kind", "method"),
    [
        *(
            pytest.param(kind, "dqn", marks=pytest.mark.slow) if kind in ALIKE else (kind, "dqn")
            for kind in KINDS
        ),
        ("landmark-3d", "displacement"),
    ],
)


def named(kind):
    """The key and names that a plan must have and a configuration may leave out."""
    _, names = LOOKED_FOR[kind]
    return {KINDS[kind].named: names} if names else {}


def printed(kind):
    """What ``train --print-config`` prints of the agent, as a plan holds it."""
    tables = tomllib.loads(render_config(parse_config({"task": {"kind": kind}})))
    agent = {name: table for name, table in tables.items() if name not in ("data", "run")}
    return agent | {"task": agent["task"] | named(kind), "name": "mine", "seed": 1}


def small(kind, **changes):
    """A plan that trains in a moment; sections may be changed."""
    sections = {
        "task": {"kind": kind, "roi": 15} | named(kind),
        "network": {"width": 4, "hidden": [8]},
        "learner": {
            "updates": 4,
            "batch": 4,
            "searches": 2,
            "warmup": 8,
            "replay_capacity": 200,
            "episode_steps": 4,
        },
        "evaluation": {"starts": 2, "most_steps": 6},
        "rounds": {"training": 2},
    }
    if kind == "multi-agent-3d":
        sections["network"]["architecture"] = "volume-light"
    if kind == "view-plane":
        sections["plane"] = {"reach_deg": 80.0}
    whole = {name: table | changes.pop(name, {}) for name, table in sections.items()}
    return parse_plan({"name": "mine", "seed": 1} | whole | changes)


@pytest.fixture
def read(request, tmp_path):
    """Read a kind's made-up cases as a worker does, with a data.toml for pictures."""

    def make(plan, **made_up):
        source, _ = LOOKED_FOR[plan.task.kind]
        folder, laid_out = request.getfixturevalue(source)(**made_up), tmp_path / "data.toml"
        if KINDS[plan.task.kind].dim == 2:
            laid_out.write_text("pixel_mm = 0.5\n")
        return read_site_cases(folder, plan, lambda *_: None, settings=laid_out)

    return make


def test_every_kind_is_looked_at():
    assert LOOKED_FOR.keys() == KINDS.keys()


@every_kind
def test_what_train_prints_is_a_plan_with_the_same_sections(kind):
    plan, config = parse_plan(printed(kind)), parse_config({"task": {"kind": kind}})
    if names := named(kind):
        tables = json.loads(config.model_dump_json())
        sections = sections_of(kind, tables)
        tables = {name: tables[name] for name in sections}
        config = parse_config(tables | {"task": tables["task"] | names})
    for name in AgentSettings.model_fields:
        assert getattr(plan, name) == getattr(config, name), name
    assert plan.space == config.space


@every_kind
def test_what_a_plan_leaves_out_is_what_train_would_do(kind):
    """But for how much a round measures, which every site does before every round."""
    plan = parse_plan({"name": "mine", "seed": 1, "task": {"kind": kind} | named(kind)})
    config = parse_config({"task": {"kind": kind}})
    for name in set(AgentSettings.model_fields) - {"task", "evaluation"}:
        assert getattr(plan, name) == getattr(config, name), name
    assert plan.task == config.task.model_copy(
        update={key: tuple(names) for key, names in named(kind).items()}
    )
    assert plan.evaluation == config.evaluation.model_copy(update={"poses": 1, "native": False})


@every_kind
def test_a_plan_of_any_kind_parses_back_from_its_canonical_bytes(kind):
    plan = parse_plan(printed(kind))
    again = parse_plan(json.loads(plan.canonical()))
    assert again == plan
    assert again.fingerprint == plan.fingerprint
    sections = set(json.loads(plan.canonical())) & set(AgentSettings.model_fields)
    assert sections == set(sections_of(kind, AgentSettings.model_fields))


@pytest.mark.parametrize("kind", [kind for kind, entry in KINDS.items() if entry.named])
def test_a_plan_that_names_nothing_to_look_for_is_refused(kind):
    with pytest.raises(InputDataError, match=rf"task\.{KINDS[kind].named} must be one or more"):
        parse_plan({"name": "mine", "seed": 1, "task": {"kind": kind}})


@every_kind
def test_an_unknown_key_in_a_plan_names_the_nearest(kind):
    for section in sections_of(kind, AgentSettings.model_fields):
        key = next(iter(AgentSettings.model_fields[section].annotation.model_fields))
        plan = printed(kind)
        plan[section] = plan[section] | {f"{key}z": 1}
        with pytest.raises(InputDataError) as refused:
            parse_plan(plan)
        assert (refused.value.field, refused.value.expected) == (
            f"{section}.{key}z",
            f"{section}.{key}",
        )


@given(key=st.from_regex(r"[a-z_]{1,20}", fullmatch=True))
@settings(max_examples=50, deadline=None)
def test_no_key_that_is_none_is_taken_for_a_default(key):
    known = AgentSettings.model_fields["learner"].annotation.model_fields
    plan = printed("landmark-3d")
    plan["learner"] = plan["learner"] | {key: 1}
    if key in known:
        return
    with pytest.raises(InputDataError, match=rf"learner\.{key}"):
        parse_plan(plan)


def test_a_team_of_one_agent_is_refused_before_any_site_could_fail_to_build_it():
    plan = {"name": "mine", "seed": 1, "task": {"kind": "multi-agent-3d", "landmarks": ["AC"]}}
    with pytest.raises(InputDataError, match=r"task\.agents_per_landmark .*landmark-3d-cube"):
        parse_plan(plan)
    plan["task"]["agents_per_landmark"] = 2
    assert parse_plan(plan).space.labels == ("AC #1", "AC #2")


def test_a_section_of_another_kind_is_refused():
    for section, kind in (("box", "landmark-3d"), ("ladder", "box-2d"), ("plane", "landmark-2d")):
        fields = {
            "box": {"overlap": 0.7},
            "ladder": {"scales": [1.0], "steps_mm": [1.0]},
            "plane": {"slab": 2.0},
        }
        with pytest.raises(InputDataError) as refused:
            parse_plan(printed(kind) | {section: fields[section]})
        assert refused.value.field == section
        assert f"left out for {kind}" in refused.value.expected


@every_kind
def test_the_sizes_that_a_plan_knows_are_those_of_the_task_that_images_make(kind, read):
    plan = small(kind)
    cases = read(plan)
    task, space = cases.task, plan.space
    sizes = (task.shape, task.actions, task.heads, task.levels, task.agents)
    assert sizes == (space.shape, space.actions, space.heads, space.levels, space.agents)
    assert cases.labels == space.labels
    assert task.unit == KINDS[kind].unit
    assert len(space.views_mm) == space.levels
    require_planned(task, plan)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("landmark-3d-cube", {"task": {"zooms": [1.0, 2.0], "frames": 3}}),
        ("landmark-3d-cube", {"task": {"world": "rl-medical", "frames": 4}}),
        ("landmark-2d", {"task": {"zooms": [1.0], "frames": 2}}),
        ("multi-agent-3d", {"task": {"agents_per_landmark": 3, "frames": 1}}),
        ("multi-agent-3d", {"task": {"agents_per_landmark": 2, "landmarks": ["PC"]}}),
        ("multi-agent-3d", {"task": {"team": ["AC", "PC", "PC"], "frames": 1}}),
        (
            "view-plane",
            {
                "task": {"more_planes": [["top", "PC", "AC"]]},
                "plane": {"more_normals": [[1.0, 0.2, 0.0]], "reach_deg": 80.0},
            },
        ),
        ("box-2d", {"box": {"steps": [0.3, 0.2, 0.1], "contexts": [1.0, 2.0, 3.0]}}),
        ("box-3d", {"box": {"steps": [0.1], "contexts": [2.0]}}),
        ("box-2d", {"task": {"landmarks": ["2"]}}),
        ("glimpses-2d", {"glimpse": {"scales": [8.0, 2.0], "reward": "approach"}}),
        ("tracking-2d", {"task": {"zooms": [1.0, 2.0, 4.0]}}),
        ("seed-2d", {"growing": {"steps_mm": [3.0], "strides_mm": [2.0], "contexts": [1.0]}}),
        ("seed-3d", {"growing": {"contexts": [1.0, 2.0, 4.0], "reward": "approach"}}),
        ("turned-box-2d", {"box": {"steps": [0.3], "contexts": [1.0, 2.0, 3.0]}}),
        ("centreline-2d", {"centreline": {"strides_mm": [1.0], "longest": 40}}),
        ("centreline-3d", {"centreline": {"strides_mm": [1.0, 2.0, 3.0]}}),
        (
            "view-plane",
            {
                "plane": {
                    "angles_deg": [5.0],
                    "offsets_mm": [3.0],
                    "strides_mm": [2.0],
                    "reach_deg": 80.0,
                }
            },
        ),
    ],
)
def test_so_they_are_with_other_views_levels_and_teams(kind, changes, read):
    plan = small(kind, **changes)
    cases = read(plan)
    require_planned(cases.task, plan)
    assert cases.labels == plan.space.labels


@every_kind
def test_every_kind_is_trained_and_measured_as_a_plan_says(kind, read):
    """One round of a site, twice: the same to the last bit, and something was learned."""
    plan = small(kind, learner={"replay": "rare-first"})
    cases = read(plan)
    digests = []
    for _ in range(2):
        learner = planned_learner(plan, cases.task, seed=3)
        learner.train(plan.updates_in(1))
        assert len(learner.new_experience().keys) > 0
        digests.append(weights_digest(learner.weights()))
    assert digests[0] == digests[1] != weights_digest(initial_weights(plan))
    report = evaluate_weights(learner.weights(), plan, cases.task, 1, cases.prior)
    assert set(report.posed) == set(plan.space.labels)
    assert report.prior is not None


def test_pictures_of_more_channels_than_planned_are_refused(read):
    plan = small("landmark-2d")
    task = read(plan).task
    coloured = small("landmark-2d", task={"channels": 3})
    with pytest.raises(InputDataError) as refused:
        require_planned(task, coloured)
    assert refused.value.field == "task.channels"
    assert "views of 9 x 15 x 15" in refused.value.expected


@each_method_once
def test_the_attacks_of_every_kind_are_tried_or_said_not_to_be(kind, method, read):
    plan, watched = small(kind), []
    if method != "dqn":
        plan = small(kind, learner={"method": method})
    cases, before = read(plan, count=LEAST_CASES), initial_weights(plan)
    learner = planned_learner(plan, cases.task, 3, watch=watched.append)
    learner.train(plan.updates_in(1))
    delta = {name: value - before[name] for name, value in learner.weights().items()}
    exposure = examine(RehearsedRound(plan, before, delta, cases, watched, 3))
    found = exposure.as_dict()["membership"]
    # Every sequence has frames of its own.
    half = len(cases) // 2
    assert half >= LEAST_CASES // 2
    assert (found["trained"], found["others"]) == (half, half)
    assert 0 <= found["low"] <= found["auc"] <= found["high"] <= 1
    readable = plan.network.architecture == "triplanar"
    assert len(exposure.readings) == (2 if readable else 0)
    assert exposure.untried == ("" if readable else UNREADABLE)
    assert (exposure.lines()[0][1] == "not tried") is not readable
