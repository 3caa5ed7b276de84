"""Make a checkpoint of ours from somebody else's trained network.

The file's weights are read without running anything of it; the settings say in which
world it must be shown what it sees (`site_client.agent.import_weights`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from common.canonical import sha256_hex
from common.errors import UsageError
from common.settings import CUBE, TEAM
from site_client.agent.import_weights import LADDER, SEARCH, import_rl_medical
from site_client.agent.network import set_weights
from site_client.agent.networks import build_network
from site_client.agent_app.checkpoint import LATEST, Checkpoint, find_checkpoint, write_checkpoint
from site_client.agent_app.config import Config, parse_config

# What its networks were trained with; its volumes have voxels of a millimetre.
_SPACING_MM = 1.0


def import_checkpoint(file: Path, landmarks: Sequence[str], output: Path) -> Checkpoint:
    """Read a network's file and write a checkpoint that can be evaluated and played.

    Args:
        file: a ``.pt`` of rl-medical.
        landmarks: what its agents look for, in their order; one name for several agents
            sends all of them after it, and a name given twice sends two.
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
    set_weights(build_network(config.network, config.space, torch.Generator()), imported.weights)
    checkpoint = Checkpoint(
        config=config,
        weights=imported.weights,
        updates=0,
        landmarks=config.task.landmarks,
        origin=f"imported from rl-medical's {file.name}, SHA-256 {sha256_hex(file.read_bytes())}",
    )
    write_checkpoint(output / LATEST, checkpoint)
    find_checkpoint(output)
    return checkpoint


def _config(
    agents: int, frames: int, landmarks: Sequence[str], network: dict[str, object]
) -> Config:
    """Give the settings under which such a network was trained, and is searched with."""
    together = 1 if len(landmarks) == agents else agents
    different = list(dict.fromkeys(landmarks))
    mixed = list(landmarks) if 1 < len(different) < len(landmarks) else []
    if len(different) == 1 < len(landmarks):
        together = agents
    return parse_config(
        {
            "task": {
                "kind": CUBE if agents == 1 else TEAM,
                "landmarks": different,
                "team": mixed,
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
