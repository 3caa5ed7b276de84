"""Films of searches for boxes, planes and motions: from the start to the end, and true to both."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from PIL import Image

from common.settings import EvaluationSettings, PoseSettings
from site_client.agent import search
from site_client.agent.tasks.box import BoxSearch
from site_client.agent.tasks.boxes import BoxCase
from site_client.agent.tasks.plane import PlaneCase, PlaneSearch
from site_client.agent.tasks.registration import PairCase, Registration
from site_client.imaging import films
from site_client.imaging.cases import raster_of
from site_client.imaging.dataset import Case
from site_client.imaging.drawing import FOUND, PAPER, TRUTH, Overlay, draw_case, panels
from site_client.imaging.landmarks import read_landmarks, write_landmarks
from site_client.imaging.volumes import Volume
from site_client.kinds.boxes import box_frames
from site_client.kinds.plane import plane_frames
from site_client.kinds.registration import motion_frames

TINY = (
    *("--set", "network.width=4", "--set", "network.hidden=[8]"),
    *("--set", "learner.updates=4", "--set", "learner.batch=4", "--set", "learner.searches=2"),
    *("--set", "learner.warmup=8", "--set", "learner.replay_capacity=200", "--set", "task.roi=11"),
    *("--set", "learner.episode_steps=4", "--set", "data.validation_share=0.0"),
    *("--set", "evaluation.most_steps=9", "--set", "evaluation.starts=2"),
)
SETTINGS = EvaluationSettings(most_steps=120)
STILL = PoseSettings(rotation_deg=0.0, scale_fraction=0.0, shift_mm=0.0, gamma_contrast=0.0)


@pytest.fixture
def head():
    """A ball off the middle, brighter to one side."""
    z, y, x = np.mgrid[:40, :44, :48]
    ball = ((x - 26) / 16) ** 2 + ((y - 20) / 14) ** 2 + ((z - 19) / 12) ** 2 < 1
    voxels = (ball * (90 + 3 * x)).astype(np.uint8)
    return Case("head", Volume(voxels, 2.0, (-47.0, -43.0, -39.0), np.eye(3)), np.zeros((1, 3)))


def follow(task, start):
    """A search that always knows what pays, and thinks that stopping there is worth most."""
    return search.follow(task, lambda at: task.rewards_of_all(at), start, SETTINGS)


def colours(picture):
    return np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)


def shows(picture, colour):
    return int((np.abs(colours(picture) - colour).max(axis=1) < 16).sum())


def test_a_box_is_followed_to_where_it_ends(head):
    true = np.array([[[-28.0, -33.0, -26.0], [36.0, 23.0, 22.0]]])
    task = BoxSearch([BoxCase("head", raster_of(head.volume), true)], poses=STILL)
    start = task.grid(0, 0, 1, [40.0])
    followed = follow(task, start)
    assert np.array_equal(followed.steps[0], start[0])
    assert task.overlaps(followed.steps)[-1] > max(0.5, task.overlaps(start)[0])
    pictures = box_frames(task, head, followed)
    assert len({picture.size for picture in pictures}) == 1
    assert shows(pictures[-1], FOUND) > shows(pictures[0], FOUND) + 50


def test_a_plane_is_shown_as_its_cut_and_as_lines(head):
    plane = np.array([[[6.0, 0.0, 0.0], [1.0, 0.15, 0.1]]])
    case = PlaneCase("head", head.volume, plane, np.full((1, 1, 3), np.nan))
    task = PlaneSearch([case], poses=STILL)
    start = task.starts(np.random.Generator(np.random.PCG64(1)), 1, posed=False)
    followed = follow(task, start)
    assert task.errors(followed.steps)[-1] < min(2.5, task.errors(start)[0])
    pictures = plane_frames(task, head, followed)
    assert len({picture.size for picture in pictures}) == 1
    assert shows(pictures[-1], FOUND) > 100


def test_the_line_of_a_plane_lies_in_the_plane(head):
    """Where x is 10 mm everywhere, the line stands upright at that column of the slice."""
    plane = np.array([[10.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    bare, drawn = (
        np.asarray(draw_case(head, Overlay(np.zeros(3), plane=which), 192))
        for which in (None, plane)
    )
    axial = panels(head, np.zeros(3), 192)[0]
    changed = np.flatnonzero((bare != drawn).any(axis=2).any(axis=0))
    expected, _ = axial.at(head.volume.world_to_index(plane[0]))
    assert abs(changed[changed < axial.size[0]].mean() - expected) < 2
    # It is parallel to the sagittal slice, the last of the three.
    assert changed.max() < bare.shape[1] - panels(head, np.zeros(3), 192)[2].size[0]


def test_truths_stand_beside_what_was_found_in_colours_of_their_own(head):
    corners = [np.array([[-20.0, -20.0, -20.0], [10.0, 10.0, 10.0]])]
    plane = np.array([[6.0, 0.0, 0.0], [1.0, 0.15, 0.1]])
    for truth, found in (
        (Overlay(np.zeros(3), true_boxes=corners), Overlay(np.zeros(3), boxes=corners)),
        (Overlay(np.zeros(3), true_plane=plane), Overlay(np.zeros(3), plane=plane)),
    ):
        counted = shows(draw_case(head, truth), TRUTH)
        assert counted == shows(draw_case(head, replace(found, colour=FOUND)), FOUND) > 100


def test_marks_on_white_and_on_black_have_a_rim_that_is_neither():
    """A mark is seen by its rim on an image of its own brightness."""
    for grey in (0, 128, 255):
        voxels = np.full((40, 44, 48), grey, np.uint8)
        case = Case("flat", Volume(voxels, 2.0, (0, 0, 0), np.eye(3)), np.zeros((1, 3)))
        middle = case.volume.centre_mm
        marked = draw_case(case, Overlay(middle, found=[middle], truth=[middle + 8.0]))
        bare = draw_case(case, Overlay(middle))
        assert shows(marked, FOUND) > 30
        assert shows(marked, TRUTH) > 60
        if grey:
            assert shows(marked, PAPER) > shows(bare, PAPER) + 60


def test_of_a_motion_both_images_agree_once_it_is_undone(head):
    raster = raster_of(head.volume)
    task = Registration(
        [PairCase("head", raster, raster, np.zeros(3), np.zeros((1, 3)))], poses=STILL
    )
    start = task.starts(np.random.Generator(np.random.PCG64(2)), 1, posed=False)
    followed = follow(task, start)
    views = task.look(followed.steps, np.full(len(followed.steps), 1.0), 101).astype(int)
    gap = np.abs(views[:, :3] - views[:, 3:]).mean(axis=(1, 2, 3))
    assert gap[-1] < 0.3 * gap[0]
    pictures = motion_frames(task, head, followed)
    assert len({picture.size for picture in pictures}) == 1
    assert np.abs(colours(pictures[0]) - colours(pictures[-1])).max() > 50


def test_long_searches_are_thinned_and_keep_both_ends(head, monkeypatch):
    monkeypatch.setattr(films, "MOST_FRAMES", 3)
    raster = raster_of(head.volume)
    task = Registration(
        [PairCase("head", raster, raster, np.zeros(3), np.zeros((1, 3)))], poses=STILL
    )
    start = task.starts(np.random.Generator(np.random.PCG64(2)), 1, posed=False)
    followed = follow(task, start)
    assert len(followed.steps) > 6
    assert len(motion_frames(task, head, followed)) == 3


def films_in(folder):
    """Name to (frames, size) of every film."""
    found = {}
    for path in sorted(folder.glob("*.gif")):
        with Image.open(path) as film:
            found[path.name] = (film.n_frames, film.size)
    return found


def lesion(place):
    place.mkdir()
    pixels = np.full((60, 70), 40, np.uint8)
    labels = np.zeros((60, 70), np.uint8)
    labels[20:40, 25:50] = 1
    pixels[labels == 1] = 200
    for name, array in (("scan.png", pixels), ("scan_label.png", labels)):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(place / name))
    return place


def test_play_films_the_search_for_each_label(tmp_path, cairn):
    data, run, out = lesion(tmp_path / "data"), tmp_path / "run", tmp_path / "out"
    words = ("--task", "box-2d", "--set", "data.pixel_mm=0.5", *TINY)
    cairn("train", *words, "--data", data, "-o", run)
    told = cairn("play", "--checkpoint", run, data / "scan.png", "-o", out, "--gif", "--json")
    shown = films_in(out)
    assert list(shown) == ["scan_1.gif"]
    assert shown["scan_1.gif"][0] >= 2
    assert str(out / "scan_1.gif") in json.loads(told.stdout)["files"]


def test_play_films_the_search_for_a_plane(tmp_path, cairn, volumes):
    data, run, out = volumes(), tmp_path / "run", tmp_path / "out"
    for path in sorted(data.glob("*.mrk.json")):
        marks = read_landmarks(path)
        marks["top"] = marks["AC"] + np.array([1.0, 2.0, 6.0])
        write_landmarks(path, marks)
    words = ("--task", "view-plane", *TINY, "--set", 'task.plane_landmarks=["AC", "PC", "top"]')
    cairn("train", *words, "--set", "plane.reach_deg=80.0", "--data", data, "-o", run)
    cairn("play", "--checkpoint", run, data / "head0.nii.gz", "-o", out, "--gif")
    assert films_in(out)["head0_plane.gif"][0] >= 2


@pytest.mark.parametrize("kind", ["registration-2d", "registration-3d"])
def test_play_films_a_registration(tmp_path, cairn, volumes, pictures, kind):
    planar = kind.endswith("2d")
    data, run, out = pictures() if planar else volumes(), tmp_path / "run", tmp_path / "out"
    words = ("--task", kind, *TINY, *(("--set", "data.pixel_mm=0.5") if planar else ()))
    cairn("train", *words, "--data", data, "-o", run)
    names = [f"case{k}.png" if planar else f"head{k}.nii.gz" for k in (0, 1)]
    cairn("play", "--checkpoint", run, *(data / name for name in names), "-o", out, "--gif")
    ((name, (frames, _)),) = films_in(out).items()
    assert name == ("case0_case1.gif" if planar else "head0_head1.gif")
    assert frames >= 2
