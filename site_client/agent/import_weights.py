"""rl-medical's trained networks as ours: names, axes, actions, and the world they saw.

Nothing of a weights file is run (`site_client.agent.networks.torch_files`). What
differs between the two systems is written down here once: order of the axes and of
the actions, the direction of the y axis, and a window that is not centred.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from common.model import Weights
from common.settings import EvaluationSettings, NetworkSettings, PoseSettings
from site_client.agent.networks.torch_files import read_torch_file
from site_client.agent.task import Situations
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.landmark3d import Cases3D, Landmark3D
from site_client.agent.tasks.poses import native_poses
from site_client.agent.tasks.views import Views

# Their actions are z+, y+, x+, x-, y-, z-; ours are x+, x-, y+, y-, z+, z-.
_THEIR_ACTION = [2, 3, 1, 4, 0, 5]
# Their y axis points forward, that of LPS backward.
AXES = np.array([1.0, -1.0, 1.0])
# At the finest scale the middle of their window lies one voxel before the agent.
_WINDOW_SHIFT_MM = 1.0
_SIDE_AFTER_TRUNK = 2

LADDER = Ladder((3.0, 2.0, 1.0), (9.0, 3.0, 1.0))
SEARCH = EvaluationSettings(most_steps=200, visits=4)


@dataclass(frozen=True, eq=False)
class ImportedNetwork:
    """A network that was trained by rl-medical.

    Attributes:
        settings: build a network with them, then set the weights.
        agents: how many search together.
        frames: positions that it sees at once, the present one last.
        weights: named, shaped and ordered as ours.
    """

    settings: NetworkSettings
    agents: int
    frames: int
    weights: Weights


def import_rl_medical(path: Path) -> ImportedNetwork:
    """Read a ``.pt`` file of rl-medical: a state_dict, or a training checkpoint.

    Raises:
        InputDataError: unsafe or damaged, or neither its Network3D nor its CommNet.
    """
    return from_rl_medical(read_torch_file(path))


def from_rl_medical(state: Mapping[str, NDArray[np.generic]]) -> ImportedNetwork:
    """The tensors of its Network3D or CommNet, arranged as ours.

    Raises:
        InputDataError: other names or shapes, another type, or a value not finite.
    """
    # Mixes rewards in training; no part of what the network answers.
    state = {name: value for name, value in state.items() if name != "rew_att"}
    agents = sum(name.startswith("fc1.") and name.endswith(".weight") for name in state)
    attention = "comm_att1.0" in state
    first = state.get("conv0.weight", np.empty(0)).shape
    talks = state.get("fc1.0.weight", np.empty(0)).shape[-1:] == (1024,)
    frames = first[1] if len(first) == 5 else 0
    _check(state, _their_shapes(agents, frames, talks=talks, attention=attention))
    return ImportedNetwork(
        settings=NetworkSettings(
            architecture="commnet" if talks else "network3d", attention=attention
        ),
        agents=agents,
        frames=frames,
        weights=_arranged({name: np.asarray(value, np.float32) for name, value in state.items()}),
    )


def as_rl_medical_saw(cases: Cases3D) -> Cases3D:
    """Cases in the world its networks were trained in.

    Their y axis is turned round, strides skip voxels instead of pooling them, and
    landmarks lie where the middle of the window is when the agent has found them.
    `in_the_world` turns what was found back.

    Args:
        cases: volumes of 1 mm; intensities clipped at the 10th and 99th percentile.
    """
    return Cases3D(
        images=replace(
            cases.images,
            levels=np.ones_like(cases.images.levels),
            directions=AXES[:, None] * cases.images.directions,
        ),
        landmarks_mm=cases.landmarks_mm * AXES - _WINDOW_SHIFT_MM,
        middles_mm=cases.middles_mm,
        names=cases.names,
    )


def in_the_world(task: Landmark3D, situations: Situations) -> NDArray[np.float64]:
    """float64[n, 3]: where agents in `as_rl_medical_saw` cases ended, LPS mm."""
    offsets = (task.native(situations) + _WINDOW_SHIFT_MM) * AXES
    return np.asarray(offsets + task.cases.middles_mm[situations["case"]])


def onto_voxels(task: Landmark3D, situations: Situations) -> None:
    """Move situations as acquired to the nearest voxel, in place: its agents stood nowhere else."""
    case = situations["case"].astype(np.int64)
    images = task.images
    index = np.rint(images.index(task.native(situations), case))
    along = index * images.spacing_mm[case] + images.first_mm[case]
    native = np.einsum("nj,nij->ni", along, images.directions[case])
    task.move_to(situations, native.astype(np.float32))


class RlMedicalCube(Landmark3D):
    """A search in cubes as rl-medical's agents knew it: voxel by voxel, nothing pooled.

    Args:
        cases: laid out as ours; they are turned here.
        ladder, views, poses: see `Landmark3D`.
    """

    def __init__(self, cases: Cases3D, ladder: Ladder, views: Views, poses: PoseSettings) -> None:
        super().__init__(as_rl_medical_saw(cases), ladder, views, poses, nearest=True)

    def start_positions(self, rng: np.random.Generator, situations: Situations) -> None:
        """Draw evaluation starts; on a voxel where the image is as acquired."""
        super().start_positions(rng, situations)
        straight = (situations["pose"] == native_poses(1, 3)).all(axis=1)
        if straight.any():
            snapped = situations[straight]
            onto_voxels(self, snapped)
            situations[straight] = snapped

    def world_mm(
        self, case: NDArray[np.int64], positions: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Give float64[n, 3], LPS mm: where positions as acquired, float32[n, 3], are."""
        situations = np.zeros(len(case), self.situation)
        situations["case"], situations["position"], situations["pose"] = (
            case,
            positions,
            native_poses(1, 3),
        )
        return in_the_world(self, situations)


def _arranged(theirs: Weights) -> Weights:
    """Their tensors under our names, our order of axes and of actions."""
    agents = sum(name.startswith("fc1.") and name.endswith(".weight") for name in theirs)
    weights: Weights = {}
    for i in range(4):
        kernel = theirs[f"conv{i}.weight"].transpose(0, 1, 4, 3, 2)
        weights[f"trunk.conv{i}.weight"] = kernel
        weights[f"trunk.conv{i}.bias"] = theirs[f"conv{i}.bias"]
        weights[f"trunk.prelu{i}.weight"] = theirs[f"prelu{i}.weight"]
    for i, layer in enumerate(("fc.0", "fc.1", "heads"), start=1):
        for part in ("weight", "bias"):
            weights[f"{layer}.{part}"] = np.stack(
                [theirs[f"fc{i}.{agent}.{part}"] for agent in range(agents)]
            )
    weights["fc.0.weight"] = _axes_reversed(weights["fc.0.weight"])
    for part in ("weight", "bias"):
        weights[f"heads.{part}"] = weights[f"heads.{part}"][:, _THEIR_ACTION]
    for i in range(2):
        slopes = [theirs[f"prelu{4 + i}.{agent}.weight"] for agent in range(agents)]
        weights[f"prelu.{i}.weight"] = np.concatenate(slopes)
    for i in range(3) if "comm_att1.0" in theirs else ():
        weights[f"attend{i}"] = np.stack([theirs[f"comm_att{i + 1}.{a}"] for a in range(agents)])
    return {name: np.ascontiguousarray(value) for name, value in weights.items()}


def _axes_reversed(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Dense weights [..., in] on features (x, y, z) as ones on features (z, y, x)."""
    side = _SIDE_AFTER_TRUNK
    shape = (*weight.shape[:-1], -1, side, side, side)
    return weight.reshape(shape).swapaxes(-1, -3).reshape(weight.shape)


def _their_shapes(
    agents: int, frames: int, *, talks: bool, attention: bool
) -> dict[str, tuple[int, ...]]:
    """Name to shape of every tensor of its networks."""
    shapes: dict[str, tuple[int, ...]] = {}
    convolutions = ((frames, 32, 5), (32, 32, 5), (32, 64, 4), (64, 64, 3))
    for i, (inputs, outputs, kernel) in enumerate(convolutions):
        shapes[f"conv{i}.weight"] = (outputs, inputs, kernel, kernel, kernel)
        shapes[f"conv{i}.bias"] = (outputs,)
        shapes[f"prelu{i}.weight"] = (1,)
    for agent in range(agents):
        for i, (inputs, outputs) in enumerate(((512, 256), (256, 128), (128, 6)), start=1):
            shapes[f"fc{i}.{agent}.weight"] = (outputs, inputs * (2 if talks else 1))
            shapes[f"fc{i}.{agent}.bias"] = (outputs,)
            if attention:
                shapes[f"comm_att{i}.{agent}"] = (agents,)
        shapes[f"prelu4.{agent}.weight"] = shapes[f"prelu5.{agent}.weight"] = (1,)
    return shapes


def _check(state: Mapping[str, NDArray[np.generic]], shapes: dict[str, tuple[int, ...]]) -> None:
    if set(state) != set(shapes) or not any(name.startswith("fc1.") for name in shapes):
        raise InputDataError(
            "not the weights of rl-medical's Network3D or CommNet",
            expected=f"{len(shapes)} names",
            got=f"{len(set(shapes) - set(state))} missing, {len(set(state) - set(shapes))} unknown",
        )
    for name, shape in shapes.items():
        value = state[name]
        finite = value.dtype == np.float32 and bool(np.isfinite(value).all())
        if value.shape != shape or not finite:
            raise InputDataError(
                "not the weights of rl-medical's Network3D or CommNet",
                field=name,
                expected=f"finite float32{list(shape)}",
                got=f"{value.dtype}{list(value.shape)}" + ("" if finite else ", not finite"),
            )
