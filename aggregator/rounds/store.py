"""A run on disk: plan, journal, what every round came to, the archive.

A round's files are written before its ``round_finished`` event, so whatever
the journal calls finished can be resumed from. Knows arrays and documents by
name; what they mean is known to the work of the plan's kind.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors.numpy
from pydantic import BaseModel, ConfigDict, ValidationError

from aggregator.rounds.course import Agreement
from aggregator.rounds.events import Event, RoundFinished, StopAsked, append_event, read_events
from aggregator.rounds.queue import LOCK_S, locked
from common.arrivals.texts import json_of
from common.canonical import canonical_json, sha256_hex
from common.errors import InputDataError
from common.ledger.durable import replace_all_durably, replace_durably
from common.plan import FederationPlan, parse_plan
from common.wire.envelope import Array
from common.wire.orders import RosterEntry
from common.wire.transport import ENVELOPE_SUFFIX

MODEL = "model"
MODEL_FILE = f"{MODEL}.safetensors"
JOURNAL_FILE = "events.jsonl"
SUM_FILE = "sum.cairn"
ROSTER_FILE = "roster.json"
APPROVAL_S = 3 * 86_400.0
"""How long a run waits for people at the sites, unless the coordinator says otherwise."""


@dataclass(frozen=True)
class RoundState:
    """The state that the next round starts from.

    Attributes:
        round: that it is the outcome of.
        agreement: of round 0.
        arrays: by ``file/name``; those of one file lie together.
        facts: whole numbers.
        documents: bytes by file name.
        digest: of the outcome, for people to compare; empty where there is nothing yet.
        link: of the chain of sums after it.
        sum: the round's sum as the sites get it; empty in rounds that have none.
    """

    round: int
    agreement: Agreement
    arrays: Mapping[str, Array] = field(default_factory=dict)
    facts: Mapping[str, int] = field(default_factory=dict)
    documents: Mapping[str, bytes] = field(default_factory=dict)
    digest: str = ""
    link: str = ""
    sum: bytes = b""

    def below(self, file: str) -> dict[str, Array]:
        """Return the arrays of one file, by name."""
        prefix = file + "/"
        return {
            n.removeprefix(prefix): array
            for n, array in self.arrays.items()
            if n.startswith(prefix)
        }


def within(file: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Arrays under the names that they have in a state."""
    return {f"{file}/{name}": array for name, array in arrays.items()}


class RunOptions(BaseModel):
    """The coordinator's wishes beside the plan.

    Attributes:
        min_sites: sites to wait for before round 0.
        wait_s: how long; then a quorum is enough.
        approval_s: how long to wait for people at the sites to approve the plan.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_sites: int
    wait_s: float
    approval_s: float = APPROVAL_S


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
    def create(
        cls,
        folder: Path,
        plan: FederationPlan,
        options: RunOptions,
        attached: Mapping[str, bytes] | None = None,
    ) -> RunStore:
        """Make the folder of a new run.

        Args:
            folder: of the run.
            plan: what is carried out.
            options: what the coordinator asked for beside it.
            attached: documents that the plan names by their digests, by file name.

        Raises:
            InputDataError: it exists already.
            OSError: the disk refused; nothing of the run is left.
        """
        try:
            folder.mkdir(parents=True)
        except FileExistsError as error:
            raise InputDataError("a run of this name exists", field=folder.name) from error
        try:
            replace_durably(folder / "options.json", options.model_dump_json().encode())
            for name, data in (attached or {}).items():
                replace_durably(folder / name, data)
            replace_durably(folder / "plan.json", plan.canonical())
        except OSError:
            shutil.rmtree(folder)
            raise
        return cls(folder)

    @contextmanager
    def conducting(self, wait_s: float = LOCK_S) -> Iterator[None]:
        """Alone among all processes that would conduct this run.

        Args:
            wait_s: how long another may take to notice that it no longer does.

        Raises:
            RefusedError: another process does.
        """
        with locked(
            self.conductor_lock,
            "another process conducts this run",
            "Nothing was written. See `cairn-aggregator round list`",
            wait_s,
        ):
            yield

    @property
    def conductor_lock(self) -> Path:
        """Lock of the process that conducts the run."""
        return self.folder / "conductor.lock"

    @property
    def stop_file(self) -> Path:
        """There once a coordinator wants the run to end; says who."""
        return self.folder / "stop.json"

    def ask_to_stop(self, by: str) -> None:
        """Have whoever conducts the run end it; asked twice, the first counts.

        Raises:
            OSError: the disk refused.
        """
        if not self.stop_file.exists():
            replace_durably(self.stop_file, canonical_json({"by": by}))
            self.record(StopAsked(by=by))

    def stop_asked_by(self) -> str | None:
        """Return who wants the run to end; None while nobody does."""
        try:
            words = json_of(self.stop_file.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            words = None
        by = words.get("by") if isinstance(words, dict) else None
        return by if isinstance(by, str) else "somebody"  # the file is damaged, and still there

    def plan(self) -> FederationPlan:
        """Return the run's plan.

        Raises:
            InputDataError: it cannot be read, or is none.
        """
        return parse_plan(self._json("plan.json"))

    def options(self) -> RunOptions:
        """Read the coordinator's wishes beside the plan.

        Raises:
            InputDataError: they cannot be read, or are none.
        """
        try:
            return RunOptions.model_validate(self._json("options.json"))
        except ValidationError as error:
            raise _damaged("options.json", error) from error

    def _json(self, name: str) -> object:
        try:
            return json_of((self.folder / name).read_bytes())
        except (OSError, ValueError) as error:
            raise _damaged(name, error) from error

    def record(self, event: Event) -> None:
        """Add an event to the journal."""
        append_event(self.journal, event)

    def round_folder(self, round_: int) -> Path:
        """Files of one round."""
        return self.folder / "rounds" / f"{round_:04d}"

    def archive(self, round_: int, site: str, parts: Mapping[str, bytes]) -> None:
        """Keep what a site or a relay sent, byte for byte, each file named by its digest.

        Raises:
            OSError: the disk refused.
        """
        folder = self.round_folder(round_) / site
        folder.mkdir(parents=True, exist_ok=True)
        files = {f"{sha256_hex(d)}.{name.rsplit('.', 1)[1]}": d for name, d in parts.items()}
        replace_all_durably(folder, files)

    def archived_envelope(self, round_: int, site: str, digest: str) -> bytes:
        """Return an envelope out of the archive.

        Raises:
            InputDataError: its file is gone, or does not hold what was archived.
        """
        return self.archived(round_, site, f"{digest}{ENVELOPE_SUFFIX}")

    def archived(self, round_: int, sender: str, name: str) -> bytes:
        """Return what a site or a relay sent, by its file's name, which begins with the digest.

        Raises:
            InputDataError: its file is gone, or does not hold what was archived.
        """
        try:
            data = (self.round_folder(round_) / sender / name).read_bytes()
        except OSError as error:
            raise _lost(sender, type(error).__name__) from error
        if sha256_hex(data) != name.partition(".")[0]:
            raise _lost(sender, "other bytes")
        return data

    def attached(self, name: str) -> bytes:
        """Return a document that the run was made with.

        Raises:
            InputDataError: it was made without.
        """
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError as error:
            raise InputDataError("the run was made without a document", field=name) from error

    def save(self, state: RoundState) -> None:
        """Write the outcome of a round."""
        folder = self.round_folder(state.round)
        folder.mkdir(parents=True, exist_ok=True)
        tables = {
            f"{file}.safetensors": safetensors.numpy.save(
                {n: np.ascontiguousarray(array) for n, array in state.below(file).items()}
            )
            for file in sorted({name.partition("/")[0] for name in state.arrays})
        }
        sums = {SUM_FILE: state.sum} if state.sum else {}
        for name, data in (*tables.items(), *state.documents.items(), *sums.items()):
            replace_durably(folder / name, data)
        about = {
            "arrays": {name: sha256_hex(data) for name, data in tables.items()},
            "codec": state.agreement.codec,
            "digest": state.digest,
            "documents": {name: sha256_hex(data) for name, data in state.documents.items()},
            "facts": dict(state.facts),
            "key_id": state.agreement.key_id,
            "link": state.link,
            "round": state.round,
            "sum": sha256_hex(state.sum) if state.sum else "",
        }
        replace_durably(folder / "round.json", canonical_json(about))

    def load(self, round_: int) -> RoundState:
        """Read the outcome of a finished round.

        Raises:
            InputDataError: a file is missing or is not what was written.
        """
        folder = self.round_folder(round_)
        arrays: dict[str, Array] = {}
        try:
            about = json_of((folder / "round.json").read_bytes())
            if not isinstance(about, dict):
                raise _damaged("round.json", ValueError())
            for name, digest in about["arrays"].items():
                data = _unchanged(folder / name, digest)
                arrays |= within(name.rpartition(".")[0], safetensors.numpy.load(data))
            documents = {n: _unchanged(folder / n, d) for n, d in about["documents"].items()}
            agreement = Agreement(about["key_id"], about["codec"])
            data = _unchanged(folder / SUM_FILE, about["sum"]) if about["sum"] else b""
            return RoundState(
                round_,
                agreement,
                arrays,
                about["facts"],
                documents,
                about["digest"],
                about["link"],
                data,
            )
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise InputDataError(
                "a finished round cannot be read",
                field=str(folder.name),
                expected="round.json and its files as they were written",
                got=type(error).__name__,
            ) from error

    def sum_of(self, round_: int) -> bytes | None:
        """Return the sum of a finished round, for a site that missed it; None where it has none."""
        try:
            return (self.round_folder(round_) / SUM_FILE).read_bytes()
        except FileNotFoundError:
            return None

    def sum_bytes(self, round_: int) -> int:
        """Return how long the sum of a round is; 0 where it has none."""
        try:
            return (self.round_folder(round_) / SUM_FILE).stat().st_size
        except FileNotFoundError:
            return 0

    def roster(self) -> tuple[RosterEntry, ...] | None:
        """Return the sites that may take part, as the run began; None before that."""
        try:
            entries = json_of((self.folder / ROSTER_FILE).read_bytes())
            if not isinstance(entries, list):
                raise _damaged(ROSTER_FILE, ValueError())
            return tuple(RosterEntry.model_validate(entry) for entry in entries)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise _damaged(ROSTER_FILE, error) from error

    def save_roster(self, roster: Sequence[RosterEntry]) -> None:
        """Write who may take part; it does not change while the run lives."""
        entries = [entry.model_dump() for entry in roster]
        replace_durably(self.folder / ROSTER_FILE, canonical_json(entries))

    def finished_rounds(self) -> list[int]:
        """List the rounds that count, by the journal."""
        return [
            event.round
            for _, event in read_events(self.journal)
            if isinstance(event, RoundFinished)
        ]

    def model_file(self, round_: int) -> Path:
        """Return the model after a round."""
        return self.round_folder(round_) / MODEL_FILE


def _damaged(name: str, error: Exception) -> InputDataError:
    return InputDataError(
        "a file of the run cannot be read",
        field=name,
        expected="what was written when the run began",
        got=type(error).__name__,
    )


def _lost(site: str, got: str) -> InputDataError:
    return InputDataError(
        "what a site sent can no longer be read from the archive",
        field=site,
        expected="the bytes that were accepted",
        got=got,
        advice="Look at the volume of the federation's folder; then resume the run",
    )


def _unchanged(path: Path, digest: str) -> bytes:
    data = path.read_bytes()
    if sha256_hex(data) != digest:
        raise InputDataError(
            "a finished round was changed",
            field=path.name,
            expected=f"digest {digest[:12]}",
            got="another digest",
        )
    return data
