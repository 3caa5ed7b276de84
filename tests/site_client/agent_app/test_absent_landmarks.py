"""Landmarks that an image does not show: trained, measured and played by the commands."""

from __future__ import annotations

import csv
import json
import shutil
import threading

import numpy as np
import pytest

from common.errors import InputDataError
from common.plan import parse_plan
from site_client.agent_app.beginning import begin_or_resume
from site_client.agent_app.checkpoint import open_checkpoint
from site_client.agent_app.config import parse_config, read_tables
from site_client.agent_app.training import train
from site_client.imaging.landmark_tables import read_landmark_table
from site_client.imaging.landmarks import read_absent, read_landmarks, write_landmarks
from tests.site_client.agent_app.conftest import (
    SMALL,
    run_line,
    toml_of,
    write_config,
    write_pictures,
)


@pytest.fixture(scope="module")
def cropped(tmp_path_factory):
    """A run whose training images were cropped, too, and its folder of images; only to be read."""
    root = tmp_path_factory.mktemp("cropped")
    config = write_config(root, task={"crops": 2}, run={"evaluate_every": 24})
    images = write_pictures(root, count=6)
    run_line("train", "--config", config, "--data", images, "-o", root / "run")
    return root / "run", images


def test_what_decides_goes_with_the_weights(cropped):
    _, checkpoint = open_checkpoint(cropped[0] / "latest")
    assert checkpoint.config.task.crops == 2
    places = checkpoint.weights["absence.places"] * 100_000
    assert np.allclose(places, checkpoint.prior_mm[:, 0], atol=0.01)
    assert 0 < checkpoint.weights["absence.shares"].mean() < 1
    assert checkpoint.weights["absence.weights"].any()


def test_an_evaluation_says_how_well_absent_landmarks_are_told(cropped, tmp_path):
    result = run_line("evaluate", "--checkpoint", cropped[0], "--data", cropped[1], "--json")
    figures = json.loads(result.stdout)["absent"]
    assert figures["images"] == 6
    assert figures["absent"] > 0
    assert figures["present"] > figures["absent"]
    assert 0 <= figures["auroc"] <= 1
    assert 0 <= figures["auroc_never_looks"] <= 1
    assert figures["roc"][0] == [0, 0]
    assert figures["roc"][-1] == [1, 1]
    shown = run_line("evaluate", "--checkpoint", cropped[0], "--data", cropped[1], "-o", tmp_path)
    assert "Absent landmarks: area under the curve" in shown.output
    said = " ".join(shown.output.split())
    assert f"({figures['auroc_never_looks']:.3f} without looking)" in said
    page = (tmp_path / "report.html").read_text()
    assert 'id="absent"' in page
    assert "Absent landmarks reported, against false alarms." in page


def test_play_says_of_every_landmark_how_sure_it_is(cropped, tmp_path):
    image = cropped[1] / "case0.png"
    line = ("play", "--checkpoint", cropped[0], image, "-o", tmp_path)
    found = json.loads(run_line(*line, "--json").stdout)["found"]
    assert [entry["landmark"] for entry in found] == ["spot", "corner"]
    assert all(entry["absent"] == (entry["absent_score"] > 0.5) for entry in found)
    lines = (tmp_path / "predictions.csv").read_text(encoding="utf-8").splitlines()
    table = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    assert [float(row["absent_score"]) for row in table] == pytest.approx(
        [entry["absent_score"] for entry in found], abs=1e-4
    )
    told = {entry["landmark"] for entry in found if entry["absent"]}
    assert read_absent(tmp_path / "case0.mrk.json") == told
    assert read_landmarks(tmp_path / "case0.mrk.json").keys() == {"spot", "corner"} - told


def test_a_run_without_crops_says_nothing_of_absence(tmp_path):
    config, images = write_config(tmp_path), write_pictures(tmp_path)
    run_line("train", "--config", config, "--data", images, "-o", tmp_path / "run")
    line = ("play", "--checkpoint", tmp_path / "run", images / "case0.png", "-o", tmp_path)
    found = json.loads(run_line(*line, "--json").stdout)["found"]
    assert all("absent" not in entry for entry in found)
    assert "absent" not in (tmp_path / "predictions.csv").read_text()
    _, checkpoint = open_checkpoint(tmp_path / "run")
    assert not [name for name in checkpoint.weights if name.startswith("absence.")]


class StoppingMeter:
    """Asks for a stop after some updates."""

    def __init__(self, updates):
        self.updates, self.stop = updates, threading.Event()

    def __call__(self, what, done, *_):
        if what == "updates" and done == self.updates:
            self.stop.set()

    def say(self, _):
        pass


def test_a_run_that_was_stopped_ends_with_the_weights_of_one_that_was_not(tmp_path):
    images, file = write_pictures(tmp_path), write_config(tmp_path, task={"crops": 1})
    config = parse_config(read_tables(file))
    ends = {}
    for name, pauses in (("whole", ()), ("halves", (10,))):
        for updates in (*pauses, 1000):
            place = tmp_path / name
            settled, _, begun = begin_or_resume(config, images, place, resume=place.exists())
            meter = StoppingMeter(updates)
            train(settled, place, begun, meter.stop, meter)
        _, ends[name] = open_checkpoint(tmp_path / name / "latest")
    assert ends["halves"].updates == ends["whole"].updates == 24
    assert ends["whole"].weights["absence.weights"].any()
    for name, array in ends["whole"].weights.items():
        assert (ends["halves"].weights[name] == array).all(), name


def test_a_landmark_that_a_person_marked_as_missing_counts_as_absent(cropped, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(cropped[1], images)
    line = ("evaluate", "--checkpoint", cropped[0], "--data", images, "--json")
    before = json.loads(run_line(*line).stdout)["absent"]
    for k in range(3):
        path = images / f"case{k}.mrk.json"
        write_landmarks(path, read_landmarks(path), absent=["corner"])
    assert read_absent(images / "case0.mrk.json") == {"corner"}
    after = json.loads(run_line(*line).stdout)["absent"]
    assert after["absent"] > before["absent"]


def test_a_table_says_absent_in_words(tmp_path):
    path = tmp_path / "marks.csv"
    path.write_text("case,a_x,a_y,b_x,b_y\n1,2.0,3.0,absent,absent\n2,,,4.0,1.0\n")
    table = read_landmark_table(path, unit="mm", frame="LPS")
    assert table.of("1").keys() == {"a"}
    assert table.of("2").keys() == {"b"}
    assert table.absent == {"1": frozenset({"b"}), "2": frozenset()}
    path.write_text("case,a_x,a_y,b_x,b_y\n1,2.0,3.0,absent,4.0\n")
    with pytest.raises(InputDataError, match="no position"):
        read_landmark_table(path, unit="mm", frame="LPS")


@pytest.mark.parametrize(
    "task",
    [
        {"kind": "view-plane", "crops": 1},
        {"kind": "multi-agent-3d", "crops": 1},
        {"kind": "landmark-2d", "crops": 9},
        {"kind": "landmark-3d-cube", "crops": 1, "world": "rl-medical"},
        {"landmarks": ["a", "b"], "interchangeable": [["a", "b"]], "crops": 1}
        | {"kind": "landmark-2d"},
    ],
)
def test_crops_that_cannot_be_are_refused(task):
    with pytest.raises(InputDataError):
        parse_config({"task": task})


def test_a_plan_that_says_nothing_of_crops_keeps_its_fingerprint():
    said = {"name": "mine", "seed": 1, "task": SMALL["task"] | {"landmarks": ["spot", "corner"]}}
    sections = {name: SMALL[name] for name in ("ladder", "pose", "network", "learner")}
    plan = parse_plan(said | sections)
    silent = parse_plan(said | sections | {"task": said["task"] | {"crops": 0}})
    loud = parse_plan(said | sections | {"task": said["task"] | {"crops": 1}})
    assert plan.fingerprint == silent.fingerprint
    assert plan.fingerprint != loud.fingerprint
    assert "crops" not in json.loads(plan.model_dump_json())["task"]


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [
        ("landmark-3d", "triplanar"),
        pytest.param("landmark-3d-cube", "volume-light", marks=pytest.mark.slow),
    ],
)
def test_volumes_are_cropped_and_searched_too(tmp_path, cairn, volumes, kind, architecture):
    sections = {name: SMALL[name] for name in ("ladder", "pose", "learner", "run")}
    config = tmp_path / "train.toml"
    config.write_text(
        toml_of(
            sections
            | {
                "data": {"validation_share": 0.34},
                "task": {"kind": kind, "roi": 9, "crops": 2},
                "network": {"architecture": architecture, "width": 4, "hidden": [8]},
                "evaluation": {"starts": 2, "poses": 1, "most_steps": 12},
            }
        )
    )
    images, run = volumes(count=4), tmp_path / "run"
    cairn("train", "--config", config, "--data", images, "-o", run)
    figures = json.loads(cairn("evaluate", "--checkpoint", run, "--data", images, "--json").stdout)
    told = figures["absent"]
    assert (told["images"], told["absent"] > 0) == (4, True)
    _, checkpoint = open_checkpoint(run)
    assert checkpoint.weights["absence.places"].shape == (2, 3)
    line = ("play", "--checkpoint", run, images / "head0.nii.gz", "-o", tmp_path / "found")
    found = json.loads(cairn(*line, "--json").stdout)["found"]
    assert [entry["landmark"] for entry in found] == ["AC", "PC"]
    assert all(0 <= entry["absent_score"] <= 1 for entry in found)
