"""Mixed teams: some agents after one landmark and some after others, in one search."""

from __future__ import annotations

import json

import numpy as np
import pytest

from common.errors import InputDataError
from common.plan import parse_plan
from site_client.agent_app.config import parse_config
from site_client.agent_app.importing import _config
from site_client.imaging.landmarks import read_landmarks
from tests.federation.conftest import Federation
from tests.site_client.agent_app.conftest import SMALL, toml_of
from tests.site_client.agent_app.test_every_kind_federates import WITHIN_BOUNDS, hospitals
from tests.site_client.agent_app.test_one_vocabulary import small

__all__ = ["hospitals"]
TEAM = ["AC", "PC", "PC"]


def config_of(**task):
    sections = {name: SMALL[name] for name in ("ladder", "learner", "evaluation", "run")}
    whole = {"kind": "multi-agent-3d", "landmarks": ["AC", "PC"], "team": TEAM, "frames": 1}
    network = {"architecture": "volume-light", "width": 4, "hidden": [8]}
    task = whole | {"roi": 15} | task
    return sections | {"task": task, "network": network, "data": {"validation_share": 0.34}}


@pytest.mark.parametrize(
    "task",
    [
        {"team": ["AC"]},
        {"team": ["AC", "PC", "top"]},
        {"agents_per_landmark": 2},
        {"landmarks": []},
        {"kind": "landmark-3d-cube"},
        {"team": TEAM * 11},
    ],
    ids=str,
)
def test_a_team_that_is_none_is_refused(task):
    with pytest.raises(InputDataError):
        parse_config(config_of(**task))


def test_a_mixed_team_is_trained_measured_and_played(tmp_path, cairn, volumes):
    (tmp_path / "train.toml").write_text(toml_of(config_of()))
    images, run = volumes(), tmp_path / "run"
    cairn("train", "--config", tmp_path / "train.toml", "--data", images, "-o", run)
    figures = json.loads(cairn("evaluate", "--checkpoint", run, "--data", images, "--json").stdout)
    assert [row["landmark"] for row in figures["posed"]] == ["AC", "PC #1", "PC #2", "mean"]
    line = ("play", "--checkpoint", run, images / "head0.nii.gz", "-o", tmp_path / "found")
    found = json.loads(cairn(*line, "--json").stdout)["found"]
    # Two agents after a landmark are a poll, and give one answer.
    assert [entry["landmark"] for entry in found] == ["AC", "PC"]
    marks = read_landmarks(tmp_path / "found" / "head0.mrk.json")
    assert marks.keys() == {"AC", "PC"}


def test_a_federation_trains_a_mixed_team(hospitals):
    plan = small("multi-agent-3d", task={"roi": 17, "team": TEAM, "frames": 1}, **WITHIN_BOUNDS)
    assert plan.space.labels == ("AC", "PC #1", "PC #2")
    federation: Federation = hospitals("multi-agent-3d")
    store = federation.create_run(plan, min_sites=2)
    finished = federation.conduct(store, federation.transport())
    assert (finished.verdict, finished.reason) == ("COMPLETED", "")
    model = store.load(2).below("model")
    # One output layer answers for three agents of six actions each.
    assert model["heads.weight"].shape == (18, 8)
    assert all(np.isfinite(array).all() for array in model.values())


@pytest.mark.slow
def test_a_federation_trains_several_planes(hospitals):
    plan = small(
        "view-plane",
        task={"roi": 17, "more_planes": [["top", "PC", "AC"]]},
        plane={"reach_deg": 80.0, "more_normals": [[1.0, 0.1, 0.0]]},
        **WITHIN_BOUNDS,
    )
    assert plan.space.labels == ("plane 1", "plane 2")
    federation: Federation = hospitals("view-plane")
    store = federation.create_run(plan, min_sites=2)
    finished = federation.conduct(store, federation.transport())
    assert (finished.verdict, finished.reason) == ("COMPLETED", "")
    assert store.load(2).below("model")["heads.weight"].shape == (12, 8)


def test_a_plan_that_says_nothing_of_teams_keeps_its_fingerprint():
    sections = config_of()
    said = {"name": "mine", "seed": 1} | {n: sections[n] for n in ("ladder", "learner", "network")}
    task = {name: value for name, value in sections["task"].items() if name != "team"}
    plain, empty = (parse_plan(said | {"task": task | more}) for more in ({}, {"team": []}))
    assert plain.fingerprint == empty.fingerprint
    assert "team" not in json.loads(plain.model_dump_json())["task"]


@pytest.mark.parametrize(
    ("named", "landmarks", "team", "together"),
    [
        (["AC", "PC", "PC"], ("AC", "PC"), ("AC", "PC", "PC"), 1),
        (["AC", "PC", "top"], ("AC", "PC", "top"), (), 1),
        (["AC", "AC", "AC"], ("AC",), (), 3),
        (["AC"], ("AC",), (), 3),
    ],
)
def test_foreign_agents_may_be_a_mixed_team(named, landmarks, team, together):
    config = _config(3, 4, named, {"architecture": "commnet"})
    assert (config.task.landmarks, config.task.team) == (landmarks, team)
    assert config.task.agents_per_landmark == together
    assert config.space.agents == 3
