"""Turned boxes by the commands that a user types: trained, measured, played, filmed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from common.errors import InputDataError
from site_client.imaging.label_images import turned_boxes_in_picture

WORDS = (
    *("--task", "turned-box-2d", "--set", "data.pixel_mm=0.5", "--set", "task.roi=11"),
    *("--set", "network.width=4", "--set", "network.hidden=[8]", "--set", "learner.updates=4"),
    *("--set", "learner.batch=4", "--set", "learner.searches=2", "--set", "learner.warmup=8"),
    *("--set", "learner.replay_capacity=100", "--set", "evaluation.most_steps=6"),
    *("--set", "evaluation.starts=2", "--set", "evaluation.poses=1"),
)


def test_turned_boxes_are_trained_measured_played_and_filmed(tmp_path, cairn, lesions):
    data, (run, result, out) = lesions(count=2), (tmp_path / n for n in ("run", "result", "out"))
    told = json.loads(cairn("train", *WORDS, "--data", data, "-o", run, "--json").stdout)
    assert 0 < told["best"] <= 1
    words = ("--checkpoint", run, "--data", data, "-o", result, "--pictures")
    measured = json.loads(cairn("evaluate", *words, "--json").stdout)
    assert set(measured["native"]) == {"1", "2"}
    assert {"iou", "angle_deg"} <= set(measured["native"]["1"]["further"])
    page = (result / "report.html").read_text(encoding="utf-8")
    assert "case0, 1: IoU" in page
    found = json.loads((result / "predictions" / "predictions.json").read_text())["found"]
    assert {"iou", "off_deg", "angle_deg", "sides_mm"} <= set(found[0])
    assert found[0]["sides_mm"][0] >= found[0]["sides_mm"][1]
    played = cairn("play", "--checkpoint", run, data / "case0.png", "-o", out, "--gif")
    assert "agreement" in played.stdout
    assert (out / "case0_1.gif").exists()
    rows = (out / "predictions.csv").read_text().splitlines()
    assert rows[2].startswith("case,label,x0_mm,y0_mm,z0_mm,x1_mm")


def test_a_table_has_no_angles_and_is_refused(tmp_path, cairn, lesions):
    table = tmp_path / "boxes.csv"
    table.write_text("case,label,x0_mm,y0_mm,x1_mm,y1_mm\ncase0,1,1,1,5,5\n")
    with pytest.raises(InputDataError, match="a table of boxes does not say how things lie"):
        cairn(
            *("train", *WORDS, "--data", lesions(), "-o", tmp_path / "run"),
            *("--set", f"data.landmarks={table}"),
        )


def test_the_box_of_a_label_lies_as_its_pixels_do(tmp_path):
    y, x = np.mgrid[:100, :120]
    away = np.stack([x - 60.0, y - 40.0], axis=-1)
    c, s = np.cos(np.deg2rad(30)), np.sin(np.deg2rad(30))
    inside = (np.abs(away @ (c, s)) < 25) & (np.abs(away @ (-s, c)) < 8)
    for name, pixels in (("a.png", 40 * inside), ("a_label.png", inside)):
        sitk.WriteImage(sitk.GetImageFromArray(pixels.astype(np.uint8)), str(tmp_path / name))
    ((label, box),) = turned_boxes_in_picture(
        tmp_path / "a_label.png", tmp_path / "a.png", np.array([0.5, 0.5])
    )
    assert label == "1"
    np.testing.assert_allclose(box[:2], (30, 20), atol=0.3)
    np.testing.assert_allclose(box[2:4], (25, 8), atol=0.8)
    assert np.rad2deg(box[4]) == pytest.approx(30, abs=1.5)
