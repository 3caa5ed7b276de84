"""A run on disk: plan, journal, the model and merged sketch after every round, the archive.

A round's files are written before its ``round_finished`` event, so whatever
the journal calls finished can be resumed from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from aggregator.rounds.course import Agreement
from aggregator.rounds.events import Event, RoundFinished, append_event, read_events
from common.canonical import canonical_json, sha256_hex
from common.errors import InputDataError
from common.ledger.durable import replace_durably
from common.model import weights_digest
from common.plan import FederationPlan, parse_plan
from common.wire.envelope import Array

MODEL_FILE = "model.safetensors"
SKETCH_FILE = "experience.safetensors"
JOURNAL_FILE = "events.jsonl"


@dataclass(frozen=True)
class RoundState:
    """What the next round starts from."""

    round: int
    weights: dict[str, Array]
    sketch: NDArray[np.int64] | None
    sketch_total: int
    agreement: Agreement


class RunOptions(BaseModel):
    """What the coordinator asked for beside the plan.

    Attributes:
        min_sites: sites to wait for before round 0.
        wait_s: how long; then a quorum is enough.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_sites: int
    wait_s: float


@dataclass(frozen=True)
class RunStore:
    """One run's folder."""

    folder: Path

    @property
    def journal(self) -> Path:
        """The events."""
        return self.folder / JOURNAL_FILE

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.name

    @classmethod
    def create(cls, folder: Path, plan: FederationPlan, options: RunOptions) -> RunStore:
        """Make the folder of a new run.

        Raises:
            InputDataError: it exists already.
        """
        try:
            folder.mkdir(parents=True)
        except FileExistsError as error:
            raise InputDataError("a run of this name exists", field=folder.name) from error
        replace_durably(folder / "options.json", options.model_dump_json().encode())
        replace_durably(folder / "plan.json", plan.canonical())
        return cls(folder)

    def plan(self) -> FederationPlan:
        """The run's plan."""
        return parse_plan(json.loads((self.folder / "plan.json").read_bytes()))

    def options(self) -> RunOptions:
        """What the coordinator asked for beside the plan."""
        return RunOptions.model_validate_json((self.folder / "options.json").read_bytes())

    def record(self, event: Event) -> None:
        """Add an event to the journal."""
        append_event(self.journal, event)

    def round_folder(self, round_: int) -> Path:
        """Files of one round."""
        return self.folder / "rounds" / f"{round_:04d}"

    def archive(self, round_: int, site: str, parts: Mapping[str, bytes]) -> None:
        """Keep what a site sent, byte for byte, each file named by its digest."""
        folder = self.round_folder(round_) / site
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in parts.items():
            suffix = name.rsplit(".", 1)[1]
            replace_durably(folder / f"{sha256_hex(data)}.{suffix}", data)

    def save(self, state: RoundState) -> str:
        """Write the outcome of a round and return the model's digest."""
        folder = self.round_folder(state.round)
        folder.mkdir(parents=True, exist_ok=True)
        digest = weights_digest({name: np.asarray(a) for name, a in state.weights.items()})
        metadata = {
            "round": state.round,
            "sketch_total": state.sketch_total,
            "key_id": state.agreement.key_id,
            "codec": state.agreement.codec,
            "model_sha256": digest,
        }
        arrays = {name: np.ascontiguousarray(array) for name, array in state.weights.items()}
        replace_durably(
            folder / MODEL_FILE, safetensors.numpy.save(arrays, {"model_sha256": digest})
        )
        if state.sketch is not None:
            replace_durably(folder / SKETCH_FILE, safetensors.numpy.save({"table": state.sketch}))
        replace_durably(folder / "round.json", canonical_json(metadata))
        return digest

    def load(self, round_: int) -> RoundState:
        """Read the outcome of a finished round.

        Raises:
            InputDataError: a file is missing or is not what was written.
        """
        folder = self.round_folder(round_)
        try:
            metadata = json.loads((folder / "round.json").read_bytes())
            weights: dict[str, Array] = dict(safetensors.numpy.load_file(folder / MODEL_FILE))
            table = folder / SKETCH_FILE
            sketch = safetensors.numpy.load_file(table)["table"] if table.exists() else None
            agreement = Agreement(metadata["key_id"], metadata["codec"])
            total = int(metadata["sketch_total"])
            recorded = metadata["model_sha256"]
        except (OSError, ValueError, KeyError) as error:
            raise InputDataError(
                "a finished round cannot be read",
                field=str(folder.name),
                expected="round.json, model and sketch as they were written",
                got=type(error).__name__,
            ) from error
        if weights_digest({name: np.asarray(a) for name, a in weights.items()}) != recorded:
            raise InputDataError(
                "a finished round was changed",
                field=MODEL_FILE,
                expected=f"digest {recorded[:12]}",
                got="another digest",
            )
        return RoundState(round_, weights, sketch, total, agreement)

    def finished_rounds(self) -> list[int]:
        """Rounds that count, by the journal."""
        return [
            event.round
            for _, event in read_events(self.journal)
            if isinstance(event, RoundFinished)
        ]

    def model_file(self, round_: int) -> Path:
        """The model after a round."""
        return self.round_folder(round_) / MODEL_FILE
