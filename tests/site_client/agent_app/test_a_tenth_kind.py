"""One entry and one room add a kind: a made-up tenth is trained, measured, played and filmed,
and federated: a plan may be about it, and a site trains what the plan says.
"""

from __future__ import annotations

import json
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from common.errors import InputDataError
from common.model import initial_weights, weights_digest
from common.plan import parse_plan
from common.settings import KINDS, KindEntry, spaces
from site_client.agent.federated import evaluate_weights, planned_learner, require_planned
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.landmark2d import Case2D, Landmark2D, build_cases_2d
from site_client.agent.tasks.views import Views
from site_client.agent_app.checkpoint import find_checkpoint, read_checkpoint
from site_client.imaging.cases import middle_of
from site_client.imaging.films import draw_frames
from site_client.imaging.sources import landmark_files
from site_client.kinds.kind import TaskKind
from site_client.kinds.values import Answers, Built
from site_client.worker.site_cases import read_site_cases

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
        return draw_frames(
            followed.steps["level"], followed.values, draw, rungs, ("right", "left", "down", "up")
        )


@pytest.fixture
def tenth(monkeypatch):
    """The kind, as a room and an entry of the registry."""
    room = types.ModuleType("made_up_room")
    room.KIND = Brightest()
    monkeypatch.setitem(sys.modules, "made_up_room", room)
    entry = KindEntry(
        "made_up_room",
        2,
        ("planar",),
        "ladder",
        frozenset(),
        lambda config: replace(spaces.picture(config), labels=("peak",)),
        KINDS["box-2d"].defaults,
        named="",
        unit="mm",
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


def plan_of(kind, **task):
    return parse_plan(
        {
            "name": "tenth",
            "seed": 1,
            "task": {"kind": kind, "roi": 11, "spacing_mm": 1.0} | task,
            "network": {"width": 4, "hidden": [8]},
            "learner": {"updates": 4, "batch": 4, "searches": 2, "warmup": 8},
            "evaluation": {"starts": 2, "most_steps": 6},
            "rounds": {"training": 2},
        }
    )


def test_an_entry_and_a_room_are_federated(tmp_path, pictures, tenth):
    """Whoever adds up, orders or trains finds the tenth kind by its entry alone."""
    plan = plan_of(tenth)
    assert plan.network.architecture == "planar"
    assert parse_plan(json.loads(plan.canonical())) == plan
    assert plan.space.labels == ("peak",)
    laid_out = tmp_path / "data.toml"
    laid_out.write_text("pixel_mm = 0.5\n")
    cases = read_site_cases(pictures(), plan, lambda *_: None, settings=laid_out)
    require_planned(cases.task, plan)
    assert cases.labels == plan.space.labels
    learner = planned_learner(plan, cases.task, seed=2)
    assert weights_digest(learner.weights()) == weights_digest(initial_weights(plan))
    assert learner.train(plan.updates_in(1)).updates == 2
    report = evaluate_weights(learner.weights(), plan, cases.task, 1, cases.prior)
    assert set(report.posed) == {"peak"}
    assert report.posed["peak"].searches == 4 * 2
    assert report.prior > 0


def test_what_only_other_kinds_have_is_refused_for_the_tenth(tenth):
    for wrong in ({"landmarks": ["spot"]}, {"frames": 4}, {"recontrast": True}):
        with pytest.raises(InputDataError, match=next(iter(wrong))):
            plan_of(tenth, **wrong)


def test_without_its_entry_the_kind_is_unknown(cairn):
    with pytest.raises(InputDataError, match="landmark-3d, landmark-3d-cube"):
        cairn("train", "--set", "task.kind=brightest-2d", "--print-config")
    with pytest.raises(InputDataError, match=r"task\.kind must be .*landmark-3d"):
        plan_of("brightest-2d")
