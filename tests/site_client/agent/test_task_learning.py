"""Whether a network learns each search from what it sees, on made-up images it was not shown."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.settings import (
    BoxSettings,
    EvaluationSettings,
    LearnerSettings,
    NetworkSettings,
    PlaneSettings,
    PoseSettings,
    RegistrationSettings,
)
from site_client.agent.evaluation import evaluate
from site_client.agent.learner import Learner
from site_client.agent.networks import build_network
from site_client.agent.search import greedy_search
from site_client.agent.tasks.box import BoxSearch
from site_client.agent.tasks.boxes import BoxCase
from site_client.agent.tasks.contrasts import recontrasted
from site_client.agent.tasks.detection import detect, judge
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.landmark2d import Case2D, Landmark2D, build_cases_2d
from site_client.agent.tasks.plane import PlaneCase, PlaneSearch
from site_client.agent.tasks.registration import PairCase, Registration
from site_client.agent.tasks.views import Views
from site_client.imaging.pyramids import Raster
from site_client.imaging.volumes import Volume

# Half a minute of processor time each; a busy machine takes far longer.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
LEARNING = LearnerSettings(updates=700, warmup=500, replay_capacity=20_000)
SEARCHING = EvaluationSettings(starts=3, poses=2, native=False)


def learned(task, updates=700):
    settings = LEARNING.model_copy(update={"updates": updates})
    architecture = NetworkSettings(architecture="planar", width=12, hidden=(128,))
    network = build_network(architecture, task, torch.Generator().manual_seed(0))
    Learner(task, network, settings, seed=1).train(updates)
    return network


def smooth(rng, shape, grain):
    """Noise in -1..1 that varies over `grain` pixels."""
    coarse = rng.normal(size=[n // grain + 2 for n in shape])
    for axis, n in enumerate(shape):
        at = np.arange(n) / grain
        low = at.astype(int)
        part = at - low
        part = part.reshape([-1 if a == axis else 1 for a in range(len(shape))])
        coarse = coarse.take(low, axis) * (1 - part) + coarse.take(low + 1, axis) * part
    return np.tanh(coarse)


def ovals(rng, shape, spots):
    """A body on a dark background with soft spots: (centre from the middle, radii, brightness)."""
    index = np.stack(np.indices(shape)[::-1], axis=-1) - (np.array(shape[::-1]) - 1) / 2
    body = ((index / (np.array(shape[::-1]) * 0.45)) ** 2).sum(axis=-1) < 1
    values = 90 + 25 * smooth(rng, shape, 9)
    for centre, radii, brightness in spots:
        values += brightness * np.exp(-((((index - centre) / radii) ** 2).sum(axis=-1) ** 2))
    return np.clip(values * body, 0, 255).astype(np.uint8)


def face(rng, shape=(96, 90)):
    """Two eyes, a mouth: (image, the right eye and the mouth)."""
    move = rng.uniform(-6, 6, 2)
    left, right, mouth = (np.array(p) + move for p in [(-16, -14), (16, -14), (0, 22)])
    spots = [(left, 6, 110), (right, 6, 110), (mouth, (13, 5), -80)]
    return ovals(rng, shape, spots), np.stack([right, mouth]) + (np.array(shape[::-1]) - 1) / 2


def test_points_of_faces_are_learned():
    rng = np.random.default_rng(0)
    faces = [Case2D(str(k), i[None], (1.0, 1.0), p) for k in range(16) for i, p in [face(rng)]]
    cases = build_cases_2d(faces)
    ladder = Ladder((2.0, 1.0), (6.0, 1.0))
    shown, kept = (
        Landmark2D(cases.subset(some), ladder, Views.multiscale((1, 2), roi=25))
        for some in (np.arange(12), np.arange(12, 16))
    )
    report = evaluate(kept, learned(shown), SEARCHING, seed=2)
    start = kept.errors(kept.starts(np.random.default_rng(3), 5, posed=True)).mean()
    assert report.mean < start / 5


def lesions(rng, name):
    """One or two bright ovals somewhere in a body."""
    boxes, spots = [], []
    for side in (-1, 1)[: rng.integers(1, 3)]:
        centre = np.array([side * rng.uniform(14, 22), rng.uniform(-18, 18)])
        radii = rng.uniform(6, 13, 2)
        spots.append((centre, radii, 110))
        boxes.append((centre - radii, centre + radii))
    pixels = ovals(rng, (90, 96), spots)[None]
    return BoxCase(name, Raster(pixels, (1.0, 1.0), np.eye(2)), np.array(boxes))


def test_boxes_around_lesions_are_learned():
    rng = np.random.default_rng(0)
    cases = [lesions(rng, str(k)) for k in range(24)]
    shown, kept = BoxSearch(cases[:18], roi=21), BoxSearch(cases[18:], roi=21)
    network = learned(shown, 1000)
    start = kept.starts(np.random.default_rng(3), 5, posed=True)
    found = greedy_search(kept, network, start, SEARCHING)
    assert kept.report(found)["hit"].mean() > 0.8
    assert kept.overlaps(found).mean() > 3 * kept.overlaps(start).mean()
    all_over = BoxSettings(per_axis=4, sizes_mm=(12.0, 30.0))
    detections = [detect(kept, network, case, settings=all_over) for case in range(6)]
    report = judge(detections, [kept.true_boxes(case, 0) for case in range(6)])
    assert report.recall > 0.8
    assert report.precision > 0.7


def halves(rng, name):
    """A body whose two halves mirror each other at a slanted plane."""
    normal = np.array([1.0, *rng.uniform(-0.25, 0.25, 2)])
    normal /= np.linalg.norm(normal)
    offset = rng.uniform(-5, 5)
    shape = (44, 48, 46)
    index = np.stack(np.indices(shape)[::-1], axis=-1) - (np.array(shape[::-1]) - 1) / 2
    side = index @ normal - offset
    spots = [(16.0, 4.0, 6.0), (16.0, -10.0, -4.0)]
    values = 60 + 90 * np.exp(-((side / 3) ** 2)) + 15 * smooth(rng, shape, 9)
    for far, y, z in spots:
        gap = (np.abs(side) - far) ** 2 + (index[..., 1] - y) ** 2 + (index[..., 2] - z) ** 2
        values += 90 * np.exp(-gap / 40)
    # One half is darker, so that left and right differ.
    values = np.where(side > 0, values, 0.7 * values)
    voxels = np.clip(values, 0, 255).astype(np.uint8)
    volume = Volume(voxels, 2.0, (0.0, 0.0, 0.0), np.eye(3))
    plane = np.stack([volume.centre_mm + 2.0 * offset * normal, normal])
    return PlaneCase(name, volume, plane[None], np.full((1, 1, 3), np.nan))


def test_view_planes_are_learned():
    rng = np.random.default_rng(0)
    cases = [halves(rng, str(k)) for k in range(12)]
    settings = PlaneSettings(strides_mm=(4.0, 4.0, 3.0), reach_deg=35, reach_mm=30)
    poses = PoseSettings(rotation_deg=8.0, shift_mm=6.0)
    shown, kept = (PlaneSearch(some, settings, poses, roi=21) for some in (cases[:9], cases[9:]))
    start = kept.starts(np.random.default_rng(3), 10, posed=True)
    before = kept.report(start)
    found = kept.report(greedy_search(kept, learned(shown), start, SEARCHING))
    assert found["angle_deg"].mean() < before["angle_deg"].mean() / 2.5
    assert found["offset_mm"].mean() < before["offset_mm"].mean() / 2.5


def two_modalities(rng, name):
    """The same body twice, once in another contrast."""
    spots = [
        (rng.uniform(-25, 25, 2), rng.uniform(5, 12, 2), rng.choice([-60, 100])) for _ in range(6)
    ]
    pixels = ovals(rng, (100, 90), spots)[None]
    points = np.array([centre for centre, _, _ in spots])
    fixed = Raster(pixels, (1.0, 1.0), np.eye(2))
    moving = Raster(recontrasted(pixels), (1.0, 1.0), np.eye(2))
    return PairCase(name, fixed, moving, np.zeros(2), points)


def test_registration_of_two_modalities_is_learned():
    rng = np.random.default_rng(0)
    cases = [two_modalities(rng, str(k)) for k in range(24)]
    settings = RegistrationSettings(strides_mm=(3.0, 3.0, 3.0))
    shown, kept = (Registration(some, settings, roi=33) for some in (cases[:20], cases[20:]))
    start = kept.starts(np.random.default_rng(3), 10, posed=True)
    found = greedy_search(kept, learned(shown, 1000), start, SEARCHING)
    assert kept.report(found)["tre_mm"].mean() < kept.report(start)["tre_mm"].mean() / 2.5
