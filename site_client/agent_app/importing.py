"""Somebody else's trained network as a checkpoint of ours, and the world it must be shown.

The file's weights are read without running anything of it; what rl-medical's
agents saw (a turned axis, skipped voxels, a window off its middle) is arranged
around them, and undone in what they find.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from common.canonical import sha256_hex
from common.errors import UsageError
from site_client.agent.import_weights import (
    LADDER,
    SEARCH,
    as_rl_medical_saw,
    import_rl_medical,
    in_the_world,
    onto_voxels,
)
from site_client.agent.network import set_weights
from site_client.agent.networks import build_network
from site_client.agent.settings import PoseSettings
from site_client.agent.task import Situations
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.landmark3d import Cases3D, Landmark3D
from site_client.agent.tasks.poses import native_poses
from site_client.agent.tasks.views import Views
from site_client.agent_app.checkpoint import LATEST, Checkpoint, find_checkpoint, write_checkpoint
from site_client.agent_app.config import Config, parse_config

# What its networks were trained with; its volumes have voxels of a millimetre.
_SPACING_MM = 1.0


class RlMedicalCube(Landmark3D):
    """A search in cubes as rl-medical's agents knew it: voxel by voxel, nothing pooled.

    Args:
        cases: laid out as ours; they are turned here.
        ladder, views, poses: see `Landmark3D`.
    """

    def __init__(self, cases: Cases3D, ladder: Ladder, views: Views, poses: PoseSettings) -> None:
        super().__init__(as_rl_medical_saw(cases), ladder, views, poses, nearest=True)

    def start_positions(self, rng: np.random.Generator, at: Situations) -> None:
        """Evaluation starts; on a voxel where the image is as acquired."""
        super().start_positions(rng, at)
        straight = (at["pose"] == native_poses(1, 3)).all(axis=1)
        if straight.any():
            snapped = at[straight]
            onto_voxels(self, snapped)
            at[straight] = snapped

    def world_mm(
        self, case: NDArray[np.int64], positions: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """float64[n, 3], LPS: where positions as acquired, float32[n, 3], are in the patient."""
        at = np.zeros(len(case), self.situation)
        at["case"], at["position"], at["pose"] = case, positions, native_poses(1, 3)
        return in_the_world(self, at)


def import_checkpoint(file: Path, landmarks: Sequence[str], output: Path) -> Checkpoint:
    """Read a network's file and write a checkpoint that can be evaluated and played.

    Args:
        file: a ``.pt`` of rl-medical.
        landmarks: what its agents look for, in their order; one name for several agents
            sends all of them after it.
        output: folder of the checkpoint.

    Raises:
        UsageError: another number of landmarks, or a folder that holds a checkpoint.
        InputDataError: no network that is known, unsafe or damaged.
    """
    imported = import_rl_medical(file)
    if len(landmarks) not in {1, imported.agents}:
        raise UsageError(
            "the landmarks do not fit the network",
            field="--landmark",
            expected=f"{imported.agents} names, or one that all its agents look for"
            if imported.agents > 1
            else "one name",
            got=f"{len(landmarks)} names",
        )
    if (output / LATEST).exists():
        raise UsageError("the folder holds a checkpoint already", field=str(output))
    config = _config(imported.agents, imported.frames, landmarks, imported.settings.model_dump())
    sizes = _Sizes(config, imported.agents)
    network = build_network(imported.settings, sizes, torch.Generator())
    set_weights(network, imported.weights)
    checkpoint = Checkpoint(
        config=config,
        weights=imported.weights,
        updates=0,
        landmarks=tuple(landmarks),
        origin=f"imported from rl-medical's {file.name}, SHA-256 {sha256_hex(file.read_bytes())}",
    )
    write_checkpoint(output / LATEST, checkpoint)
    find_checkpoint(output)
    return checkpoint


class _Sizes:
    """The sizes of a task that has no images yet, for a network to fit."""

    def __init__(self, config: Config, agents: int) -> None:
        roi = config.task.roi
        self.shape: tuple[int, ...] = (config.task.frames, roi, roi, roi)
        self.actions, self.heads, self.levels = 6, 1, len(config.ladder.scales)
        self.agents = agents


def _config(
    agents: int, frames: int, landmarks: Sequence[str], network: dict[str, object]
) -> Config:
    """The settings under which such a network was trained, and is searched with."""
    together = 1 if len(landmarks) == agents else agents
    return parse_config(
        {
            "task": {
                "kind": "landmark-3d-cube" if agents == 1 else "multi-agent-3d",
                "landmarks": list(landmarks),
                "spacing_mm": _SPACING_MM,
                "frames": frames,
                "agents_per_landmark": together,
                "world": "rl-medical",
            },
            "ladder": {
                "scales": [stride / _SPACING_MM for stride in LADDER.strides_mm],
                "steps_mm": list(LADDER.steps_mm),
            },
            "network": network,
            "evaluation": SEARCH.model_dump(),
        }
    )
