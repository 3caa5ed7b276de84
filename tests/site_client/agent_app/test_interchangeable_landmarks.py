"""Couples of landmarks by configuration: trained, measured, played, refused where none."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from common.errors import InputDataError
from common.settings import EvaluationSettings
from site_client.agent.evaluation import evaluate
from site_client.agent_app.config import parse_config, render_config
from site_client.imaging.case_sets import Cases
from site_client.imaging.dataset import Case
from site_client.imaging.landmarks import read_landmarks, write_landmarks
from site_client.imaging.volumes import Volume
from site_client.kinds.kind import kind_of
from site_client.kinds.landmark_findings import found_landmarks

ENDS = [["one end", "other end"]]
SMALL = (
    *("--task", "landmark-2d", "--set", "data.pixel_mm=0.5", "--set", "network.width=4"),
    *("--set", "network.hidden=[8]", "--set", "learner.updates=6", "--set", "learner.batch=4"),
    *("--set", "learner.searches=2", "--set", "learner.warmup=8", "--set", "task.roi=11"),
    *("--set", "learner.replay_capacity=200", "--set", "data.validation_share=0.34"),
    *("--set", "evaluation.most_steps=6", "--set", "evaluation.starts=2"),
    *("--set", "evaluation.poses=1", "--set", "run.validation_poses=1"),
    *("--set", f"task.interchangeable={json.dumps(ENDS)}"),
)


@pytest.fixture
def rods(tmp_path):
    """Three pictures of a bright rod; whoever marked them began at either end."""
    place = tmp_path / "rods"
    place.mkdir()
    for k, angle in enumerate((0.3, 1.7, 2.9)):
        y, x = np.mgrid[:80, :100] * 0.5
        along = np.array([np.cos(angle), np.sin(angle)])
        middle = np.array([24.0, 20.0])
        offset = np.stack([x, y], axis=-1) - middle
        inside = (np.abs(offset @ along) < 12) & (np.abs(offset @ [-along[1], along[0]]) < 3)
        sitk.WriteImage(
            sitk.GetImageFromArray(np.where(inside, 200, 30).astype(np.uint8)),
            str(place / f"case{k}.png"),
        )
        marks = {"one end": middle + 12 * along, "other end": middle - 12 * along}
        world = {name: np.array([*at, 0.0]) for name, at in marks.items()}
        write_landmarks(place / f"case{k}.mrk.json", world, "RAS")
    return place


def test_couples_are_trained_measured_and_played(tmp_path, cairn, rods):
    run, result, out = tmp_path / "run", tmp_path / "result", tmp_path / "out"
    cairn("train", *SMALL, "--data", rods, "-o", run)
    assert 'interchangeable = [["one end", "other end"]]' in (run / "config.toml").read_text()
    cairn("evaluate", "--checkpoint", run, "--data", rods, "-o", result)
    rows = (result / "predictions" / "predictions.csv").read_text().splitlines()[3:]
    found = {
        case: read_landmarks(result / "predictions" / f"{case}.mrk.json")
        for case in ("case0", "case1", "case2")
    }
    assert len(rows) == 6
    for row in rows:
        case, name, *_, error = row.split(",")
        truth = read_landmarks(rods / f"{case}.mrk.json")
        both = [np.stack([marks[n] for n in ENDS[0]]) for marks in (found[case], truth)]
        straight, crossed = (
            np.linalg.norm(both[0] - order, axis=1) for order in (both[1], both[1][::-1])
        )
        wanted = straight if straight.sum() <= crossed.sum() else crossed
        assert float(error) == pytest.approx(wanted[ENDS[0].index(name)], abs=0.01)
    told = cairn("play", "--checkpoint", run, rods / "case0.png", "-o", out, "--gif", "--json")
    assert [e["landmark"] for e in json.loads(told.stdout)["found"]] == ENDS[0]
    assert len(list(out.glob("*.gif"))) == 2


def test_a_couple_is_found_on_both_sides_and_in_order():
    voxels = np.zeros((30, 30, 30), np.uint8)
    marks = np.array([[5.0, 15.0, 15.0], [25.0, 15.0, 15.0]])
    case = Case("x", Volume(voxels, 1.0, (0.0, 0.0, 0.0), np.eye(3)), marks)
    config = parse_config({"task": {"kind": "landmark-3d-cube", "roi": 9, "interchangeable": ENDS}})
    cases = Cases(("one end", "other end"), volumes=(case,))
    built = kind_of(config).build(cases, config)
    settings = EvaluationSettings(starts=4, poses=1)
    report = evaluate(built.task, built.task.rewards_of_all, settings, seed=0)
    one, other = found_landmarks(built, report.native_searches, 3.0, known=True)
    assert max(one.error_mm, other.error_mm) < 1.0
    assert max(one.spread_mm, other.spread_mm) < 1.5
    assert [round(found.position[0] / 5) for found in (one, other)] == [1, 5]


def test_without_couples_the_setting_is_empty_and_survives_printing():
    config = parse_config({"task": {"kind": "landmark-2d"}})
    assert config.task.interchangeable == ()
    assert "interchangeable = []" in render_config(config)


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ({"kind": "landmark-3d"}, "landmark-3d-cube and landmark-2d"),
        ({"kind": "multi-agent-3d"}, "landmark-3d-cube and landmark-2d"),
        ({"kind": "landmark-3d-cube", "world": "rl-medical"}, "landmark-3d-cube and landmark-2d"),
        ({"kind": "landmark-2d", "landmarks": ["one end"]}, "looked for"),
        ({"kind": "landmark-2d", "interchangeable": [["a", "b"], ["b", "c"]]}, "in one at most"),
        ({"kind": "landmark-2d", "interchangeable": [["a", "b", "c"]]}, "interchangeable"),
    ],
)
def test_couples_that_cannot_be_are_refused(task, says):
    with pytest.raises(InputDataError, match=says):
        parse_config({"task": {"interchangeable": ENDS, **task}})


def test_a_couple_that_nobody_marked_is_refused_by_name(tmp_path, cairn, rods):
    unknown = ("--set", 'task.interchangeable=[["one end", "left end"]]')
    with pytest.raises(InputDataError, match="left end"):
        cairn("train", *SMALL, *unknown, "--data", rods, "-o", tmp_path / "run")
