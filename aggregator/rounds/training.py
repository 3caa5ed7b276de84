"""A run of training: weights are averaged, experience sketches added."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from aggregator.intake.outliers import oversized
from aggregator.intake.reply import Reply
from aggregator.merging.average import Contribution, mean_delta, moved, with_momentum
from aggregator.merging.tables import add_tables, public_spec
from aggregator.rounds.ask import Ask
from aggregator.rounds.course import Agreement, Step
from aggregator.rounds.store import MODEL, RoundState, within
from common.errors import RefusedError
from common.model import initial_weights, weights_digest
from common.plan import FederationPlan
from common.wire.envelope import Array
from common.wire.expected import l2_norm
from common.wire.records import ModelUpdate

TABLE = "experience/table"
VELOCITY = "velocity"
TOTAL = "sketch_total"


class TrainingWork:
    """See ``Work``. The state holds averaged weights, the merged table, and velocity if any."""

    def __init__(self, plan: FederationPlan) -> None:
        self._plan = plan

    def check_start(self, reply: Reply) -> None:
        """Another digest means another release or a broken machine: noticed before any merge."""
        expected = weights_digest(initial_weights(self._plan))
        if reply.report.weights_sha256 != expected:
            raise RefusedError(
                "a site starts from other weights",
                field="weights_sha256",
                expected=expected[:12],
                got="another digest",
                advice="Update that site to the same release of Cairn",
            )

    def start(self, agreement: Agreement) -> RoundState:
        """See ``Work``."""
        return self._state(0, agreement, dict(initial_weights(self._plan)), {}, None, 0)

    def ask(self, step: Step, state: RoundState | None) -> Ask:
        """See ``Work``."""
        del step
        if state is None:
            return Ask()
        return Ask(state.below(MODEL), state.arrays.get(TABLE), state.facts[TOTAL])

    def codec(self, step: Step, state: RoundState | None) -> str | None:
        """See ``Work``."""
        del step
        return state.agreement.codec if state else None

    def odd(self, step: Step, replies: Mapping[str, Reply]) -> dict[str, str]:
        """See ``Work``."""
        del step
        name = ModelUpdate.__name__
        updates = {s: r.envelopes[name].arrays for s, r in replies.items() if name in r.envelopes}
        return oversized({site: l2_norm(update) for site, update in updates.items()})

    def merge(self, step: Step, state: RoundState, replies: Mapping[str, Reply]) -> RoundState:
        """The averaged weights and added tables of a training round; else the same ones."""
        weights, velocity = state.below(MODEL), state.below(VELOCITY)
        total = state.facts[TOTAL]
        table = state.arrays.get(TABLE)
        if step.phase == "train":
            contributions, tables = [], []
            for site, reply in sorted(replies.items()):
                update = reply.envelopes["ModelUpdate"]
                samples = update.record.images if isinstance(update.record, ModelUpdate) else 0
                contributions.append(Contribution(site, update.arrays, samples))
                sketch = reply.envelopes["SketchTable"]
                tables.append(np.asarray(sketch.arrays["table"], dtype=np.int64))
                total += reply.report.transitions
            spec = public_spec(self._plan, state.agreement.key_id, state.agreement.codec)
            step_by, momentum = mean_delta(contributions), self._plan.rounds.server_momentum
            if momentum:
                step_by, kept = with_momentum(step_by, velocity, momentum)
                velocity = dict(kept)
            weights = dict(moved(weights, step_by))
            merged = None if table is None else np.asarray(table, dtype=np.int64)
            table = add_tables(spec, merged, tables)
        return self._state(step.round, state.agreement, weights, velocity, table, total)

    def sketched(self, state: RoundState) -> tuple[float, int]:
        """See ``Work``."""
        table = state.arrays.get(TABLE)
        fill = 0.0 if table is None else float(np.count_nonzero(table) / table.size)
        return fill, state.facts[TOTAL]

    def _state(
        self,
        round_: int,
        agreement: Agreement,
        weights: dict[str, Array],
        velocity: dict[str, Array],
        table: Array | None,
        total: int,
    ) -> RoundState:
        arrays = within(MODEL, weights) | within(VELOCITY, velocity)
        if table is not None:
            arrays[TABLE] = table
        digest = weights_digest({n: np.asarray(a, np.float32) for n, a in weights.items()})
        return RoundState(round_, agreement, arrays, {TOTAL: total}, digest=digest)
