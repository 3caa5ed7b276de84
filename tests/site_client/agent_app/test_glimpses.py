"""Large images by glimpses, by the commands that a user types."""

from __future__ import annotations

import json

WORDS = (
    *("--task", "glimpses-2d", "--set", "data.pixel_mm=0.5", "--set", "task.roi=11"),
    *("--set", "network.width=4", "--set", "network.hidden=[8]", "--set", "learner.updates=4"),
    *("--set", "learner.batch=4", "--set", "learner.searches=2", "--set", "learner.warmup=8"),
    *("--set", "learner.replay_capacity=100", "--set", "evaluation.most_steps=6"),
    *("--set", "evaluation.starts=2", "--set", "evaluation.poses=1"),
    *("--set", "glimpse.scales=[4.0, 1.0]"),
)


def test_places_are_trained_measured_played_and_filmed(tmp_path, cairn, lesions):
    data, (run, result, out) = lesions(count=2), (tmp_path / n for n in ("run", "result", "out"))
    told = json.loads(cairn("train", *WORDS, "--data", data, "-o", run, "--json").stdout)
    assert told["best_mm"] >= 0
    words = ("--checkpoint", run, "--data", data, "-o", result, "--pictures", "--json")
    measured = json.loads(cairn("evaluate", *words).stdout)
    assert {"hit", "glimpses", "read_percent"} == set(measured["native"]["1"]["further"])
    page = (result / "report.html").read_text(encoding="utf-8")
    assert "glimpses, " in page
    assert "pixels that a search was shown" in page
    found = json.loads((result / "predictions" / "predictions.json").read_text())["found"]
    assert {entry["hit"] for entry in found} <= {0.0, 1.0}
    played = cairn("play", "--checkpoint", run, data / "case0.png", "-o", out, "--gif")
    assert "glimpses" in played.stdout
    assert (out / "case0_1.gif").exists()
    found = json.loads((out / "predictions.json").read_text())["found"]
    assert found[0]["read_percent"] > 0
    assert "hit" not in found[0]
