"""One entry and one room add a kind: a made-up tenth is trained, measured, played and filmed."""

from __future__ import annotations

import json
import sys
import types

import numpy as np
import pytest
from PIL import Image

from common.errors import InputDataError
from common.settings import KINDS, KindEntry
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.landmark2d import Case2D, Landmark2D, build_cases_2d
from site_client.agent.tasks.views import Views
from site_client.agent_app.checkpoint import find_checkpoint, read_checkpoint
from site_client.agent_app.films import draw_frames
from site_client.agent_app.kinds.kind import Answers, Built, TaskKind
from site_client.agent_app.sources import landmark_files
from site_client.imaging.cases import middle_of

TINY = (
    *("--set", "network.width=4", "--set", "network.hidden=[8]", "--set", "task.spacing_mm=1.0"),
    *("--set", "learner.updates=4", "--set", "learner.batch=4", "--set", "learner.searches=2"),
    *("--set", "learner.warmup=8", "--set", "learner.replay_capacity=200", "--set", "task.roi=11"),
    *("--set", "data.pixel_mm=0.5", "--set", "evaluation.most_steps=6"),
    *("--set", "evaluation.starts=2", "--set", "evaluation.poses=1"),
)


class Peak:
    """How bright the image is where its spot was found."""

    def __init__(self, name, grey):
        self.name, self.grey = name, grey

    def as_dict(self):
        return {"case": self.name, "grey": self.grey}


class Brightest(TaskKind):
    """Looks for the spot, and says how bright it is: nothing that another kind does."""

    nothing = "It is dark everywhere."

    def find_files(self, wanted, data):
        return landmark_files(wanted, data)

    def names(self, source, config):
        return ("spot",)

    def build(self, cases, config, *, known=True):
        pictures = build_cases_2d(
            [
                Case2D(c.name, c.picture.channels, (c.picture.spacing_mm,) * 2, c.landmarks_mm)
                for c in cases.pictures
            ],
            1.0,
        )
        views = Views(config.task.roi, (1.0,), 1)
        ladder = Ladder(config.ladder.scales, config.ladder.steps_mm)
        return Built.of(Landmark2D(pictures, ladder, views, config.pose), cases, ("peak",))

    def find(self, player, searched=None):
        built, searched = player.built, searched or self.search(player)
        peaks = []
        for at in searched.agreed:
            case = built.cases.each[int(at["case"])]
            x, y = np.rint((at["position"] + middle_of(case)) / case.picture.spacing_mm).astype(int)
            pixels = case.picture.pixels
            y, x = min(max(y, 0), pixels.shape[0] - 1), min(max(x, 0), pixels.shape[1] - 1)
            peaks.append(Peak(case.name, int(pixels[y, x])))
        return Answers(tuple(peaks))

    def row(self, finding):
        return {"case": finding.name, "grey": str(finding.grey)}

    def frames(self, player, followed):
        def draw(step, level, colour):
            return Image.new("RGB", (20, 20), colour)

        rungs = [f"{step:g} mm" for step in player.config.ladder.steps_mm]
        return draw_frames(followed, draw, rungs, ("right", "left", "down", "up"))


@pytest.fixture
def tenth(monkeypatch):
    """The kind, as a room and an entry of the registry."""
    room = types.ModuleType("made_up_room")
    room.KIND = Brightest()
    monkeypatch.setitem(sys.modules, "made_up_room", room)
    entry = KindEntry(
        "made_up_room", 2, ("planar",), "ladder", frozenset(), KINDS["box-2d"].defaults
    )
    monkeypatch.setitem(KINDS, "brightest-2d", entry)
    return "brightest-2d"


def test_an_entry_and_a_room_are_trained_measured_played_and_filmed(
    tmp_path, cairn, pictures, tenth
):
    data, run, result, out = (pictures(), *(tmp_path / name for name in ("run", "result", "out")))
    words = (*TINY, "--set", f"task.kind={tenth}")
    assert "[ladder]" in cairn("train", *words, "--print-config").stdout
    told = json.loads(cairn("train", *words, "--data", data, "-o", run, "--json").stdout)
    assert told["finished"]
    assert told["best_mm"] > 0
    assert read_checkpoint(find_checkpoint(run)).config.task.kind == tenth
    measured = json.loads(
        cairn("evaluate", "--checkpoint", run, "--data", data, "-o", result, "--json").stdout
    )
    assert measured["task"] == tenth
    assert set(measured["native"]) == {"peak"}
    written = json.loads((result / "predictions" / "predictions.json").read_text())
    assert [entry["case"] for entry in written["found"]] == [f"case{k}" for k in range(4)]
    page = (result / "report.html").read_text(encoding="utf-8")
    assert tenth in page
    assert "prefers-color-scheme: dark" in page
    played = cairn("play", "--checkpoint", run, data / "case0.png", "-o", out, "--gif")
    assert "grey" in played.stdout
    assert (out / "case0_peak.gif").exists()


def test_without_its_entry_the_kind_is_unknown(cairn):
    with pytest.raises(InputDataError, match="landmark-3d, landmark-3d-cube"):
        cairn("train", "--set", "task.kind=brightest-2d", "--print-config")
