"""Checkpoints of a training: the latest, from which it goes on exactly, and the best.

A checkpoint is one safetensors file that carries its own description, so a power
cut leaves the old or the new one and never halves of both; the JSON file beside it
is the same description for people. Arrays only: reading one runs no code. The latest
holds transitions of the site and may not leave it; the best holds weights alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from common.canonical import canonical_json
from common.errors import InputDataError
from common.ledger.durable import replace_durably
from common.model import Weights, weights_digest

State = dict[str, NDArray[np.generic]]

FORMAT = 1
LATEST, BEST = "latest", "best"
_DESCRIPTION = "cairn"
_ONLINE = "online/"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What was kept.

    Attributes:
        kind: ``latest`` or ``best``.
        updates: gradient steps behind it.
        settings: of the training, as it gave them.
        figures: measured then, e.g. the error that made it the best.
        arrays: of the latest, the learner's state; of the best, its weights.
    """

    kind: str
    updates: int
    settings: dict[str, object]
    figures: dict[str, object]
    arrays: State

    @property
    def weights(self) -> Weights:
        """The online network's weights, of either kind of checkpoint."""
        prefix = _ONLINE if self.kind == LATEST else ""
        return {
            name.removeprefix(prefix): np.asarray(array, np.float32)
            for name, array in self.arrays.items()
            if name.startswith(prefix)
        }

    def describe(self) -> dict[str, object]:
        """Everything but the arrays, for JSON."""
        return {
            "format": FORMAT,
            "kind": self.kind,
            "updates": self.updates,
            "settings": self.settings,
            "figures": self.figures,
            "weights_sha256": weights_digest(self.weights),
            "arrays_sha256": _digest(self.arrays),
        }


class Checkpoints:
    """The checkpoints of one training, in one folder.

    Args:
        folder: made when the first is kept; only one training may write there.
        settings: of the training, as JSON can hold them; a checkpoint of others is refused.
    """

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        self._folder = folder
        # What is compared with a file's settings must have been through JSON as well.
        self._settings: dict[str, object] = json.loads(canonical_json(dict(settings)))

    def path(self, kind: str) -> Path:
        """Where the ``latest`` or the ``best`` lies."""
        return self._folder / f"{kind}.safetensors"

    def keep_latest(self, state: State, figures: Mapping[str, object]) -> None:
        """Replace the latest by a learner's state.

        Raises:
            InputDataError: the disk does not take it; the one before is still there.
        """
        self._write(
            Checkpoint(LATEST, int(state["updates"]), self._settings, dict(figures), dict(state))
        )

    def offer_best(
        self, weights: Weights, updates: int, error: float, figures: Mapping[str, object]
    ) -> bool:
        """Keep weights if their error is below that of the best so far, also of an earlier run.

        Args:
            weights: of the online network.
            updates: gradient steps behind them.
            error: the mean over all heads and agents on cases that were held out.
            figures: more of what was measured.

        Returns:
            whether they are the best now. An error that is no number never is.

        Raises:
            InputDataError: the best so far cannot be read, or the disk does not take this one.
        """
        best = self.read(BEST)
        so_far = np.inf if best is None else float(str(best.figures["error"]))
        if not error < so_far:
            return False
        measured: dict[str, object] = {**figures, "error": error}
        self._write(Checkpoint(BEST, updates, self._settings, measured, dict(weights)))
        return True

    def read(self, kind: str) -> Checkpoint | None:
        """The ``latest`` or ``best``, or None if none was kept.

        Raises:
            InputDataError: damaged, of another format, or of a training with other settings.
        """
        path = self.path(kind)
        if not path.exists():
            return None
        found = read_checkpoint(path)
        if found.settings != self._settings:
            names = sorted({*found.settings, *self._settings})
            other = [n for n in names if found.settings.get(n) != self._settings.get(n)]
            raise InputDataError(
                "the checkpoint is of a training with other settings",
                field=str(path),
                expected="the same settings",
                got=f"another {', another '.join(other)}",
                advice="Use the settings it was begun with, or another folder.",
            )
        return found

    def _write(self, checkpoint: Checkpoint) -> None:
        path = self.path(checkpoint.kind)
        description = canonical_json(checkpoint.describe())
        arrays = {name: np.asarray(value, order="C") for name, value in checkpoint.arrays.items()}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            metadata = {_DESCRIPTION: description.decode()}
            replace_durably(path, safetensors.numpy.save(arrays, metadata))
            replace_durably(path.with_suffix(".json"), description)
        except OSError as error:
            raise InputDataError(
                "cannot keep the checkpoint",
                field=str(path),
                expected="a folder with room",
                got=error.strerror or "an error",
            ) from error


def read_checkpoint(path: Path) -> Checkpoint:
    """One checkpoint, of whatever training.

    Raises:
        InputDataError: unreadable, damaged or of another format.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            description = json.loads((file.metadata() or {})[_DESCRIPTION])
            arrays: State = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        found = Checkpoint(
            kind=str(description["kind"]),
            updates=int(description["updates"]),
            settings=dict(description["settings"]),
            figures=dict(description["figures"]),
            arrays=arrays,
        )
        whole = description == json.loads(canonical_json(found.describe()))
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _unusable(path, type(error).__name__) from error
    if not whole:
        raise _unusable(path, "another format or other arrays")
    return found


def _digest(arrays: State) -> str:
    """SHA-256 over names, types, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}\n{values.dtype.str}\n{list(values.shape)}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def _unusable(path: Path, got: str) -> InputDataError:
    return InputDataError(
        "the checkpoint cannot be used",
        field=str(path),
        expected=f"a whole checkpoint of format {FORMAT}",
        got=got,
    )
