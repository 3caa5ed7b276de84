from __future__ import annotations

import numpy as np
import pytest

from common.plan import FederationPlan, parse_plan
from site_client.imaging.dataset import Case
from site_client.imaging.volumes import Volume


@pytest.fixture
def make_plan():
    """A plan small enough for a unit test, with any field of the agent overridden."""

    def make(seed=5, rounds=4, **agent) -> FederationPlan:
        small = {
            "scales": (2.0, 1.0),
            "steps_mm": (4.0, 1.0),
            "searches": 6,
            "episode_steps": 8,
            "updates": 3,
            "batch": 8,
            "warmup": 40,
            "replay_capacity": 200,
            "shift_mm": 4.0,
            "evaluation_starts": 3,
        }
        return parse_plan(
            {
                "name": "small",
                "seed": seed,
                "task": {"landmarks": ("A", "B"), "working_spacing_mm": 1.0},
                "model": {"roi": 13, "width": 4},
                "agent": small | agent,
                "experience": {"position_bins": 8},
                "rounds": {"training": rounds},
            }
        )

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
