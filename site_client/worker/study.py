"""One run at one site, behind one interface: what an order asks for becomes records.

A study makes envelopes and does not send them. Everything it says is measured
by the gate afterwards; it holds no handle on the ledger, the spool or a key.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from common.errors import InternalError
from common.model import Weights, shared_shapes
from common.plan import RUNS, FederationPlan
from common.sketching import CountSketch, SketchSpec
from common.sums.derivation import Derived
from common.sums.training import ModelState
from common.wire.envelope import Array, Envelope
from common.wire.expected import Origin
from common.wire.orders import Order, OrderHeader
from common.wire.records import ErrorTables, SketchTable
from site_client.heldout.parts import Parts
from site_client.site import SlideSettings
from site_client.worker.state import SavedStates

if TYPE_CHECKING:
    from site_client.agent.method import Watch

State = dict[str, NDArray[np.generic]]
Progress = Callable[[str, int, int], None]
"""Called with (what is being done, done, of how many); may raise ``StoppedError``."""


class _Form(TypedDict):
    """The words of a record that say which sketch its tables are."""

    rows: int
    columns: int
    key_id: str
    codec: str


@dataclass(frozen=True)
class Subject:
    """The subject of a study's records; equal in every record of an order.

    Attributes:
        site, run: who answers, for which run.
        plan: of the run.
        spec: of its sketches.
        samples: most that this site may count as in an average.
    """

    site: str
    run: str
    plan: FederationPlan
    spec: SketchSpec
    samples: int = 1_000_000

    @property
    def seed(self) -> int:
        """Of this site's exploration: differs between sites, does not depend on the run."""
        text = f"cairn site seed v1\n{self.plan.seed}\n{self.site}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")

    def about(self, round_: int) -> Origin:
        """Return the words that every record begins with."""
        return Origin(
            plan_fingerprint=self.plan.fingerprint, site=self.site, run=self.run, round=round_
        )

    def table(self, round_: int, keys: NDArray[np.uint64]) -> Envelope:
        """Return the count sketch of ``keys`` as a record."""
        record = SketchTable(**self.about(round_), **self._form(), total=len(keys))
        return Envelope(record, {"table": self._sketched(keys)})

    def error_tables(
        self, round_: int, keys: NDArray[np.uint64], errors: NDArray[np.int64]
    ) -> Envelope:
        """Return the count sketches of replayed ``keys`` and of their errors as a record."""
        record = ErrorTables(
            **self.about(round_), **self._form(), total=len(keys), errors=int(errors.sum())
        )
        tables: dict[str, Array] = {
            "replays": self._sketched(keys),
            "errors": self._sketched(keys, errors),
        }
        return Envelope(record, tables)

    def _form(self) -> _Form:
        spec = self.spec
        return _Form(rows=spec.rows, columns=spec.columns, key_id=spec.key_id, codec=spec.domain)

    def _sketched(
        self, keys: NDArray[np.uint64], weights: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        sketch = CountSketch(self.spec)
        sketch.update(keys, weights)
        return np.array(sketch.table)


@dataclass(frozen=True, eq=False)
class Assignment:
    """One order, and what this site itself derived for it.

    Attributes:
        order: in its place in the plan, signature and codebook checked.
        derived: what the run has come to; nothing else may be trained on.
    """

    order: Order
    derived: Derived

    @property
    def header(self) -> OrderHeader:
        """The words of the order."""
        return self.order.header

    @property
    def codebook(self) -> bytes | None:
        """Bytes that the plan names, digest checked; None without any."""
        return self.order.codebook

    @property
    def model(self) -> ModelState:
        """Weights and merged experience of a run that has a model.

        Raises:
            InternalError: the run has none.
        """
        if self.derived.model is None:
            raise InternalError("a run without a model", expected="weights", got="none")
        return self.derived.model


class Study(Protocol):
    """A run's work at this site, one study per kind of plan; all are exchangeable."""

    @property
    def trained(self) -> int:
        """The last round trained; 0 before the first."""

    def answer(self, assignment: Assignment) -> list[Envelope]:
        """Return the records that answer an order, without their tags.

        Raises:
            InputDataError: the site's data cannot be used.
            StoppedError: asked to stop before the answer was ready.
        """

    def state(self) -> State:
        """Everything needed to go on bit for bit after a restart."""

    def load_state(self, trained: int, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on from ``state`` after round ``trained``."""

    def own_weights(self) -> Weights:
        """Return what the model has at this site alone, as after the last round trained here.

        With ``Assignment.model`` it is all of the site's weights; nothing of it may leave.
        Empty unless the plan keeps heads private.
        """


@dataclass(frozen=True)
class Given:
    """Material of a study, beside its subject.

    Attributes:
        data: folder of images.
        parts: which of its cases are not trained on; so many images as its floor must be
            left to train on.
        progress: told what is being done; may raise ``StoppedError``.
        folder: of the worker, for what a study leaves at the site; None in a rehearsal.
        watch: shown the transitions of every gradient step; None but in a rehearsal.
        data_file: how what is known of the images is read, if the site says so.
        slides: how slides are counted.
        states: where the state within a round is kept; None in a rehearsal.
        least_updates: fewest gradient steps of a round that the site's policy lets out.
        clock: seconds, from whenever.
    """

    data: Path
    parts: Parts
    progress: Progress
    folder: Path | None = None
    watch: Watch | None = None
    data_file: Path | None = None
    slides: SlideSettings = SlideSettings()  # noqa: RUF009  # frozen
    states: SavedStates | None = None
    least_updates: int = 1
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class StudyRoom:
    """The site's half of a kind of run; ``RunKind.study`` names the module that has one.

    Attributes:
        spec: dimensions and key of its sketches, from a plan and the secret that keys them.
        codec: identity of the codec that the records of an order's answer must name.
        make: a fresh study of a subject.
    """

    spec: Callable[[FederationPlan, bytes], SketchSpec]
    codec: Callable[[Order], str]
    make: Callable[[Subject, Given], Study]


def room_of(plan: FederationPlan) -> StudyRoom:
    """Look up what a plan's kind brings; the only dispatch there is."""
    room: StudyRoom = import_module(RUNS[plan.kind].study).ROOM
    return room


def weights_bytes(plan: FederationPlan) -> int:
    """Size of the weights that a site sends, four bytes each; 0 for a plan without a model."""
    if not plan.trains:
        return 0
    return 4 * sum(int(np.prod(shape)) for shape in shared_shapes(plan).values())
