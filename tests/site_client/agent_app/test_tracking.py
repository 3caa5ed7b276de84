"""Landmarks followed through sequences, by the commands that a user types."""

from __future__ import annotations

import json

import numpy as np
import pytest

from common.errors import InputDataError
from site_client.imaging.landmarks import read_landmarks

WORDS = (
    *("--task", "tracking-2d", "--set", "data.pixel_mm=0.5", "--set", "task.roi=11"),
    *("--set", "network.width=4", "--set", "network.hidden=[8]", "--set", "learner.updates=4"),
    *("--set", "learner.batch=4", "--set", "learner.searches=2", "--set", "learner.warmup=8"),
    *("--set", "learner.replay_capacity=100", "--set", "evaluation.most_steps=8"),
    *("--set", "evaluation.starts=2", "--set", "evaluation.poses=1"),
)


def test_a_landmark_is_followed_trained_measured_played_and_filmed(tmp_path, cairn, sequences):
    data, (run, result, out) = sequences(), (tmp_path / name for name in ("run", "result", "out"))
    told = json.loads(cairn("train", *WORDS, "--data", data, "-o", run, "--json").stdout)
    assert (told["training_cases"], told["validation_cases"]) == (3, 3)
    words = ("--checkpoint", run, "--data", data, "-o", result, "--pictures", "--json")
    measured = json.loads(cairn("evaluate", *words).stdout)
    assert measured["native"]["tip"]["further"]["moved_mm"] > 0
    assert measured["native"]["tip"]["searches"] == 2 * 2 * 2
    page = (result / "report.html").read_text(encoding="utf-8")
    assert "errors add up along a sequence" in page
    assert ", tip" in page
    # Of a sequence that is played only the first frame says what to follow.
    first = read_landmarks(data / "sub-0_000.mrk.json")["tip"]
    for path in data.glob("*.mrk.json"):
        if not path.name.startswith("sub-0_000"):
            path.unlink()
    frames = sorted(data.glob("sub-0_*.png"))
    played = cairn("play", "--checkpoint", run, *frames, "-o", out, "--gif")
    assert "sub-0_001" in played.stdout
    assert sorted(p.name for p in out.glob("*.gif")) == ["sub-0_001_tip.gif", "sub-0_002_tip.gif"]
    found = json.loads((out / "predictions.json").read_text())["found"]
    assert [entry["case"] for entry in found] == ["sub-0_001", "sub-0_002"]
    assert "native_error_mm" not in found[0]
    there = read_landmarks(out / "sub-0_001.mrk.json")["tip"]
    way = float(np.linalg.norm(there - first))
    assert found[0]["way_mm"] == pytest.approx(way, abs=1e-2)


def test_a_sequence_whose_first_frame_has_no_landmark_is_not_played(tmp_path, cairn, sequences):
    run, data = tmp_path / "run", sequences()
    cairn("train", *WORDS, "--data", data, "-o", run)
    (data / "sub-1_000.mrk.json").unlink()
    with pytest.raises(InputDataError, match="nothing says what to follow") as refused:
        cairn("play", "--checkpoint", run, data, "-o", tmp_path / "out")
    assert refused.value.field == "sub-1_000"
