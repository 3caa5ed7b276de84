from __future__ import annotations

import functools
import json

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from click.testing import CliRunner

from site_client.cli import cli
from site_client.imaging.landmarks import read_landmarks, write_landmarks
from tests.made.sequences import write_sequences
from tests.made.vessels import write_vessels

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


def write_config(folder, name="train.toml", **changes):
    tables = {k: {**v, **changes.get(k, {})} for k, v in SMALL.items()}
    path = folder / name
    path.write_text(toml_of(tables))
    return path


@pytest.fixture
def make_config(tmp_path):
    """Write the small configuration, with changes, as train.toml."""
    return functools.partial(write_config, tmp_path)


def draw(rng):
    """An X-ray of sorts: a bright spot and the corner of a plate; and where they are, mm."""
    y, x = np.mgrid[:90, :110] * PIXEL_MM
    spot = rng.uniform((20.0, 16.0), (34.0, 30.0))
    corner = spot + rng.uniform((-12.0, -10.0), (-9.0, -8.0))
    pixels = 30 + 20 * (x > corner[0]) + 20 * (y > corner[1])
    pixels = pixels + 180 * np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / 12)
    return np.rint(pixels).astype(np.uint8), {"spot": spot, "corner": corner}


def write_pictures(root, folder="images", count=4, seed=1):
    rng = np.random.default_rng(seed)
    place = root / folder
    place.mkdir()
    for k in range(count):
        pixels, landmarks = draw(rng)
        sitk.WriteImage(sitk.GetImageFromArray(pixels), str(place / f"case{k}.png"))
        world = {name: np.array([*at, 0.0]) for name, at in landmarks.items()}
        write_landmarks(place / f"case{k}.mrk.json", world, "RAS")
    return place


@pytest.fixture
def pictures(tmp_path):
    """A folder of four PNG with landmarks beside them, as 3D Slicer would write them."""
    return functools.partial(write_pictures, tmp_path)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A small agent for pictures, good enough to be told from chance; only to be read."""
    root = tmp_path_factory.mktemp("trained")
    config = write_config(
        root,
        learner={"updates": 260, "batch": 24, "searches": 12, "learning_rate": 0.003},
        network={"width": 8, "hidden": [32]},
        run={"evaluate_every": 130, "checkpoint_every": 260, "log_every": 130},
    )
    run_line("train", "--config", config, "--data", write_pictures(root), "-o", root / "run")
    return root / "run"


@pytest.fixture
def volumes(tmp_path):
    """A folder of three NIfTI heads of sorts, two landmarks in each, oblique and not of 1 mm."""

    def make(folder="volumes", count=3, seed=3):
        rng = np.random.default_rng(seed)
        place = tmp_path / folder
        place.mkdir()
        for k in range(count):
            spot = rng.uniform(-4.0, 4.0, 3)
            other = spot + rng.uniform(4.0, 7.0, 3)
            image = sitk.Image([26, 22, 24], sitk.sitkInt16)
            image.SetSpacing((1.0, 1.2, 1.1))
            image.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, -1))
            half = [(n - 1) / 2 for n in image.GetSize()]
            middle = np.array(image.TransformContinuousIndexToPhysicalPoint(half))
            image.SetOrigin((-middle).tolist())
            z, y, x = np.mgrid[:24, :22, :26]
            index = np.stack([x, y, z], axis=-1) * image.GetSpacing()
            direction = np.array(image.GetDirection()).reshape(3, 3)
            world = index @ direction.T + image.GetOrigin()
            pixels = 40 * (np.abs(world) < 10).all(axis=-1)
            for at, height in ((spot, 300), (other, 180)):
                pixels = pixels + height * np.exp(-((world - at) ** 2).sum(axis=-1) / 8)
            filled = sitk.GetImageFromArray(np.rint(pixels).astype(np.int16))
            filled.CopyInformation(image)
            sitk.WriteImage(filled, str(place / f"head{k}.nii.gz"))
            write_landmarks(place / f"head{k}.mrk.json", {"AC": spot, "PC": other})
        return place

    return make


@pytest.fixture
def lesions(tmp_path):
    """Three PNG with one or two bright lesions, and their label images beside them."""

    def make(folder="lesions", count=3, seed=4):
        rng = np.random.default_rng(seed)
        place = tmp_path / folder
        place.mkdir()
        for k in range(count):
            pixels = rng.integers(20, 60, (60, 70))
            labels = np.zeros((60, 70), np.uint8)
            for n, (x, y) in enumerate(((8, 10), (44, 30))[: 1 + k % 2 + 1]):
                wide, tall = rng.integers(12, 20, 2)
                labels[y : y + tall, x : x + wide] = 1 + n
                pixels[y : y + tall, x : x + wide] += 150
            sitk.WriteImage(
                sitk.GetImageFromArray(pixels.astype(np.uint8)), str(place / f"case{k}.png")
            )
            sitk.WriteImage(sitk.GetImageFromArray(labels), str(place / f"case{k}_label.png"))
        return place

    return make


@pytest.fixture
def marked(volumes):
    """Volumes with a third landmark, so that they define a plane."""

    def make(**kwargs):
        place = volumes(**kwargs)
        for path in sorted(place.glob("*.mrk.json")):
            marks = read_landmarks(path)
            marks["top"] = marks["AC"] + np.array([1.0, 2.0, 6.0])
            write_landmarks(path, marks)
        return place

    return make


@pytest.fixture
def labelled(volumes):
    """Volumes with a label image beside each: a ball around its first landmark."""

    def make(**kwargs):
        place = volumes(**kwargs)
        for path in sorted(place.glob("*.nii.gz")):
            image = sitk.ReadImage(str(path))
            spot = read_landmarks(path.with_name(path.name.replace(".nii.gz", ".mrk.json")))["AC"]
            x, y, z = image.TransformPhysicalPointToContinuousIndex(spot.tolist())
            k, j, i = np.indices(image.GetSize()[::-1])
            ball = (i - x) ** 2 + (j - y) ** 2 + (k - z) ** 2 < 12
            labels = sitk.GetImageFromArray(ball.astype(np.uint8))
            labels.CopyInformation(image)
            sitk.WriteImage(labels, str(path.with_name(path.name.replace(".nii", "_label.nii"))))
        return place

    return make


@pytest.fixture
def vessels_2d(tmp_path):
    """Three made vessels as PNG, with a curve beside each."""

    def make(folder="vessels", count=3, seed=5):
        write_vessels(tmp_path / folder, count, 2, seed, pixel_mm=PIXEL_MM)
        return tmp_path / folder

    return make


@pytest.fixture
def vessels_3d(tmp_path):
    """Three made vessels as NIfTI, with a curve beside each."""

    def make(folder="vessels", count=3, seed=5):
        write_vessels(tmp_path / folder, count, 3, seed)
        return tmp_path / folder

    return make


@pytest.fixture
def sequences(tmp_path):
    """Sequences of three frames as PNG, landmarks beside each frame."""

    def make(folder="sequences", count=2, seed=6):
        write_sequences(tmp_path / folder, count, seed, PIXEL_MM)
        return tmp_path / folder

    return make


def run_line(*words):
    """Run a command line in this process; a failure is raised as it is."""
    result = CliRunner().invoke(cli, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def cairn():
    return run_line
