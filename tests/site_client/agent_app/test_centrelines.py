"""Centrelines by the commands that a user types: trained, measured, played, filmed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from common.errors import InputDataError
from site_client.imaging.answers import write_curve_markups
from site_client.imaging.landmarks import read_markups
from tests.made.vessels import make_vessel

TINY = (
    *("--set", "network.width=4", "--set", "network.hidden=[8]", "--set", "task.roi=11"),
    *("--set", "learner.updates=4", "--set", "learner.batch=4", "--set", "learner.searches=2"),
    *("--set", "learner.warmup=8", "--set", "learner.replay_capacity=100"),
    *("--set", "evaluation.most_steps=8", "--set", "evaluation.starts=2"),
    *("--set", "evaluation.poses=1", "--set", "centreline.longest=32"),
)


def words_of(dim):
    pixels = ("--set", "data.pixel_mm=0.5") if dim == 2 else ()
    return ("--task", f"centreline-{dim}d", *TINY, *pixels)


@pytest.mark.parametrize("dim", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_vessel_is_trained_measured_played_and_filmed(tmp_path, cairn, request, dim):
    data = request.getfixturevalue(f"vessels_{dim}d")(count=2)
    run, result, out = (tmp_path / name for name in ("run", "result", "out"))
    told = json.loads(cairn("train", *words_of(dim), "--data", data, "-o", run, "--json").stdout)
    assert told["finished"]
    assert told["best_mm"] > 0
    words = ("--checkpoint", run, "--data", data, "-o", result, "--pictures")
    measured = json.loads(cairn("evaluate", *words, "--json").stdout)
    assert measured["native"]["centreline"]["prior_mm"] > 0
    assert set(measured["native"]["centreline"]["further"]) == {"off_mm", "traced"}
    page = (result / "report.html").read_text(encoding="utf-8")
    assert "vessel0, main" in page
    assert "mean distance of trace and true centreline" in page
    written = json.loads((result / "predictions" / "predictions.json").read_text())
    assert {entry["case"] for entry in written["found"]} == {"vessel0", "vessel1"}
    assert all(0 <= entry["traced"] <= 1 for entry in written["found"])
    image = data / ("vessel0.png" if dim == 2 else "vessel0.nii.gz")
    played = cairn("play", "--checkpoint", run, image, "-o", out, "--gif")
    assert "vessel0" in played.stdout
    assert (out / "vessel0_main.gif").exists()
    (curve,) = read_markups(out / "vessel0.mrk.json")
    (seed,) = read_markups(data / "vessel0.mrk.json")
    assert (curve.kind, curve.name) == ("Curve", "main")
    # It begins where the click was, but for what a click misses.
    assert np.linalg.norm(curve.points[0][1] - seed.points[0][1]) < 3.0
    found = json.loads((out / "predictions.json").read_text())["found"][0]
    assert "traced" not in found


def test_an_image_is_played_from_two_points_and_not_without_them(tmp_path, cairn, vessels_2d):
    run, data = tmp_path / "run", vessels_2d(count=2)
    cairn("train", *words_of(2), "--data", data, "-o", run)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    vessel = make_vessel(np.random.default_rng(9), 2, 32)
    sitk.WriteImage(sitk.GetImageFromArray(vessel.pixels), str(fresh / "new.png"))
    with pytest.raises(InputDataError, match="nothing says where to trace from") as refused:
        cairn("play", "--checkpoint", run, fresh / "new.png", "-o", tmp_path / "out")
    assert refused.value.field == "new"
    seed = np.zeros((2, 3))
    seed[:, :2] = vessel.line[[0, 6]] * 0.5
    write_curve_markups(fresh / "new.mrk.json", [("seed", seed)])
    cairn("play", "--checkpoint", run, fresh / "new.png", "-o", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["found"]


def test_a_curve_of_one_point_says_what_is_missing(tmp_path, cairn, vessels_2d):
    data = vessels_2d(count=2)
    write_curve_markups(data / "vessel1.mrk.json", [("main", np.ones((1, 3)))])
    with pytest.raises(InputDataError, match="a curve has no direction") as refused:
        cairn("train", *words_of(2), "--data", data, "-o", tmp_path / "run")
    assert refused.value.field == "vessel1: main"
