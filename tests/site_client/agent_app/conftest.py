from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from site_client.imaging.landmarks import write_landmarks

PIXEL_MM = 0.5
LANDMARKS = ("spot", "corner")
# Small enough to train in seconds; everything else has its default.
SMALL = {
    "data": {"pixel_mm": PIXEL_MM, "validation_share": 0.25},
    "task": {"kind": "landmark-2d", "spacing_mm": 1.0, "roi": 15, "zooms": [1.0, 2.0]},
    "ladder": {"scales": [3.0, 1.0], "steps_mm": [4.0, 1.0]},
    "pose": {"rotation_deg": 5.0, "shift_mm": 3.0},
    "network": {"architecture": "planar", "width": 4, "hidden": [16]},
    "learner": {
        "updates": 24,
        "batch": 8,
        "searches": 4,
        "warmup": 32,
        "episode_steps": 6,
        "replay_capacity": 400,
    },
    "evaluation": {"starts": 3, "poses": 2, "most_steps": 30},
    "run": {"seed": 7, "log_every": 5, "checkpoint_every": 6, "evaluate_every": 8},
}


def toml_of(tables):
    """Tables as a person would write them."""
    lines = []
    for name, table in tables.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


@pytest.fixture
def make_config(tmp_path):
    """Write the small configuration, with changes, as train.toml."""

    def make(name="train.toml", **changes):
        tables = {k: {**v, **changes.get(k, {})} for k, v in SMALL.items()}
        path = tmp_path / name
        path.write_text(toml_of(tables))
        return path

    return make


def draw(rng):
    """An X-ray of sorts: a bright spot and the corner of a plate; and where they are, mm."""
    y, x = np.mgrid[:90, :110] * PIXEL_MM
    spot = rng.uniform((20.0, 16.0), (34.0, 30.0))
    corner = spot + rng.uniform((-12.0, -10.0), (-9.0, -8.0))
    pixels = 30 + 20 * (x > corner[0]) + 20 * (y > corner[1])
    pixels = pixels + 180 * np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / 12)
    return np.rint(pixels).astype(np.uint8), {"spot": spot, "corner": corner}


@pytest.fixture
def pictures(tmp_path):
    """A folder of four PNG with landmarks beside them, as 3D Slicer would write them."""

    def make(folder="images", count=4, seed=1):
        rng = np.random.default_rng(seed)
        place = tmp_path / folder
        place.mkdir()
        for k in range(count):
            pixels, landmarks = draw(rng)
            sitk.WriteImage(sitk.GetImageFromArray(pixels), str(place / f"case{k}.png"))
            world = {name: np.array([*at, 0.0]) for name, at in landmarks.items()}
            write_landmarks(place / f"case{k}.mrk.json", world, "RAS")
        return place

    return make
