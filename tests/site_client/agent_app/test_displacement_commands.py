"""A learner of displacements through the commands: trained, resumed, measured, played, filmed."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from common.canonical import sha256_hex
from common.errors import InputDataError
from site_client.agent_app.checkpoint import find_checkpoint, read_checkpoint

DISPLACED = {"method": "displacement", "learning_rate": 0.003}


def digest(run):
    return sha256_hex((run / "latest" / "model.safetensors").read_bytes())


def test_what_is_trained_is_resumed_bit_for_bit_measured_and_filmed(
    tmp_path, cairn, pictures, make_config
):
    data, run = pictures(), tmp_path / "run"
    longer = {"updates": 120, "batch": 24, **DISPLACED}
    network, often = {"width": 8, "hidden": [32]}, {"evaluate_every": 60, "checkpoint_every": 60}
    whole = make_config(learner=longer, network=network, run=often)
    told = json.loads(cairn("train", "--config", whole, "--data", data, "-o", run, "--json").stdout)
    assert told["finished"]
    assert told["validation_mm"] < told["prior_mm"] / 2
    checkpoint = read_checkpoint(find_checkpoint(run))
    assert checkpoint.config.space.actions == 2
    # The state that was left opens again, and there is nothing to do.
    again = json.loads(cairn("train", "--resume", "-o", run, "--json").stdout)
    assert again["weights_sha256"] == told["weights_sha256"] == digest(run)
    held = pictures("held", seed=9)
    measured = json.loads(cairn("evaluate", "--checkpoint", run, "--data", held, "--json").stdout)
    assert [row["landmark"] for row in measured["posed"]] == ["spot", "corner", "mean"]
    assert measured["posed"][-1]["mean_mm"] < measured["posed"][-1]["prior_mm"]
    found = tmp_path / "found"
    cairn("play", "--checkpoint", run, held / "case1.png", "-o", found, "--gif")
    with Image.open(found / "case1_spot.gif") as film:
        assert 2 <= film.n_frames <= 9


def test_a_stop_in_between_changes_nothing(tmp_path, cairn, pictures, make_config, monkeypatch):
    data = pictures()
    config = make_config(learner=DISPLACED)
    cairn("train", "--config", config, "--data", data, "-o", tmp_path / "straight")
    from site_client.agent_app import training

    kept, run = training._Run.go, tmp_path / "stopped"

    def stopped(self, stop):
        step = self._learner.train

        def train(updates):
            report = step(updates)
            if self._learner.updates == 11:
                stop.set()
            return report

        monkeypatch.setattr(self._learner, "train", train)
        return kept(self, stop)

    monkeypatch.setattr(training._Run, "go", stopped)
    cairn("train", "--config", config, "--data", data, "-o", run)
    assert read_checkpoint(run / "latest").updates == 11
    monkeypatch.setattr(training._Run, "go", kept)
    cairn("train", "--resume", "-o", run)
    assert digest(run) == digest(tmp_path / "straight")


def test_a_kind_that_looks_for_no_points_says_which_do(cairn):
    wanted = ("--set", "task.kind=box-2d", "--set", "learner.method=displacement")
    with pytest.raises(InputDataError, match=r"learner\.method must be dqn for box-2d"):
        cairn("train", "--print-config", *wanted)
