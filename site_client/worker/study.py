"""One run at one site, behind one interface: what an order asks for becomes records.

A study makes envelopes and does not send them. Everything it says is measured
by the gate afterwards; it holds no handle on the ledger, the spool or a key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError, VerificationError
from common.keys.pixel_agreement import read_codec, require_planned
from common.model import check_weights, weight_shapes
from common.plan import FederationPlan
from common.schedule import schedule
from common.sketching import CountSketch, SketchSpec
from common.wire.envelope import Array, Envelope
from common.wire.orders import Order
from common.wire.records import SketchTable
from site_client.worker.failures import BadOrderError

State = dict[str, NDArray[np.generic]]
PREFIX_COUNTS = "prefix_counts"


class About(TypedDict):
    """What every record of an answer says."""

    plan_fingerprint: str
    site: str
    run: str
    round: int


@dataclass(frozen=True)
class Subject:
    """What a study's records are about; equal in every record of an order.

    Attributes:
        site, run: who answers, for which run.
        plan: of the run.
        spec: of its sketches.
    """

    site: str
    run: str
    plan: FederationPlan
    spec: SketchSpec

    @property
    def seed(self) -> int:
        """Of this site's exploration: differs between sites, does not depend on the run."""
        text = f"cairn site seed v1\n{self.plan.seed}\n{self.site}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")

    def about(self, round_: int) -> About:
        """The words that every record begins with."""
        return About(
            plan_fingerprint=self.plan.fingerprint, site=self.site, run=self.run, round=round_
        )

    def table(self, round_: int, keys: NDArray[np.uint64]) -> Envelope:
        """The count sketch of ``keys`` as a record."""
        sketch = CountSketch(self.spec)
        sketch.update(keys)
        record = SketchTable(
            plan_fingerprint=self.plan.fingerprint,
            site=self.site,
            run=self.run,
            round=round_,
            rows=self.spec.rows,
            columns=self.spec.columns,
            key_id=self.spec.key_id,
            codec=self.spec.domain,
            total=len(keys),
        )
        return Envelope(record, {"table": np.array(sketch.table)})


class Study(Protocol):
    """A run's work at this site, one study per kind of plan; all are exchangeable."""

    @property
    def trained(self) -> int:
        """The last round trained; 0 before the first."""

    def answer(self, order: Order) -> list[Envelope]:
        """The records that answer an order.

        Raises:
            InputDataError: the site's data cannot be used.
            StoppedError: asked to stop before the answer was ready.
        """

    def state(self) -> State:
        """Everything needed to go on bit for bit after a restart."""

    def load_state(self, trained: int, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on from ``state`` after round ``trained``."""


def check_order(order: Order) -> None:
    """Refuse an order that is out of its place, or whose contents are not its plan's.

    Raises:
        BadOrderError: wraps what does not fit, before any image is opened.
    """
    phase, phases = order.header.phase, schedule(order.plan)
    if order.header.round >= len(phases) or phases[order.header.round] != phase:
        raise BadOrderError("the plan's schedule has no such phase in this round")
    trains = phase in ("train", "evaluate")
    if not trains and (order.weights or order.sketch is not None):
        raise BadOrderError(f"an order of phase {phase} carries no weights and no sketch")
    if (order.header.codec is not None) != (phase in ("range", "sketch", "recover", "embed")):
        raise BadOrderError("a codec comes with the phases that need one, and with no other")
    if (phase == "recover") != bool(order.tables):
        raise BadOrderError("tables of pixels come with the phase recover, and with no other")
    try:
        if trains:
            _check_training(order)
        elif order.header.codec is not None:
            _check_codec(order, order.header.codec)
    except (InputDataError, VerificationError) as error:
        raise BadOrderError(str(error)) from error
    if phase == "recover":
        _check_tables(order)


def _check_training(order: Order) -> None:
    plan = order.plan
    check_weights({n: np.asarray(a) for n, a in order.weights.items()}, plan)
    if order.sketch is not None:
        _check_array(order.sketch, (plan.experience.rows, plan.experience.columns))


def _check_codec(order: Order, text: str) -> None:
    codec = read_codec(text)
    if order.header.phase == "embed":
        if codec.identity != order.plan.embed.codec:
            raise BadOrderError("the codec is not the one that the plan names")
    else:
        require_planned(codec, order.plan.pixels)


def _check_tables(order: Order) -> None:
    asked = order.plan.pixels
    if set(order.tables) != {*asked.tables, PREFIX_COUNTS}:
        raise BadOrderError("the merged tables are not the plan's")
    for name in asked.tables:
        _check_array(order.tables[name], (asked.rows, asked.columns))
    _check_array(order.tables[PREFIX_COUNTS], (asked.prefixes,))
    if np.asarray(order.tables[PREFIX_COUNTS]).min() < 0:
        raise BadOrderError("the merged prefix counts are not counts")


def _check_array(array: Array, shape: tuple[int, ...]) -> None:
    if array.dtype != np.int64 or array.shape != shape:
        raise BadOrderError("the merged sketch does not have the plan's form")


def weights_bytes(plan: FederationPlan) -> int:
    """Size of the model's weights, float32; 0 for a plan without a model."""
    if plan.kind in ("pixels", "embed"):
        return 0
    return 4 * sum(int(np.prod(shape)) for shape in weight_shapes(plan).values())
