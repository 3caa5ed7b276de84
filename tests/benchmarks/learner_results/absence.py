"""Landmarks cut off by a crop: how well they are told from those that are there.

X-rays and heads are cropped at random so that landmarks are lost; training images, those
that the decision is worked out on, and held-out images are cropped apart.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch

from site_client.agent.learner import Learner
from site_client.agent.network import set_some_weights
from site_client.agent.networks import build_network
from site_client.agent_app.config import Config, parse_config
from site_client.imaging.case_sets import Cases
from site_client.imaging.datasets2d import PictureCase
from site_client.imaging.planar import Picture
from site_client.kinds.landmark_absence import measured_absence
from site_client.kinds.landmarks import KIND
from site_client.kinds.values import Player
from tests.benchmarks.agent_results import data
from tests.benchmarks.agent_results.studies import Job

_POOL = 3  # pixels of 0.1 mm
_XRAYS = {
    "task": {
        "kind": "landmark-2d",
        "spacing_mm": 0.3,
        "roi": 33,
        "zooms": [1.0, 2.4],
        "channels": 1,
        "crops": 1,
    },
    # Sampling strides in working pixels: 3.2, 1.2, 0.6 and 0.3 mm.
    "ladder": {"scales": [10.0, 4.0, 2.0, 1.0], "steps_mm": [8.0, 2.5, 0.8, 0.3]},
    "pose": {
        "rotation_deg": 5.0,
        "scale_fraction": 0.05,
        "shift_mm": 10.0,
        "gamma_contrast": 0.3,
    },
    "network": {"architecture": "planar", "width": 24},
    "learner": {"searches": 64, "episode_steps": 12, "warmup": 2000, "gamma": 0.3},
    "evaluation": {"starts": 3, "poses": 1, "most_steps": 120},
}
_HEADS = {
    "task": {"kind": "landmark-3d", "crops": 2},
    "network": {"width": 16},
    "learner": {"gamma": 0.3},
    "evaluation": {"starts": 5, "poses": 1, "most_steps": 80},
}
_RECIPE = {"warm_start": 0.5, "learning_rate_end": 0.05}


def absent(seeds: list[int]) -> Iterator[Job]:
    """X-rays: case k of 150 is held out where k mod 5 is the seed's; heads: one of four."""
    for seed in seeds:
        yield f"cephalograms/seed{seed}", lambda seed=seed: _xrays(seed)
        for name in data.HEADS:
            yield f"brain/{name}/seed{seed}", lambda seed=seed, name=name: _heads(seed, name)


def _xrays(seed: int, updates: int = 1200, count: int = 150) -> dict[str, object]:
    cases, _, _ = data.cephalogram_cases(count)
    pictures = [_picture(case) for case in cases]
    held_out = [k for k in range(len(pictures)) if k % 5 == seed % 5]
    whole = Cases(data.CEPHALOGRAM_LANDMARKS, pictures=tuple(pictures))
    return _measured(_XRAYS, whole, held_out, seed, updates)


def _heads(seed: int, left_out: str, updates: int = 600) -> dict[str, object]:
    heads = data.heads()
    whole = Cases(data.BRAIN_LANDMARKS, volumes=tuple(heads.values()))
    return _measured(_HEADS, whole, [list(heads).index(left_out)], seed, updates)


def _measured(
    sections: dict, whole: Cases, held_out: list[int], seed: int, updates: int
) -> dict[str, object]:
    began = time.process_time()
    config = _config(sections, whole.landmarks, updates, seed)
    training = whole.part([k for k in range(len(whole)) if k not in held_out])
    built = KIND.build(training, config)
    task = KIND.to_learn_from(built, config)
    network = build_network(config.network, task, torch.Generator().manual_seed(seed))
    Learner(task, network, config.learner, seed).train(updates)
    trained = time.process_time() - began
    set_some_weights(network, KIND.work_out(Player(built, network, config)))
    unseen = KIND.build(whole.part(held_out), config)
    player = Player(unseen, network, config)
    searched = KIND.search(player)
    told = measured_absence(KIND, player)
    errors = unseen.task.errors(searched.agreed)
    figures = {} if told is None else {**told[0]["absent"]}
    figures.pop("roc", None)
    return {
        "updates": updates,
        "trained_s": round(trained, 1),
        "cpu_s": round(time.process_time() - began, 1),
        "consensus_mm": float(errors.mean()),
        "weights": network.absence.weights.tolist(),
        **({"absent": figures} if figures else {}),
    }


def _config(sections: dict, names: tuple[str, ...], updates: int, seed: int) -> Config:
    task = sections["task"] | {"landmarks": list(names)}
    learner = sections["learner"] | _RECIPE | {"updates": updates}
    return parse_config(sections | {"task": task, "learner": learner, "run": {"seed": seed}})


def _picture(case: data.Case2D) -> PictureCase:
    """Pool an X-ray to the working grid; its first pixel becomes the middle of nine."""
    pixels = case.image[0]
    rows, columns = (side // _POOL * _POOL for side in pixels.shape)
    blocks = pixels[:rows, :columns].reshape(rows // _POOL, _POOL, columns // _POOL, _POOL)
    pooled = np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
    size = case.spacing_mm[0]
    marks = case.landmarks_mm - (_POOL - 1) / 2 * size
    spacing = np.array([size, size])
    picture = Picture(pooled[None], size * _POOL, spacing, np.zeros(3), np.eye(3)[:, :2])
    return PictureCase(case.name, case.name, picture, marks)
