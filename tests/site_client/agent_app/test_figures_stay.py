"""Figures of every kind of task, frozen: who lays the house out anew may not move a number.

The numbers were taken before kinds had rooms of their own.
"""

from __future__ import annotations

import json

import pytest

TINY = (
    *("--set", "network.width=4", "--set", "network.hidden=[8]"),
    *("--set", "learner.updates=4", "--set", "learner.batch=4", "--set", "learner.searches=2"),
    *("--set", "learner.warmup=8", "--set", "learner.replay_capacity=200", "--set", "task.roi=15"),
    *("--set", "learner.episode_steps=4", "--set", "data.validation_share=0.34"),
    *("--set", "evaluation.most_steps=6", "--set", "evaluation.starts=2"),
    *("--set", "evaluation.poses=1", "--set", "run.validation_poses=1"),
)
PIXELS = ("--set", "data.pixel_mm=0.5")
# Kind: its cases, what else is set, first head's [mean, prior] posed and consensus as acquired.
FROZEN = {
    "landmark-3d": ("volumes", (), [7.77207777373134, 12.173387042161979, 4.962166537039251]),
    "landmark-3d-cube": ("volumes", (), [8.358695136163995, 13.612544459517444, 9.362396076453503]),
    "landmark-2d": (
        "pictures",
        PIXELS,
        [14.844573253246436, 13.88558220103948, 17.049292629836426],
    ),
    "multi-agent-3d": (
        "volumes",
        ("--set", "network.architecture=volume-light"),
        [12.413012119782314, 12.173387042161979, 13.244906792533145],
    ),
    "box-2d": ("lesions", PIXELS, [0.9955940594754374, 1.0, 0.9630819401535943]),
    "box-3d": ("labelled", (), [0.963536630574991, 1.0, 0.823060527371792]),
    "view-plane": (
        "marked",
        ("--set", 'task.plane_landmarks=["AC", "PC", "top"]'),
        [73.08230513846621, 13.318212846136674, 74.52014210047948],
    ),
    "registration-2d": (
        "pictures",
        PIXELS,
        [23.103638957589318, 16.481898818294038, 35.10588034795786],
    ),
    "registration-3d": ("volumes", (), [37.36980699477386, 28.63499922605312, 39.13113211463777]),
}


@pytest.mark.parametrize("kind", FROZEN)
def test_the_figures_of_a_kind_are_what_they_were(tmp_path, cairn, request, kind):
    cases, words, frozen = FROZEN[kind]
    data, run = request.getfixturevalue(cases)(), tmp_path / "run"
    reach = ("--set", "plane.reach_deg=80.0") if kind == "view-plane" else ()
    cairn("train", "--task", kind, *TINY, *words, *reach, "--data", data, "-o", run)
    told = json.loads(cairn("evaluate", "--checkpoint", run, "--data", data, "--json").stdout)
    posed, native = (first_of(told[name]) for name in ("posed", "native"))
    figures = [posed["mean"], posed["prior"], native["consensus"]]
    assert figures == pytest.approx(frozen, rel=1e-6)


def first_of(rows):
    """The first head's errors, whether their names say mm or not."""
    row = rows[0] if isinstance(rows, list) else next(iter(rows.values()))
    return {key.removesuffix("_mm"): value for key, value in row.items()}
