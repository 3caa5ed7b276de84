"""One run at one site, behind one interface: what an order asks for becomes records.

A study makes envelopes and does not send them. Everything it says is measured
by the gate afterwards; it holds no handle on the ledger, the spool or a key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from common.model import check_weights, weight_shapes
from common.plan import FederationPlan
from common.sketching import CountSketch, SketchSpec
from common.wire.envelope import Envelope
from common.wire.orders import Order
from common.wire.records import SketchTable
from site_client.worker.failures import BadOrderError

State = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Subject:
    """What a study's records are about; equal in every record of an order.

    Attributes:
        site, run: who answers, for which run.
        plan: of the run.
        spec: of its experience sketch.
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
    """A run's work at this site; ``TrainingStudy`` and ``NoOpStudy`` are exchangeable."""

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
    """Refuse an order whose arrays are not its plan's, before any image is opened.

    Raises:
        BadOrderError: wraps what does not fit.
    """
    plan, phase = order.plan, order.header.phase
    if (order.header.round == 0) != (phase == "begin"):
        raise BadOrderError("round 0 is for the phase begin, and for it alone")
    try:
        if phase == "begin":
            if order.weights or order.sketch is not None:
                raise BadOrderError("an order of phase begin carries no array")
            return
        check_weights({n: np.asarray(a) for n, a in order.weights.items()}, plan)
        if order.sketch is not None:
            shape = (plan.experience.rows, plan.experience.columns)
            if order.sketch.dtype != np.int64 or order.sketch.shape != shape:
                raise BadOrderError("the merged sketch does not have the plan's form")
    except InputDataError as error:
        raise BadOrderError(str(error)) from error


def weights_bytes(plan: FederationPlan) -> int:
    """Size of the model's weights, float32."""
    return 4 * sum(int(np.prod(shape)) for shape in weight_shapes(plan).values())
