"""Seeds of regions by the commands that a user types: trained, measured, played, filmed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from site_client.imaging.label_images import masks_on
from site_client.imaging.landmarks import read_landmarks

TINY = (
    *("--set", "network.width=4", "--set", "network.hidden=[8]", "--set", "task.roi=11"),
    *("--set", "learner.updates=4", "--set", "learner.batch=4", "--set", "learner.searches=2"),
    *("--set", "learner.warmup=8", "--set", "learner.replay_capacity=100"),
    *("--set", "evaluation.most_steps=6", "--set", "evaluation.starts=2"),
    *("--set", "evaluation.poses=1"),
)


@pytest.mark.parametrize(
    ("kind", "cases"),
    [("seed-2d", "lesions"), pytest.param("seed-3d", "labelled", marks=pytest.mark.slow)],
)
def test_seeds_are_trained_measured_played_and_filmed(tmp_path, cairn, request, kind, cases):
    data = request.getfixturevalue(cases)(count=2)
    flat = kind == "seed-2d"
    pixels = ("--set", "data.pixel_mm=0.5") if flat else ("--set", "task.spacing_mm=1.0")
    run, result, out = (tmp_path / name for name in ("run", "result", "out"))
    words = ("--task", kind, *TINY, *pixels, "--data", data, "-o", run, "--json")
    told = json.loads(cairn("train", *words).stdout)
    assert 0 <= told["best"] <= 1
    words = ("--checkpoint", run, "--data", data, "-o", result, "--pictures", "--json")
    measured = json.loads(cairn("evaluate", *words).stdout)
    native = measured["native"]["1"]
    assert native["unit"] == "1 - Dice"
    assert native["further"]["dice"] == pytest.approx(1 - native["mean"], abs=1e-6)
    page = (result / "report.html").read_text(encoding="utf-8")
    assert "1: Dice" in page
    image = data / ("case0.png" if flat else "head0.nii.gz")
    name = image.name.partition(".")[0]
    played = cairn("play", "--checkpoint", run, image, "-o", out, "--gif")
    assert "region" in played.stdout
    assert (out / f"{name}_1.gif").exists()
    assert "1" in read_landmarks(out / f"{name}.mrk.json")
    region = sitk.ReadImage(str(out / f"{name}_1_region{'.mha' if flat else '.nii.gz'}"))
    values = sitk.GetArrayFromImage(region)
    assert set(np.unique(values)) <= {0, 1}
    found = json.loads((out / "predictions.json").read_text())["found"]
    size = "mm2" if flat else "mm3"
    volume = values.sum() * float(np.prod(region.GetSpacing()))
    assert found[0][size] == pytest.approx(volume, rel=1e-3)
    assert "dice" not in found[0]


def test_a_mask_lies_where_its_image_does(tmp_path, labelled):
    from site_client.imaging.dataset import Case
    from site_client.imaging.volumes import read_volume

    data = labelled(count=1)
    volume = read_volume(data / "head0.nii.gz", 1.0)
    case = Case("head0", volume, np.empty((0, 3)))
    masks = masks_on(data / "head0_label.nii.gz", ["1", "7"], case)
    assert list(masks) == ["1"]
    spot = read_landmarks(data / "head0.mrk.json")["AC"]
    middle = np.argwhere(masks["1"]).mean(axis=0)[::-1]
    np.testing.assert_allclose(volume.index_to_world(middle), spot, atol=0.6)
