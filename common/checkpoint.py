"""The form of a checkpoint: a folder of weights and of all that is needed to use them.

``cairn-site train``, a site at the end of a run and the aggregator write the same form,
and ``evaluate`` and ``play`` read it. Data only: safetensors and JSON; nothing in such a
folder is code, and nothing is unpickled. No torch, no images, no network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from common.arrivals.texts import json_of
from common.canonical import sha256_hex
from common.errors import InputDataError, UsageError
from common.model import Weights
from common.plan import FederationPlan
from common.settings import FEDERATED, KINDS, AgentSettings, sections_of

FORMAT: Final = "cairn-agent-checkpoint/1"
MODEL_FILE: Final = "model.safetensors"
STATE_FILE: Final = "state.safetensors"
ABOUT_FILE: Final = "checkpoint.json"
# Where a run of training keeps its checkpoints, the better first.
_OF_A_RUN: Final = ("best", "latest")


def saved(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the bytes of a safetensors file; equal arrays give equal bytes."""
    contiguous = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    # ascontiguousarray makes a vector of a scalar; the shape is part of the state.
    return safetensors.numpy.save(
        {name: value.reshape(np.shape(arrays[name])) for name, value in contiguous.items()}
    )


def loaded_weights(data: bytes, what: str = MODEL_FILE) -> Weights:
    """Read weights from the bytes of a safetensors file.

    Raises:
        InputDataError: it is none.
    """
    try:
        return {name: np.asarray(a) for name, a in safetensors.numpy.load(data).items()}
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputDataError(
            "not a model", field=what, expected="safetensors", got=type(error).__name__
        ) from error


@dataclass(frozen=True, eq=False)
class CheckpointFiles:
    """A checkpoint as it lies in its folder, by its digests.

    Attributes:
        about: what ``checkpoint.json`` says; no entry of it is checked.
        weights: the network's.
        state: the learner's; None where it was not read.
    """

    about: dict[str, Any]
    weights: Weights
    state: dict[str, NDArray[np.generic]] | None


def read_folder(place: Path, *, with_state: bool = False) -> CheckpointFiles:
    """Read a checkpoint's files and check their digests.

    Raises:
        InputDataError: incomplete, damaged, or of another version.
        UsageError: its state is wanted and it has none.
    """
    try:
        about = json_of((place / ABOUT_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise damaged_checkpoint(place / ABOUT_FILE) from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise InputDataError(
            "not a checkpoint of this version", field=str(place / ABOUT_FILE), expected=FORMAT
        )
    weights = _arrays(place / MODEL_FILE, about.get("model_sha256"))
    if with_state and not about.get("state_sha256"):
        raise UsageError(
            "a run cannot go on from here", field=str(place), expected="a latest checkpoint"
        )
    state = _arrays(place / STATE_FILE, about["state_sha256"]) if with_state else None
    return CheckpointFiles(about, weights, state)


def damaged_checkpoint(path: Path) -> InputDataError:
    """Make the error of a file that is not as it was written."""
    return InputDataError(
        "the checkpoint is damaged",
        field=str(path),
        expected="as it was written, by its digest",
        got="something else" if path.exists() else "no such file",
    )


def _arrays(path: Path, digest: object) -> dict[str, NDArray[Any]]:
    try:
        data = path.read_bytes()
        if sha256_hex(data) == digest:
            return dict(safetensors.numpy.load(data))
    except (OSError, safetensors.SafetensorError) as error:
        raise damaged_checkpoint(path) from error
    raise damaged_checkpoint(path)


def about_checkpoint(
    model: bytes,
    config: Mapping[str, object],
    landmarks: tuple[str, ...],
    *,
    origin: str,
    updates: int,
    state: bytes = b"",
    **measured: object,
) -> bytes:
    """Write ``checkpoint.json``.

    Args:
        model: bytes of ``model.safetensors``.
        config: sections of the configuration; what is left out has its default.
        landmarks: names of what the heads look for.
        origin: where the weights come from, in words.
        updates: gradient steps that they were trained for.
        state: bytes of ``state.safetensors``, if there is one.
        measured: ``validation_mm``, ``best_mm``, ``prior_mm`` and ``data_sha256``, where known.
    """
    about = {
        "format": FORMAT,
        "origin": origin,
        "updates": updates,
        "landmarks": list(landmarks),
        "validation_mm": None,
        "best_mm": None,
        "prior_mm": None,
        "data_sha256": "",
        **measured,
        "model_sha256": sha256_hex(model),
        "state_sha256": sha256_hex(state) if state else "",
        "config": dict(config),
    }
    return (json.dumps(about, indent=1) + "\n").encode()


def planned_checkpoint(plan: FederationPlan, model: bytes, run: str) -> bytes:
    """Write ``checkpoint.json`` of what a run of a plan came to.

    Args:
        plan: whose settings the agent has.
        model: bytes of ``model.safetensors``.
        run: its name.
    """
    config = planned_config(plan)
    updates = plan.learner.updates if plan.kind == "training" else 0
    return about_checkpoint(
        model, config, names_of(plan), origin=f"federated run {run}", updates=updates
    )


def planned_config(plan: FederationPlan) -> dict[str, object]:
    """Return the sections of a plan that are the agent's own: the configuration of its model."""
    whole = plan.model_dump(mode="json")
    for section, key in FEDERATED:  # of how sites are averaged: a model on its own has none
        whole[section].pop(key, None)
    return {name: whole[name] for name in sections_of(plan.task.kind, AgentSettings.model_fields)}


def names_of(settings: AgentSettings) -> tuple[str, ...]:
    """List the names of what is looked for, as configured; none for a registration."""
    named = KINDS[settings.task.kind].named
    names: tuple[str, ...] = getattr(settings.task, named) if named else ()
    return names


def model_file(path: Path) -> Path:
    """Find the weights that a path means: a file of them, or those of a folder.

    Raises:
        InputDataError: a folder without any.
    """
    if not path.is_dir():
        return path
    places = (path, *(path / name for name in _OF_A_RUN))
    found = next((p / MODEL_FILE for p in places if (p / MODEL_FILE).is_file()), None)
    if found is None:
        raise InputDataError(
            "no model in this folder",
            field=str(path),
            expected=f"{MODEL_FILE}, as `cairn-aggregator model` or `cairn-site train` write it",
            got="none",
        )
    return found
