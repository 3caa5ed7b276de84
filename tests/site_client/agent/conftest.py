from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from common.plan import FederationPlan, parse_plan
from common.settings import (
    BoxSettings,
    CentrelineSettings,
    GlimpseSettings,
    LadderSettings,
    LearnerSettings,
    PlaneSettings,
    PoseSettings,
    RegistrationSettings,
)
from site_client.agent.learner import Learner
from site_client.agent.task import Outcome
from site_client.agent.tasks.box import BoxSearch
from site_client.agent.tasks.boxes import BoxCase
from site_client.agent.tasks.centreline import Centreline, CentrelineCase
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.glimpses import GlimpseCase, GlimpseSearch
from site_client.agent.tasks.landmark2d import Case2D, Landmark2D, build_cases_2d
from site_client.agent.tasks.landmark3d import Landmark3D, build_cases_3d
from site_client.agent.tasks.multi_agent import MultiAgent
from site_client.agent.tasks.plane import PlaneCase, PlaneSearch
from site_client.agent.tasks.registration import PairCase, Registration
from site_client.agent.tasks.seeds import SeedCase, SeedSearch
from site_client.agent.tasks.tracking import Tracking
from site_client.agent.tasks.triplanar import TriplanarLandmark
from site_client.agent.tasks.turned_box import TurnedBoxSearch
from site_client.agent.tasks.views import Views
from site_client.imaging.dataset import Case
from site_client.imaging.pyramids import Raster
from site_client.imaging.volumes import Volume


@pytest.fixture
def make_plan():
    """A plan small enough for a unit test, with any field of any section overridden."""

    def make(seed=5, rounds=4, **changes) -> FederationPlan:
        """Changes are a section's name and its changed fields; the others stay."""
        small = {
            "task": {"landmarks": ("A", "B"), "spacing_mm": 1.0, "roi": 13},
            "ladder": {"scales": (2.0, 1.0), "steps_mm": (4.0, 1.0)},
            "pose": {"shift_mm": 4.0},
            "network": {"width": 4},
            "learner": {
                "searches": 6,
                "episode_steps": 8,
                "updates": 12,
                "batch": 8,
                "warmup": 40,
                "replay_capacity": 200,
            },
            "evaluation": {"starts": 3},
            "experience": {"position_bins": 8},
            "rounds": {"training": rounds},
        }
        assert changes.keys() <= small.keys()
        whole = {name: values | changes.get(name, {}) for name, values in small.items()}
        return parse_plan({"name": "small", "seed": seed} | whole)

    return make


@pytest.fixture
def plan(make_plan):
    return make_plan()


@pytest.fixture
def cases():
    """Three little heads of different sizes: a bright blob at A, a dark one at B."""
    made = []
    for k, size in enumerate([(30, 34, 28), (32, 30, 30), (28, 36, 32)]):
        index = np.stack(np.meshgrid(*(np.arange(n) for n in size), indexing="ij"), axis=-1)
        a = np.array(size) / 2 + (4 - k, -5, 3)
        b = np.array(size) / 2 + (-5, 6 + k, -4)
        near_a, near_b = (((index - p) ** 2).sum(axis=-1) for p in (a, b))
        values = 120 + 120 * np.exp(-near_a / 40) - 110 * np.exp(-near_b / 40)
        voxels = np.ascontiguousarray(values.T.astype(np.uint8))
        volume = Volume(voxels, 1.0, (10.0 * k, -5.0, 7.0), np.eye(3))
        made.append(Case(f"sub-{k}", volume, volume.index_to_world(np.stack([a, b]))))
    return made


LINE = np.dtype(
    [
        ("case", "<u2"),
        ("head", "u1"),
        ("level", "u1"),
        ("action", "u1"),
        ("position", "<f4"),
    ]
)


class Line:
    """A number sought on a line of 0 to 20: forward, backward, or a trigger that ends the search.

    What is seen is the way to the truth, in two channels. The smallest task that has
    a true end, so that learner and search can be tested without images.
    """

    situation = LINE
    shape = (2, 3)
    actions, heads, levels, agents = 3, 1, 2, 1
    unit = "mm"
    steps = np.array([4.0, 1.0], np.float32)

    def __init__(self, truths=(5.0, 12.0, 17.0)):
        self._truths = np.array(truths, np.float32)

    def __len__(self):
        return len(self._truths)

    def draw(self, rng, n):
        at = np.zeros(n, LINE)
        at["case"] = rng.integers(0, len(self), n)
        at["level"] = rng.integers(0, 2, n)
        at["position"] = rng.integers(0, 21, n)
        return at

    def starts(self, rng, repeats, *, posed):
        at = np.zeros(len(self) * repeats, LINE)
        at["case"] = np.repeat(np.arange(len(self)), repeats)
        at["position"] = rng.integers(0, 21, len(at))
        return at

    def observe(self, at):
        way = np.clip(128 + 6 * (self.targets(at)[:, 0] - at["position"]), 0, 255)
        seen = np.empty((len(at), *self.shape), np.uint8)
        seen[:] = way.astype(np.uint8)[:, None, None]
        return seen

    def step(self, at):
        reached = at.copy()
        step = self.steps[at["level"]] * np.array([1, -1, 0], np.float32)[at["action"]]
        reached["position"] = np.clip(at["position"] + step, 0, 20)
        before, after = self.errors(at), self.errors(reached)
        ended = at["action"] == 2
        rewards = np.clip((before - after) / self.steps[at["level"]], -1, 1)
        rewards[ended] = np.where(before[ended] < 1, 1.0, -1.0)
        return Outcome(reached, rewards.astype(np.float32), ended)

    def rewards_of_all(self, at):
        every = np.repeat(at, 3)
        every["action"] = np.tile(np.arange(3), len(at))
        return self.step(every).rewards.reshape(len(at), 3)

    def parameters(self, at):
        return at["position"][:, None]

    def move_to(self, at, parameters):
        at["position"] = parameters[:, 0]

    def targets(self, at):
        return self._truths[at["case"]][:, None]

    def errors(self, at):
        return np.abs(at["position"] - self.targets(at)[:, 0]).astype(np.float64)

    def fractions(self, at):
        return np.repeat(at["position"][:, None] / 20.0, 3, axis=1).astype(np.float64)

    def steps_away(self, at):
        gap = at["position"] - self.targets(at)[:, 0]
        return (gap / self.steps[at["level"]])[:, None].astype(np.float64)

    def report(self, at):
        return {"place": at["position"].astype(np.float64)}


class LineQ(nn.Module):
    """Values of the line's actions from what is seen."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(8, 16)
        self.fc2 = nn.Linear(16, 3)

    def forward(self, seen, level, head):
        x = torch.cat([seen.flatten(1), nn.functional.one_hot(level, 2).float()], dim=1)
        return self.fc2(torch.relu(self.fc1(x)))


@pytest.fixture
def line():
    return Line()


@pytest.fixture
def line_settings():
    """Settings small enough for the line, with any field overridden."""

    def make(**changed) -> LearnerSettings:
        small = {
            "updates": 40,
            "batch": 8,
            "searches": 4,
            "episode_steps": 6,
            "warmup": 30,
            "replay_capacity": 100,
        }
        return LearnerSettings(**(small | changed))

    return make


@pytest.fixture
def line_learner(line, line_settings):
    """A learner on the line; equal seeds begin with equal weights."""

    def make(seed=1, keys=None, **changed) -> Learner:
        network = LineQ()
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.uniform_(-0.3, 0.3, generator=generator)
        return Learner(line, network, line_settings(**changed), seed, keys=keys)

    return make


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def volume_case():
    volume = Volume(noise(24, 26, 28), 1.0, (0.0, 0.0, 0.0), np.eye(3))
    return Case("x", volume, np.array([[10.0, 12, 14], [15, 9, 11]]))


def landmark2d(side):
    case = Case2D("x", noise(1, 50, 60), (1.0, 1.0), np.array([[20.0, 30.0], [9.0, 9.0]]))
    return Landmark2D(build_cases_2d([case]), LADDER, Views.multiscale((1, 3), roi=side))


def landmark3d(side):
    return Landmark3D(build_cases_3d([volume_case()]), LADDER, Views.history(2, roi=side))


def multi_agent(side):
    return MultiAgent(landmark3d(side), [[0, 1, 1]])


def triplanar(side):
    ladder = LadderSettings(scales=(2.0, 1.0), steps_mm=(4.0, 1.0))
    return TriplanarLandmark([volume_case()], ladder, PoseSettings(), roi=side, spacing_mm=1.0)


def box(side):
    raster = Raster(noise(1, 50, 60), (1.0, 1.0), np.eye(2))
    boxes = np.array([[(-20.0, -10), (-3, 9)], [(4, 4), (20, 15)]])
    return BoxSearch([BoxCase("x", raster, boxes)], BoxSettings(), roi=side)


def plane(side):
    volume = volume_case().volume
    planes = np.array([[volume.centre_mm, (1.0, 0.1, 0.0)]])
    settings = PlaneSettings(strides_mm=(2.0, 2.0, 1.0))
    case = PlaneCase("x", volume, planes, np.full((1, 1, 3), np.nan))
    return PlaneSearch([case], settings, roi=side)


def registration(side):
    raster = Raster(noise(1, 50, 60), (1.0, 1.0), np.eye(2))
    pair = PairCase("x", raster, raster, np.zeros(2), np.zeros((1, 2)))
    return Registration([pair], RegistrationSettings(), roi=side)


def turned_box(side):
    raster = Raster(noise(1, 50, 60), (1.0, 1.0), np.eye(2))
    boxes, turns = np.array([[(-20.0, -10), (-3, 9)], [(4, 4), (20, 15)]]), np.array([0.3, 2.0])
    return TurnedBoxSearch([BoxCase("x", raster, boxes, None, turns)], BoxSettings(), roi=side)


def seeds(side):
    pixels = noise(1, 50, 60)
    mask = np.zeros((50, 60), bool)
    mask[10:20, 15:30] = True

    def grow(pixel):
        return np.abs(pixels[0].astype(int) - int(pixels[0, pixel[1], pixel[0]])) < 40

    raster = Raster(pixels, (1.0, 1.0), np.eye(2))
    return SeedSearch([SeedCase("x", raster, (mask,), (np.array([22, 15]),), grow)], roi=side)


def glimpses(side):
    raster = Raster(noise(1, 50, 60), (1.0, 1.0), np.eye(2))
    away = np.hypot(*(np.mgrid[:50, :60] - np.array([15, 22])[:, None, None])).astype(np.float32)
    case = GlimpseCase("x", raster, (np.maximum(away - 4, 0),), (np.array([22, 15]),))
    return GlimpseSearch([case], GlimpseSettings(scales=(4.0, 1.0), reward="approach"), roi=side)


def tracking(side):
    frames = [
        Case2D(str(k), noise(1, 50, 60), (1.0, 1.0), np.array([[20.0 + 2 * k, 30.0]]))
        for k in range(3)
    ]
    views = Views.multiscale((1, 3), roi=side)
    return Tracking(build_cases_2d(frames), ["x"] * 3, Ladder((2.0, 1.0), (4.0, 1.0)), views)


def centreline(side):
    raster = Raster(noise(1, 50, 60), (1.0, 1.0), np.eye(2))
    line = np.array([(-20.0, -10.0), (0.0, 0.0), (20.0, 5.0)])
    return Centreline([CentrelineCase("x", raster, (line,))], CentrelineSettings(), roi=side)


LADDER = Ladder((3.0, 1.0), (6.0, 1.0))
FLAT = (
    landmark2d,
    triplanar,
    box,
    plane,
    registration,
    centreline,
    turned_box,
    seeds,
    glimpses,
    tracking,
)
CUBIC = (landmark3d, multi_agent)


@pytest.fixture
def make_task():
    """A little task of every kind by its name, over one made-up image."""
    makers = {make.__name__: make for make in FLAT + CUBIC}

    def make(name, side=None):
        return makers[name](side or (13 if makers[name] in FLAT else 7))

    return make
