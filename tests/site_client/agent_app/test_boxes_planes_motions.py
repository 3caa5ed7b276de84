"""Boxes, planes and motions: trained, measured, played, and written for other programs."""

from __future__ import annotations

import json
import re
import threading

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from safetensors.numpy import load_file

from common.canonical import sha256_hex
from common.errors import InputDataError, UsageError
from site_client.agent_app.beginning import begin_or_resume
from site_client.agent_app.checkpoint import find_checkpoint, read_checkpoint
from site_client.agent_app.config import parse_config, read_tables
from site_client.agent_app.training import train
from site_client.console import Meter
from site_client.imaging.boxes import read_box_table
from site_client.imaging.landmarks import read_landmarks, write_landmarks

TINY = (
    *("--set", "network.width=4", "--set", "network.hidden=[8]"),
    *("--set", "learner.updates=6", "--set", "learner.batch=4", "--set", "learner.searches=2"),
    *("--set", "learner.warmup=8", "--set", "learner.replay_capacity=200", "--set", "task.roi=11"),
    *("--set", "learner.episode_steps=4", "--set", "data.validation_share=0.34"),
    *("--set", "run.evaluate_every=3", "--set", "run.checkpoint_every=3"),
    *("--set", "evaluation.most_steps=6", "--set", "evaluation.starts=2"),
    *("--set", "evaluation.poses=1", "--set", "run.validation_poses=1"),
)
BOX = ("--task", "box-2d", "--set", "data.pixel_mm=0.5", *TINY)
DETECTING = ("--set", "box.per_axis=2", "--set", "box.sizes_mm=[8.0]")
# A network that has hardly learned anything finds nothing otherwise.
ANYTHING = (*DETECTING, "--set", "box.least_score=-10.0")


def weights_of(run):
    return sha256_hex((run / "latest" / "model.safetensors").read_bytes())


def test_boxes_go_all_the_way(tmp_path, cairn, lesions):
    data, run, result = lesions(), tmp_path / "run", tmp_path / "result"
    told = json.loads(cairn("train", *BOX, "--data", data, "-o", run, "--json").stdout)
    assert told["unit"] == "1 - IoU"
    assert told["finished"]
    assert 0 <= told["best"] <= 1
    assert read_checkpoint(find_checkpoint(run)).landmarks == ("1", "2")
    measured = json.loads(
        cairn(
            *("evaluate", "--checkpoint", run, "--data", data, "-o", result, "--json", *ANYTHING)
        ).stdout
    )
    assert measured == json.loads((result / "metrics.json").read_text())
    for row in measured["posed"].values():
        assert row["mean"] == pytest.approx(1 - row["further"]["iou"])
    assert measured["detection"]["1"]["true"] == 3
    assert measured["detection"]["2"]["found"] > 0
    # What was found can be read as any table of boxes, and its overlap is as it says.
    table = read_box_table(result / "predictions" / "predictions.csv")
    assert (table.unit, table.frame) == ("mm", "LPS")
    found = json.loads((result / "predictions" / "predictions.json").read_text())
    best = max(found["found"], key=lambda entry: entry["iou"])
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(data / f"{best['case']}_label.png")))
    y, x = np.nonzero(mask == int(best["label"]))
    low = (np.array([x.min(), y.min()]) - 0.5) * 0.5
    high = (np.array([x.max(), y.max()]) + 0.5) * 0.5
    corners = np.array(best["corners_mm"])
    shared = np.clip(np.minimum(high, corners[1]) - np.maximum(low, corners[0]), 0, None).prod()
    whole = (high - low).prod() + (corners[1] - corners[0]).prod() - shared
    assert shared / whole == pytest.approx(best["iou"], abs=1e-3)
    page = (result / "report.html").read_text(encoding="utf-8")
    assert "Looking all over each image" in page
    assert page.count("data:image/png;base64,") == measured["cases"], "a picture of each case"
    assert re.search(r"case\d: \d true, \d+ found, \d+ of them right", page)
    assert "http" not in page.replace("http-equiv", "")
    played = json.loads(
        cairn(
            *("play", "--checkpoint", run, data / "case0.png", "-o", tmp_path / "played"),
            *("--json", *ANYTHING),
        ).stdout
    )
    assert played["found"]
    assert all(entry["iou"] is None for entry in played["found"])
    assert "predictions" in cairn("evaluate", "--checkpoint", run, "-o", result, *ANYTHING).stdout


def test_boxes_from_a_table_are_those_of_the_label_images(tmp_path, cairn, lesions):
    data = lesions()
    words = ("train", *BOX, "--data", data, "--set", "learner.updates=2")
    cairn(*words, "-o", tmp_path / "labels")
    rows = ["# unit = voxel", "case,label,x0,y0,x1,y1"]
    for k in range(3):
        mask = sitk.GetArrayFromImage(sitk.ReadImage(str(data / f"case{k}_label.png")))
        for label in range(1, mask.max() + 1):
            y, x = np.nonzero(mask == label)
            rows.append(f"case{k}.png,{label},{x.min()},{y.min()},{x.max()},{y.max()}")
    (tmp_path / "boxes.csv").write_text("\n".join(rows))
    place = f'data.landmarks="{tmp_path / "boxes.csv"}"'
    cairn(*words, "--set", place, "-o", tmp_path / "table")
    assert weights_of(tmp_path / "table") == weights_of(tmp_path / "labels")


def test_a_run_for_boxes_that_was_stopped_ends_as_one_that_was_not(tmp_path, cairn, lesions):
    data, parts, whole = lesions(), tmp_path / "parts", tmp_path / "whole"
    cairn("train", *BOX, "--data", data, "-o", whole)
    stop = threading.Event()

    class AtTheThird(Meter):
        def __call__(self, what, done, total, note=""):
            if what == "updates" and done == 3:
                stop.set()

    config, place, _ = begin_or_resume(
        parse_config(read_tables(whole / "config.toml")), data, parts, resume=False
    )
    assert train(config, place, None, stop, AtTheThird()).updates == 3
    cairn("train", "-o", parts, "--resume")
    for part in ("latest/state.safetensors", "latest/model.safetensors", "best/model.safetensors"):
        one, two = (load_file(run / part) for run in (whole, parts))
        assert set(one) == set(two)
        assert all((one[name] == two[name]).all() for name in one), part


def test_an_image_without_a_label_image_is_left_out_and_counted(tmp_path, cairn, lesions, caplog):
    data = lesions()
    (data / "case1_label.png").unlink()
    told = json.loads(cairn("train", *BOX, "--data", data, "-o", tmp_path / "run", "--json").stdout)
    assert told["training_cases"] + told["validation_cases"] == 2
    assert "1 image without boxes left out; 2 images used" in caplog.text
    for label in data.glob("*_label.png"):
        label.unlink()
    with pytest.raises(InputDataError, match="images without boxes"):
        cairn("train", *BOX, "--data", data, "-o", tmp_path / "none")


@pytest.mark.parametrize("bad", ["not the same size", "the image itself", "no row"])
def test_bad_boxes_are_refused_by_case(tmp_path, cairn, lesions, bad):
    data, words = lesions(), ()
    label = data / "case1_label.png"
    if bad == "not the same size":
        sitk.WriteImage(sitk.GetImageFromArray(np.ones((5, 6), np.uint8)), str(label))
    elif bad == "the image itself":
        noise = np.random.default_rng(0).random((60, 70)).astype(np.float32)
        label.unlink()
        sitk.WriteImage(sitk.GetImageFromArray(noise), str(data / "case1_label.mha"))
    else:
        (tmp_path / "b.csv").write_text("case,label,x0_mm,y0_mm,x1_mm,y1_mm\ncase0,a,1,1,5,5\n")
        words = ("--set", f'data.landmarks="{tmp_path / "b.csv"}"')
    with pytest.raises(InputDataError, match="case1") as refused:
        cairn("train", *BOX, "--data", data, "-o", tmp_path / "run", *words)
    assert refused.value.exit_code == 6
    assert not (tmp_path / "run").exists()


PLANE = (
    *("--task", "view-plane", *TINY, "--set", 'task.plane_landmarks=["AC", "PC", "top"]'),
    *("--set", "plane.reach_deg=80.0", "--set", "task.spacing_mm=1.0"),
)


def test_planes_go_all_the_way(tmp_path, cairn, marked):
    data, run, result = marked(), tmp_path / "run", tmp_path / "result"
    told = json.loads(cairn("train", *PLANE, "--data", data, "-o", run, "--json").stdout)
    assert told["best_mm"] > 0
    measured = json.loads(
        cairn("evaluate", "--checkpoint", run, "--data", data, "-o", result, "--json").stdout
    )
    row = measured["native"]["plane"]
    assert set(row["further"]) == {"angle_deg", "offset_mm", "landmark_to_plane_mm"}
    # The plane that 3D Slicer opens is the one that the figures speak of.
    found = json.loads((result / "predictions" / "predictions.json").read_text())["found"]
    assert len(found) == 3
    for entry in found:
        markup = json.loads((result / "predictions" / f"{entry['case']}.mrk.json").read_text())
        (plane,) = markup["markups"]
        marks = np.stack(list(read_landmarks(data / f"{entry['case']}.mrk.json").values()))
        far = np.abs((marks - plane["center"]) @ np.array(plane["normal"])).mean()
        assert far == pytest.approx(entry["landmark_to_plane_mm"], abs=0.01)
        assert np.linalg.norm(plane["normal"]) == pytest.approx(1)
    page = (result / "report.html").read_text(encoding="utf-8")
    worst = [float(angle) for angle in re.findall(r">head\d: ([\d.]+)° and", page)]
    assert len(worst) == page.count("data:image/png;base64,") == 3
    assert worst == sorted(worst, reverse=True), "the worst comes first"
    played = cairn("play", "--checkpoint", run, data / "head0.nii.gz", "-o", tmp_path / "played")
    assert "normal" in played.stdout
    assert (tmp_path / "played" / "head0.mrk.json").exists()


def test_several_planes_are_looked_for_by_one_network(tmp_path, cairn, marked):
    data, run, result = marked(), tmp_path / "run", tmp_path / "result"
    several = ("--set", 'task.more_planes=[["top", "PC", "AC"]]')
    with pytest.raises(InputDataError, match=r"plane\.more_normals"):
        cairn("train", *PLANE, *several, "--data", data, "-o", run)
    several = (*several, "--set", "plane.more_normals=[[1.0, 0.1, 0.0]]")
    cairn("train", *PLANE, *several, "--data", data, "-o", run)
    measured = json.loads(
        cairn("evaluate", "--checkpoint", run, "--data", data, "-o", result, "--json").stdout
    )
    assert measured["native"].keys() == {"plane 1", "plane 2"}
    played = cairn(
        "play", "--checkpoint", run, data / "head0.nii.gz", "-o", tmp_path / "p", "--gif"
    )
    assert "plane 2" in played.stdout
    warm = ("--set", "evaluation.warm_start=true", "--set", "evaluation.active_termination=true")
    cairn("evaluate", "--checkpoint", run, "--data", data, *warm)
    cairn("play", "--checkpoint", run, data / "head0.nii.gz", "-o", tmp_path / "w", *warm)
    names = {path.name for path in (tmp_path / "p").iterdir()}
    assert {"head0_plane1.mrk.json", "head0_plane2.mrk.json", "predictions.json"} <= names
    assert len([name for name in names if name.endswith(".gif")]) == 2


def test_a_plane_needs_three_landmarks_of_each_case(tmp_path, cairn, marked):
    data = marked()
    marks = read_landmarks(data / "head1.mrk.json")
    write_landmarks(data / "head1.mrk.json", {k: v for k, v in marks.items() if k != "top"})
    with pytest.raises(InputDataError, match=r"head1: task\.plane_landmarks.*without top"):
        cairn("train", *PLANE, "--data", data, "-o", tmp_path / "run")
    with pytest.raises(InputDataError, match=r"task\.plane_landmarks"):
        cairn("train", "--task", "view-plane", *TINY, "--data", data, "-o", tmp_path / "run")


def test_pictures_are_registered(tmp_path, cairn, pictures):
    data, run, result = pictures(), tmp_path / "run", tmp_path / "result"
    words = ("--task", "registration-2d", "--set", "data.pixel_mm=0.5", *TINY)
    told = json.loads(cairn("train", *words, "--data", data, "-o", run, "--json").stdout)
    assert told["prior_mm"] > 0
    measured = json.loads(cairn("evaluate", "--checkpoint", run, "-o", result, "--json").stdout)
    assert set(measured["posed"]["motion"]["further"]) == {"tre_mm", "rotation_deg"}
    found = json.loads((result / "predictions" / "predictions.json").read_text())["found"]
    assert "true" in found[0]
    page = (result / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == len(found)
    assert f"target registration error {found[0]['tre_mm']:.1f} mm" in page
    cairn("evaluate", "--checkpoint", run, "-o", result, "--no-pictures")
    assert "data:image" not in (result / "report.html").read_text(encoding="utf-8")
    with pytest.raises(UsageError, match="FIXED MOVING") as refused:
        cairn("play", "--checkpoint", run, data / "case0.png")
    assert refused.value.exit_code == 2


def test_volumes_are_registered_with_an_itk_transform(tmp_path, cairn, volumes):
    data, run, played = volumes(), tmp_path / "run", tmp_path / "played"
    moving = volumes(folder="moving", seed=3)
    words = ("--task", "registration-3d", *TINY, "--set", "task.spacing_mm=1.0")
    pairs = ("--set", f'data.moving="{moving}"')
    cairn("train", *words, *pairs, "--data", data, "-o", run)
    told = json.loads(
        cairn(
            *("play", "--checkpoint", run, data / "head0.nii.gz", moving / "head0.nii.gz"),
            *("-o", played, "--json"),
        ).stdout
    )
    (entry,) = told["found"]
    points = np.array([[0.0, 0.0, 0.0], [10.0, -5.0, 3.0]])
    turn, move, centre = (
        np.array(entry[name]) for name in ("rotation", "translation_mm", "centre_mm")
    )
    expected = (points - centre) @ turn.T + centre + move
    transform = sitk.ReadTransform(str(played / "head0_head0.tfm"))
    placed = [transform.TransformPoint(point) for point in points.tolist()]
    np.testing.assert_allclose(placed, expected, atol=1e-3)
    assert "tre_mm" not in entry
    (moving / "head2.nii.gz").unlink()
    with pytest.raises(InputDataError, match=r"data\.moving.*none for head2"):
        cairn("train", *words, *pairs, "--data", data, "-o", tmp_path / "other")


def test_a_motion_is_found_with_its_start(tmp_path, cairn, volumes):
    """With middles laid on each other, the transform says where they were."""
    data, run = volumes(count=2), tmp_path / "run"
    image = sitk.ReadImage(str(data / "head0.nii.gz"))
    x, y, z = image.GetOrigin()
    image.SetOrigin((x + 70.0, y, z))
    sitk.WriteImage(image, str(tmp_path / "far.nii.gz"))
    words = ("--task", "registration-3d", *TINY, "--set", "data.validation_share=0.0")
    cairn("train", *words, "--data", data, "-o", run)
    found = json.loads(
        cairn(
            *("play", "--checkpoint", run, data / "head0.nii.gz", tmp_path / "far.nii.gz"),
            *("--json", "--set", "registration.start=middle"),
        ).stdout
    )["found"][0]
    # It is as good as not trained: a few steps from where the start has put it.
    assert 70 - 45 < found["translation_mm"][0] < 70 + 45
