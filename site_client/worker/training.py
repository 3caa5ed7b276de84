"""A run of training: evaluate the weights it has come to, train on them, describe what changed.

Held-out cases are evaluated on, beside those trained on; the learner never gets them.
Images, transitions and case names stay in this process. What is returned is a
difference of weights, a keyed sketch and counts. Bit for bit repeatable from
plan, site name, cases and orders.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from common.canonical import sha256_hex
from common.errors import InputDataError
from common.model import Weights, own_part
from common.plan import FederationPlan
from common.sums.derivation import Derived
from common.sums.fixed_point import from_fixed_point, to_fixed_point
from common.wire.bounds import samples_of
from common.wire.codes import ReplyCode
from common.wire.envelope import Envelope
from common.wire.labels import LABELS
from common.wire.records import PARTS, ModelUpdate, Part, RoundReport, TaskError
from site_client.worker.experience import (
    experience_identity,
    experience_spec,
    federation_knows,
)
from site_client.worker.lacking import labels_searched
from site_client.worker.round_in_hand import RoundInHand
from site_client.worker.state import SavedStates
from site_client.worker.study import Assignment, Given, State, Study, StudyRoom, Subject

if TYPE_CHECKING:
    from site_client.agent.evaluation import ErrorSummary, EvaluationReport
    from site_client.agent.experience import NewExperience
    from site_client.agent.learner import Learner, TrainingReport
    from site_client.agent.method import Watch
    from site_client.worker.site_cases import SiteCases

LOG = logging.getLogger("cairn.worker")
Progress = Callable[[int, int], None]
Evaluations = dict[Part, "EvaluationReport"]
_LARGEST = 10_000_000
_SENT: Final = "sent/"
_EVALUATION_SEED = 0x6576616C  # "eval": apart from the site's exploration


@dataclass(frozen=True, eq=False)
class LastUpdate:
    """The last round's training, as a rehearsal looks at it; nothing of it is sent.

    Attributes:
        before: the weights trained from, this site's own heads among them.
        delta: what training changed, as the arrays of the `ModelUpdate` tell it: of heads
            that stay here they tell nothing, which is a change of 0.
        cases: what was trained on.
        seed: of this site's exploration and sampling.
    """

    before: Mapping[str, NDArray[np.float32]]
    delta: Mapping[str, NDArray[np.float32]]
    cases: SiteCases
    seed: int


@dataclass(frozen=True, eq=False)
class Sent:
    """The update of the last round trained, kept where a plan lets it count later.

    Attributes:
        round: that it was an answer to.
        delta: int32 by name of a weight.
    """

    round: int
    delta: Mapping[str, NDArray[np.int32]]

    def as_state(self) -> State:
        """The same beside a learner's state."""
        state: State = {f"{_SENT}{name}": array for name, array in self.delta.items()}
        return {**state, _SENT: np.asarray(self.round)}

    @classmethod
    def of_state(cls, state: Mapping[str, NDArray[np.generic]]) -> Sent | None:
        """Read what ``as_state`` wrote; None without any."""
        if _SENT not in state:
            return None
        delta = {
            name.removeprefix(_SENT): np.asarray(array, np.int32)
            for name, array in state.items()
            if name.startswith(_SENT) and name != _SENT
        }
        return cls(int(state[_SENT]), delta)


class TrainingStudy:
    """A site's learner over the rounds of one run.

    Args:
        subject: site, run, plan and sketch.
        cases: the site's images with their landmarks that are trained on.
        progress: called with (updates done, updates of this round); may raise
            ``StoppedError`` to leave the round, which then never happened.
        watch: shown the transitions of every gradient step; only a rehearsal has one.
        held_out: images that are only evaluated on, and never trained on.
        states: where the state within a round is kept; None: it is not.
        least_updates: fewest gradient steps of a round, however short its time.
        clock: seconds, from whenever.

    Attributes:
        trained: the last round trained.
        last_update: of the last round, for whoever watches; None where nobody does.
    """

    def __init__(
        self,
        subject: Subject,
        cases: SiteCases,
        progress: Progress | None = None,
        watch: Watch | None = None,
        held_out: SiteCases | None = None,
        *,
        states: SavedStates | None = None,
        least_updates: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._subject = subject
        self._states, self._least_updates, self._clock = states, least_updates, clock
        self._sent: Sent | None = None
        self._cases = cases
        self._held_out = held_out
        self._progress = progress
        self._watch = watch
        self._learner: Learner | None = None
        self.trained = 0
        self.last_update: LastUpdate | None = None

    def answer(self, assignment: Assignment) -> list[Envelope]:
        """See ``Study``."""
        if assignment.header.phase == "begin":
            return [self._report(assignment)]
        evaluation = self._evaluate(self._whole(assignment))
        if assignment.header.phase == "evaluate":
            return [self._report(assignment, evaluation)]
        return self._train(assignment, evaluation)

    def state(self) -> State:
        """See ``Study``."""
        state = self._ready_learner().state_dict()
        return state if self._sent is None else state | self._sent.as_state()

    def load_state(self, trained: int, state: Mapping[str, NDArray[np.generic]]) -> None:
        """See ``Study``."""
        self._ready_learner().load_state(state)
        self._sent = Sent.of_state(state)
        self.trained = trained

    def own_weights(self) -> Weights:
        """See ``Study``: the learner's own heads, whose optimiser goes on from them, too."""
        if not self._subject.plan.network.private_heads:
            return {}
        return own_part(self._ready_learner().weights(), self._subject.plan)

    def _whole(self, assignment: Assignment) -> Weights:
        """All weights of this site: those that all sites share, and its own."""
        return {**assignment.model.weights, **self.own_weights()}

    def _train(self, assignment: Assignment, evaluation: Evaluations) -> list[Envelope]:
        from site_client.agent.network import set_some_weights

        subject, learner, round_ = self._subject, self._ready_learner(), assignment.header.round
        model = assignment.model
        whole = self._whole(assignment)
        learner.load(whole)
        lookup = federation_knows(subject.plan, subject.spec, model, first=self.trained == 0)
        in_hand = RoundInHand(
            learner,
            lookup,
            sha256_hex(f"{assignment.derived.link} {round_}".encode("ascii")),
            self._states,
            train_s=subject.plan.rounds.train_s,
            least=self._least_updates,
            clock=self._clock,
        )
        training = learner.train(
            subject.plan.updates_in(round_),
            lookup,
            sofar=in_hand.resume(),
            goes_on=in_hand.goes_on,
        )
        if round_ == subject.plan.rounds.training:
            # Once, at the end: before it the weights are not what will be searched with.
            set_some_weights(learner.network, self._cases.worked_out(learner.weights()))
        after = learner.weights()
        changed = {name: after[name] - array for name, array in model.weights.items()}
        delta = to_fixed_point(self._with_what_came_late(changed, assignment.derived))
        if subject.plan.rounds.late_weight:
            self._sent = Sent(round_, delta)
        experience, images = learner.new_experience(), len(self._cases)
        self.trained = round_
        if self._watch is not None:
            untold = {name: np.zeros_like(array) for name, array in whole.items()}
            released = {**untold, **from_fixed_point(delta)}
            self.last_update = LastUpdate(whole, released, self._cases, subject.seed)
        if subject.plan.tells_labels:
            delta[LABELS] = labels_searched(self._cases.task)
        update = ModelUpdate(
            **subject.about(round_),
            images=images,
            samples=samples_of(subject.plan, images, training.updates, subject.samples),
            transitions=training.transitions,
            updates=training.updates,
        )
        return [
            Envelope(update, delta),
            *self._table(round_, experience),
            self._report(assignment, evaluation, training, round(in_hand.seconds * 1000)),
        ]

    def _table(self, round_: int, experience: NewExperience) -> list[Envelope]:
        """Sketch what was met or replayed, where the plan has a reader of it."""
        match self._subject.plan.counts:
            case None:
                return []
            case "experience":
                return [self._subject.table(round_, experience.keys)]
            case "errors":
                return [self._subject.error_tables(round_, *experience)]

    def _with_what_came_late(self, changed: Weights, derived: Derived) -> Weights:
        """Add the plan's share of the last round's update where that round's sum is without it."""
        sent = self._sent
        was_late = sent is not None and sent.round == derived.round and derived.members
        if sent is None or not was_late or self._subject.site in derived.members:
            return changed
        share = self._subject.plan.rounds.late_weight
        LOG.info(
            "the update of round %d came too late: %g of it goes with this one",
            *(sent.round, share),
        )
        late = from_fixed_point(sent.delta)
        return {name: array + np.float32(share) * late[name] for name, array in changed.items()}

    def _evaluate(self, weights: Weights) -> Evaluations:
        """On both parts of the site's own cases, alike.

        As the plan's ``evaluation`` says, under random poses. The answer that never looks is
        of the training part, on either.
        """
        from site_client.agent.federated import evaluate_weights

        cases: dict[Part, SiteCases | None] = {"held-out": self._held_out, "training": self._cases}
        return {
            part: evaluate_weights(
                weights,
                self._subject.plan,
                own.task,
                self._subject.seed ^ _EVALUATION_SEED,
                self._cases.prior,
                self._cases.labels,
            )
            for part in PARTS
            if (own := cases[part]) is not None
        }

    def _report(
        self,
        assignment: Assignment,
        evaluations: Evaluations | None = None,
        training: TrainingReport | None = None,
        train_ms: int = 0,
    ) -> Envelope:
        subject = self._subject
        errors = [
            task_error(name, part, summary)
            for part, evaluation in (evaluations or {}).items()
            for name, summary in evaluation.posed.items()
            if summary.searches
        ]
        record = RoundReport(
            **subject.about(assignment.header.round),
            code=ReplyCode.OK,
            images=len(self._cases),
            held_out=0 if self._held_out is None else len(self._held_out),
            transitions=0 if training is None else training.transitions,
            updates=0 if training is None else training.updates,
            weights_sha256=assignment.model.digest,
            link=assignment.derived.link,
            key_id=subject.spec.key_id,
            codec=subject.spec.domain,
            errors=tuple(errors),
            loss_milli=0 if training is None else _milli(training.loss_mean),
            epsilon_milli=0 if training is None else _milli(training.epsilon),
            train_ms=train_ms,
        )
        return Envelope(record, {})

    def _ready_learner(self) -> Learner:
        if self._learner is None:
            from site_client.agent.federated import planned_learner

            self._learner = planned_learner(
                self._subject.plan,
                self._cases.to_learn_from,
                self._subject.seed,
                self._progress,
                self._watch,
            )
        return self._learner


def task_error(name: str, part: Part, summary: ErrorSummary) -> TaskError:
    """Return an evaluation's figures in thousandths of the task's unit, as a report has them.

    Args:
        name: of what was looked for.
        part: of the site's cases.
        summary: of one search at least.
    """
    far = summary.share_above_10mm
    return TaskError(
        label=name,
        part=part,
        searches=summary.searches,
        mean_milli=_thousandths(summary.mean),
        median_milli=_thousandths(summary.median),
        consensus_milli=_thousandths(summary.consensus),
        prior_milli=_thousandths(summary.prior or 0.0),
        over_10mm=None if far is None else round(far * summary.searches),
    )


def _thousandths(error: float) -> int:
    """0 for what could not be computed; the largest that a report has place for."""
    return 0 if math.isnan(error) else min(_LARGEST, round(error * 1000))


def _milli(value: float) -> int:
    """Thousandths; 0 for what could not be computed, the largest count for what ran away."""
    if math.isnan(value):
        return 0
    return round(min(value * 1000, 2**52))


def _read_parts(plan: FederationPlan, material: Given) -> tuple[SiteCases, SiteCases | None]:
    """Read every case; those to train on, and the held-out ones whose errors may be told.

    Nobody is chosen before all images could be read: who is chosen is remembered.
    """
    from site_client.worker.site_cases import read_site_cases

    parts = material.parts
    cases = read_site_cases(
        material.data, plan, material.progress, settings=material.data_file, least=parts.least
    )
    names = cases.names
    division = parts.divide(names)
    LOG.info("held out: %s", division.says)
    training = [number for number, name in enumerate(names) if name not in division.held_out]
    held_out = [number for number, name in enumerate(names) if name in division.held_out]
    if held_out and len(training) < parts.least:
        raise InputDataError(
            "too few images are left to train on",
            field=str(material.data),
            expected=f"at least {parts.least} that are not held out",
            got=str(len(training)),
            advice="Add scans, or hold fewer subjects out in policy.toml",
        )
    least = max(parts.least, plan.limits.min_images)
    trained = cases.part(training).with_enough_of_each(least)
    if not held_out:
        return trained, None
    try:
        apart = cases.part(held_out).with_enough_of_each(least)
    except InputDataError:  # of no label are there enough
        apart = cases.part([])
    if len(apart) < least:
        LOG.warning("no held-out errors are told: they would rest on fewer than %d images", least)
        return trained, None
    return trained, apart


def _make(subject: Subject, material: Given) -> Study:
    cases, held_out = _read_parts(subject.plan, material)

    def progress(done: int, total: int) -> None:
        material.progress("training", done, total)

    return TrainingStudy(
        subject,
        cases,
        progress,
        material.watch,
        held_out,
        states=material.states,
        least_updates=material.least_updates,
        clock=material.clock,
    )


ROOM: Final = StudyRoom(experience_spec, experience_identity, _make)
