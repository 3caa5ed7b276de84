"""The files of a checkpoint: weights, and all that is needed to use them or to go on exactly.

A run's folder holds ``latest`` (with the learner's state) and ``best`` (weights
only). Each is a folder of ``model.safetensors``, ``checkpoint.json`` and perhaps
``state.safetensors``. It is written beside its place and put there by rename, so
that a machine that dies leaves the old one or the new one. Nothing is unpickled.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.canonical import sha256_hex
from common.checkpoint import (
    ABOUT_FILE,
    MODEL_FILE,
    STATE_FILE,
    about_checkpoint,
    damaged_checkpoint,
    read_folder,
    saved,
)
from common.errors import InputDataError
from common.model import Weights
from site_client.agent_app.config import Config, parse_config
from site_client.files import plain, write_atomically

LATEST: Final = "latest"
BEST: Final = "best"

State = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A network and what it needs to be used.

    Attributes:
        config: of the run, with the landmarks that were resolved.
        weights: the network's.
        updates: gradient steps it was trained for.
        landmarks: names of the heads.
        prior_mm: float64[heads, agents, d], mean training positions from the middle of their
            images; None where they are not known.
        validation_mm: mean posed error over all heads at this moment; None if not measured.
        best_mm: the smallest of the run so far, None before the first.
        data_sha256: of the training and validation cases; "" where there were none.
        origin: where the weights come from, in words.
        state: the learner's, where the run can go on from here.
    """

    config: Config
    weights: Weights
    updates: int
    landmarks: tuple[str, ...]
    prior_mm: NDArray[np.float64] | None = None
    validation_mm: float | None = None
    best_mm: float | None = None
    data_sha256: str = ""
    origin: str = "cairn-site train"
    state: State | None = None


def weights_sha256(weights: Weights) -> str:
    """SHA-256 of the file that these weights are written as."""
    return sha256_hex(saved(weights))


def write_checkpoint(place: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, the old one in its place until the new one is whole.

    Raises:
        InputDataError: the folder cannot be written.
    """
    fresh, old = place.with_name(place.name + ".new"), place.with_name(place.name + ".old")
    model = saved(checkpoint.weights)
    state = b"" if checkpoint.state is None else saved(checkpoint.state)
    about = about_checkpoint(
        model,
        checkpoint.config.model_dump(mode="json"),
        checkpoint.landmarks,
        origin=checkpoint.origin,
        updates=checkpoint.updates,
        state=state,
        validation_mm=checkpoint.validation_mm,
        best_mm=checkpoint.best_mm,
        prior_mm=None if checkpoint.prior_mm is None else plain(checkpoint.prior_mm.tolist()),
        data_sha256=checkpoint.data_sha256,
    )
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        write_atomically(fresh / MODEL_FILE, model)
        if state:
            write_atomically(fresh / STATE_FILE, state)
        write_atomically(fresh / ABOUT_FILE, about)
        shutil.rmtree(old, ignore_errors=True)
        if place.exists():
            place.rename(old)
        fresh.rename(place)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise InputDataError(
            "cannot write the checkpoint",
            field=str(place),
            expected="a folder that can be written, and room",
            got=error.strerror or "an error",
        ) from error


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that a path means: itself, or a run's best one, or else its latest.

    Raises:
        InputDataError: there is none.
    """
    for place in (path, path / BEST, path / LATEST):
        whole = _whole(place)
        if whole is not None:
            return whole
    raise InputDataError(
        "no checkpoint",
        field=str(path),
        expected="a folder that cairn-site train or cairn-aggregator model wrote",
        got="another folder" if path.is_dir() else "nothing there",
    )


def open_checkpoint(path: Path) -> tuple[Path, Checkpoint]:
    """Open the checkpoint that a path means.

    Raises:
        InputDataError: there is none, or it is damaged.
    """
    place = find_checkpoint(path)
    return place, read_checkpoint(place)


def latest_checkpoint(output: Path) -> Path | None:
    """A run's latest checkpoint, also when the machine died while it was written."""
    return _whole(output / LATEST)


def read_checkpoint(place: Path, *, with_state: bool = False) -> Checkpoint:
    """Read a checkpoint and check its digests.

    Raises:
        InputDataError: incomplete, damaged, or of another version.
        UsageError: its state is wanted and it has none.
    """
    files = read_folder(place, with_state=with_state)
    about = files.about
    try:
        prior = about["prior_mm"]
        return Checkpoint(
            config=parse_config(about["config"]),
            weights=files.weights,
            updates=int(about["updates"]),
            landmarks=tuple(str(name) for name in about["landmarks"]),
            prior_mm=None if prior is None else _unlisted(prior),
            validation_mm=about["validation_mm"],
            best_mm=about["best_mm"],
            data_sha256=str(about["data_sha256"]),
            origin=str(about["origin"]),
            state=files.state,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise damaged_checkpoint(place / ABOUT_FILE) from error


def _whole(place: Path) -> Path | None:
    """The place, or what a death between two renames left of it."""
    for candidate in (place, place.with_name(place.name + ".old")):
        if (candidate / ABOUT_FILE).is_file():
            return candidate
    return None


def _unlisted(nested: object) -> NDArray[np.float64]:
    return np.array(nested, dtype=np.float64)
