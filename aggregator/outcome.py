"""The model that a finished run came to, as a folder of files: weights, settings, card, origin.

Read from the run's own files and journal, so that the same run gives the same bytes whenever
it is asked. Nothing of a site but its name, its ledger key's fingerprint and its counts is in
it; its errors are added up with the others'. Signed with the key that signs the orders.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from aggregator.admin.folder import FederationFolder
from aggregator.report.run import RunState
from aggregator.report.state import fold
from aggregator.rounds.events import RunFinished, read_events
from aggregator.rounds.store import MODEL, RunStore
from aggregator.rounds.training import START_FILE, read_start
from common.canonical import sha256_hex
from common.checkpoint import ABOUT_FILE, MODEL_FILE, planned_checkpoint, saved
from common.errors import InputDataError, InternalError, RefusedError
from common.ledger.records import format_timestamp
from common.model import Weights, initial_weights, weights_digest
from common.plan import FederationPlan
from common.released.card import Card, CardErrors, CardSite, render_card
from common.released.folder import (
    CARD_FILE,
    CARD_PAGE,
    KEY_FILE,
    PLAN_FILE,
    PROVENANCE_FILE,
    SIGNATURE_FILE,
    sum_name,
)
from common.released.folder import START_FILE as START_COPY
from common.released.provenance import Provenance, RoundSum, sign_provenance
from common.settings import KINDS
from common.sums.addition import decode_sum, sum_digest
from common.wire.records import PARTS, ModelUpdate, Part, TaskError

_COUNT: Final = ("COMPLETED", "DEGRADED")


@dataclass(frozen=True)
class _Outcome:
    """A run that came to a model."""

    store: RunStore
    plan: FederationPlan
    state: RunState
    end: RunFinished
    weights: Weights
    link: str
    rounds: tuple[RoundSum, ...]

    @property
    def start(self) -> str:
        """Digest of what it began with."""
        return self.plan.start or weights_digest(initial_weights(self.plan))


def model_files(
    folder: FederationFolder, store: RunStore, *, sums: bool
) -> Iterator[tuple[str, bytes]]:
    """Yield the files of the model that a run came to, by name.

    Args:
        folder: the federation's; its key signs.
        store: the run's.
        sums: with what the sites of every round sent together, and the start model if any, so
            that anyone can compute the weights again.

    Raises:
        RefusedError: the run goes on, FAILED, or is of a kind without a model.
        InputDataError: a file of the run is missing or was changed.
    """
    outcome = _outcome(store)
    plan, run = outcome.plan, store.name
    model = saved(outcome.weights)
    card = _card(outcome)
    signed = {
        MODEL_FILE: model,
        ABOUT_FILE: planned_checkpoint(plan, model, run),
        PLAN_FILE: plan.canonical(),
        CARD_FILE: card.encode(),
        CARD_PAGE: render_card(card).encode(),
    }
    key = folder.witness_key()
    provenance = _provenance(
        outcome, {name: sha256_hex(data) for name, data in signed.items()}
    ).encode()
    yield from signed.items()
    yield PROVENANCE_FILE, provenance
    yield SIGNATURE_FILE, sign_provenance(provenance, key)
    yield KEY_FILE, f"{key.public.text}\n".encode("ascii")
    if not sums:
        return
    if plan.start is not None:
        yield START_COPY, saved(read_start(plan, store.attached(START_FILE)))
    for each in outcome.rounds:
        yield sum_name(each.round), _sum_of(store, each.round)


def _outcome(store: RunStore) -> _Outcome:
    plan = store.plan()
    events = [event for _, event in read_events(store.journal)]
    state = fold(events)
    end = next((e for e in reversed(events) if isinstance(e, RunFinished)), None)
    if not plan.trains:
        raise RefusedError(
            "this run has no model",
            field=store.name,
            expected="a run of training",
            got=f"one of kind {plan.kind}",
        )
    if plan.network.private_heads:
        raise RefusedError(
            "the model is not here",
            field=store.name,
            expected="a plan whose sites share all weights",
            got="one whose heads stay at the sites",
            advice="Each site has its own: cairn-site play --model latest",
        )
    if end is None or not state.verdict or end.verdict not in _COUNT:
        got = state.verdict or state.phase
        raise RefusedError(
            "this run has not come to a model",
            field=store.name,
            expected="COMPLETED or DEGRADED",
            got=f"{got}: {state.reason}" if state.reason else got,
            advice="`cairn-aggregator round resume` goes on with it; `runs` lists the others",
        )
    last = store.load(store.finished_rounds()[-1])
    weights: Weights = {n: a.astype("float32") for n, a in last.below(MODEL).items()}
    digest = weights_digest(weights)
    if digest != end.model_sha256:
        raise InputDataError(
            "the model is not the one that the run ended with",
            field=store.name,
            expected=f"digest {end.model_sha256[:16]}",
            got=f"{digest[:16]}",
        )
    rounds = tuple(_round(store, number + 1) for number in range(plan.rounds.training))
    return _Outcome(store, plan, state, end, weights, last.link, rounds)


def _round(store: RunStore, number: int) -> RoundSum:
    """Return what the sum of a round says of itself."""
    data = _sum_of(store, number)
    update = decode_sum(data).group(ModelUpdate.__name__)
    return RoundSum(
        round=number,
        sites=update.members,
        samples=update.summand.counts["samples"],
        sum_sha256=sum_digest(data),
    )


def _sum_of(store: RunStore, number: int) -> bytes:
    data = store.sum_of(number)
    if data is None:
        raise InputDataError("a round's sum is missing", field=f"{store.name}, round {number}")
    return data


def _provenance(outcome: _Outcome, files: dict[str, str]) -> Provenance:
    roster = outcome.store.roster()
    if roster is None:
        raise InternalError("a finished run without a roster", field=outcome.store.name)
    return Provenance(
        federation=outcome.state.federation,
        run=outcome.store.name,
        verdict="COMPLETED" if outcome.end.verdict == "COMPLETED" else "DEGRADED",
        finished=format_timestamp(outcome.end.ts),
        plan=outcome.plan.fingerprint,
        start=outcome.start,
        weights=outcome.end.model_sha256,
        server_momentum=outcome.plan.rounds.server_momentum,
        roster=roster,
        rounds=outcome.rounds,
        link=outcome.link,
        files=files,
    )


def _card(outcome: _Outcome) -> Card:
    plan, state, end = outcome.plan, outcome.state, outcome.end
    task, entry = plan.task, KINDS[plan.task.kind]
    return Card(
        name=plan.name,
        federation=state.federation,
        run=outcome.store.name,
        verdict=end.verdict,
        reason=end.reason,
        finished=format_timestamp(end.ts),
        plan=plan.fingerprint,
        weights=end.model_sha256,
        start=outcome.start,
        from_seed=plan.start is None,
        kind=plan.kind,
        task=task.kind,
        looks_for=plan.space.labels,
        unit=entry.unit,
        spacing_mm=task.spacing_mm,
        shown=task.shown,
        architecture=plan.network.architecture,
        parameters=sum(int(array.size) for array in outcome.weights.values()),
        updates=plan.learner.updates if plan.kind == "training" else 0,
        server_momentum=plan.rounds.server_momentum,
        sites=tuple(_sites(outcome)),
        errors=tuple(_errors(state)),
    )


def _sites(outcome: _Outcome) -> Iterator[CardSite]:
    """List the sites that are in a sum, with the most images that they trained on."""
    taking_part = sorted({site for each in outcome.rounds for site in each.sites})
    for site in taking_part:
        rounds = [each.round for each in outcome.rounds if site in each.sites]
        parts = (r.of(site) for r in outcome.state.rounds if r.round in rounds)
        images = max((part.images for part in parts if part is not None), default=0)
        yield CardSite(site=site, images=images, rounds=len(rounds))


def _errors(state: RunState) -> Iterator[CardErrors]:
    """Add up the sites' errors: of every round over all labels, of the last one by label, too."""
    measured = [r for r in state.rounds if r.errors]
    for summary in measured:
        for part in PARTS:
            errors = [e for e in summary.errors if e.part == part]
            if not any(e.searches for e in errors):
                continue
            yield _added(errors, part, summary.trained, "")
            if summary is measured[-1]:
                for label in dict.fromkeys(e.label for e in errors):
                    of_it = [e for e in errors if e.label == label]
                    yield _added(of_it, part, summary.trained, label)


def _added(errors: Iterable[TaskError], part: Part, after: int, label: str) -> CardErrors:
    counted = [error for error in errors if error.searches]
    searches = sum(error.searches for error in counted)

    def mean(name: str) -> float:
        return sum(e.searches * int(getattr(e, name)) for e in counted) / searches / 1000

    far = [error.over_10mm for error in counted]
    counts = [number for number in far if number is not None]
    return CardErrors(
        after=after,
        part=part,
        label=label,
        searches=searches,
        mean=mean("mean_milli"),
        prior=mean("prior_milli"),
        over_10mm=sum(counts) / searches if counts and len(counts) == len(far) else None,
    )
