"""A run of training: weights follow from the sum of the sites' updates, experience is added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import safetensors
import safetensors.numpy

from aggregator.intake.outliers import ROUNDS, oversized, reference
from aggregator.intake.reply import Reply
from aggregator.rounds.answers import AcceptedAnswer
from aggregator.rounds.ask import Ask
from aggregator.rounds.course import Agreement, Step
from aggregator.rounds.store import MODEL, RoundState, RunStore, within
from common.errors import InputDataError, RefusedError
from common.model import Weights, check_shared, initial_weights, shared_part, weights_digest
from common.plan import FederationPlan
from common.sums.addition import Sum
from common.sums.training import ModelState, advance
from common.wire.transport import START

TABLE = "experience/table"
ERRORS = "experience/errors"
VELOCITY = "velocity"
TOTAL = "sketch_total"
ERROR = "sketch_error"
USUAL = "usual_norm_"
START_FILE: Final = "start.safetensors"


def read_start(plan: FederationPlan, data: bytes) -> Weights:
    """Return the weights of the model that a plan starts from.

    Raises:
        InputDataError: not the model that the plan names.
    """
    try:
        weights = {n: np.asarray(a) for n, a in safetensors.numpy.load(data).items()}
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise InputDataError(
            "not a model", field="start", expected="safetensors", got=type(error).__name__
        ) from error
    check_shared(weights, plan)
    if (digest := weights_digest(weights)) != plan.start:
        raise InputDataError(
            "not the model that the plan starts from",
            field="start",
            expected=f"{(plan.start or '')[:12]}…",
            got=f"{digest[:12]}…",
            advice="Name its file with --model, or its digest in the plan",
        )
    return weights


class TrainingWork:
    """See ``Work``. The state holds the model, the merged table, and velocity if any.

    Args:
        plan: of the run.
        start: bytes of the model that the plan starts from; None for one from its seed.

    Raises:
        InputDataError: another model.
    """

    def __init__(self, plan: FederationPlan, start: bytes | None = None) -> None:
        self._plan = plan
        self._brought = start
        drawn = shared_part(initial_weights(plan), plan)
        self._first = drawn if start is None else read_start(plan, start)

    @property
    def origin(self) -> str:
        """See ``Work``."""
        return weights_digest(self._first)

    def check_start(self, reply: Reply) -> None:
        """Another digest means another release or a broken machine: noticed before any merge."""
        if reply.report.weights_sha256 != self.origin:
            raise RefusedError(
                "a site starts from other weights",
                field="weights_sha256",
                expected=self.origin[:12],
                got="another digest",
                advice="Update that site to the same release of Cairn",
            )

    def start(self, agreement: Agreement) -> RoundState:
        """See ``Work``."""
        return self._state(0, agreement, ModelState(self._first))

    def ask(self, step: Step, state: RoundState | None) -> Ask:
        """See ``Work``: a start model comes beside every order, for a site may come late."""
        del step, state
        return Ask(beside={} if self._brought is None else {START: self._brought})

    def codec(self, step: Step, state: RoundState | None) -> str | None:
        """See ``Work``."""
        del step
        return state.agreement.codec if state else None

    def measure(self, step: Step, reply: Reply) -> float | None:
        """See ``Work``: how long the site's update is."""
        del step
        return reply.length

    def odd(
        self, step: Step, state: RoundState | None, answers: Mapping[str, AcceptedAnswer]
    ) -> dict[str, str]:
        """See ``Work``: an update beyond what the others and earlier rounds let expect."""
        if step.phase != "train" or state is None:
            return {}
        return oversized(_norms(answers), _history(state))

    def merge(
        self,
        step: Step,
        state: RoundState,
        answers: Mapping[str, AcceptedAnswer],
        total: Sum | None,
    ) -> RoundState:
        """Apply a training round's sum; after an evaluation everything stays as before."""
        model, history = model_of(state), _history(state)
        if total is not None:
            model = advance(model, self._plan, total)
            history = [*history, reference(_norms(answers).values())][-ROUNDS:]
        return self._state(step.round, state.agreement, model, history)

    def sketched(self, state: RoundState) -> tuple[float, int]:
        """See ``Work``."""
        table = state.arrays.get(TABLE)
        fill = 0.0 if table is None else float(np.count_nonzero(table) / table.size)
        return fill, state.facts[TOTAL]

    def _state(
        self,
        round_: int,
        agreement: Agreement,
        model: ModelState,
        history: Sequence[float] = (),
    ) -> RoundState:
        arrays = within(MODEL, dict(model.weights)) | within(VELOCITY, dict(model.velocity))
        if model.table is not None:
            arrays[TABLE] = model.table
        if model.errors is not None:
            arrays[ERRORS] = model.errors
        usual = {f"{USUAL}{n}": round(norm) for n, norm in enumerate(history)}
        facts = {TOTAL: model.total, ERROR: model.error, **usual}
        return RoundState(round_, agreement, arrays, facts, digest=model.digest)


def _norms(answers: Mapping[str, AcceptedAnswer]) -> dict[str, float]:
    """Return the length of every site's update."""
    return {s: a.measure for s, a in answers.items() if isinstance(a.measure, float)}


def _history(state: RoundState) -> list[float]:
    """List how long the last rounds' updates usually were, oldest first."""
    names = sorted(name for name in state.facts if name.startswith(USUAL))
    return [float(state.facts[name]) for name in names]


def model_of(state: RoundState) -> ModelState:
    """Return the model of a state that ``TrainingWork`` made."""
    tables = {"table": state.arrays.get(TABLE), "errors": state.arrays.get(ERRORS)}
    return ModelState(
        {n: np.asarray(a, np.float32) for n, a in state.below(MODEL).items()},
        {n: np.asarray(a, np.float32) for n, a in state.below(VELOCITY).items()},
        total=state.facts[TOTAL],
        error=state.facts[ERROR],
        **{n: None if t is None else np.asarray(t, np.int64) for n, t in tables.items()},
    )


def work_of(store: RunStore) -> TrainingWork:
    """Return the work of a run, with what came beside its plan."""
    plan = store.plan()
    return TrainingWork(plan, store.attached(START_FILE) if plan.start else None)
