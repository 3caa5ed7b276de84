"""A run as its journal tells it, in frozen values. No I/O, no clock, no decision.

Lengths are mm, times seconds, sizes bytes. What can be derived is derived
(``RunState.site``, ``curve``, ``expected_end``), so that no two fields can
disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import median
from typing import Final, Literal

from aggregator.rounds.events import Awaited, RunVerdict
from common.plan import Kind
from common.schedule import Phase, is_work
from common.settings import MM
from common.wire.records import PARTS, Part, TaskError

TRAINED: Final[frozenset[Kind]] = frozenset({"training", "no-op"})
"""Kinds of run that have a model, landmarks and an experience sketch."""
Status = Literal["waiting", "training", "sent", "late", "rejected", "failed"]
PART_WORDS: Final[dict[Part, str]] = {"held-out": "held out", "training": "training"}
"""Words for a part of the sites' own cases, wherever an error is shown."""
Curve = tuple[tuple[int, float], ...]
"""Points (training rounds behind the model, mean error in the run's unit), ascending."""


@dataclass(frozen=True)
class SiteRound:
    """One site in one round.

    Attributes:
        status: what became of the round's order here.
        detail: why, when it is rejected, failed, late or left out of the average.
        accepted: whether its update is in the round's average.
        bytes: envelope bytes that left the site and arrived, all attempts together.
        records: the same per record type, by name.
        train_s, seconds: training alone; from the order to the answer.
        errors: the site's evaluation of the weights the round started from.
        relay: that its answer came by; empty where it answered the aggregator itself.
    """

    site: str
    status: Status = "training"
    detail: str = ""
    accepted: bool = False
    bytes: int = 0
    records: tuple[tuple[str, int], ...] = ()
    images: int = 0
    transitions: int = 0
    updates: int = 0
    loss: float | None = None
    train_s: float = 0.0
    seconds: float = 0.0
    ledger_size: int = 0
    errors: tuple[TaskError, ...] = ()
    relay: str = ""


@dataclass(frozen=True)
class RoundSummary:
    """One round.

    Attributes:
        trained: rounds of work that had finished when this one began; of a training
            run, the age of the weights that its ``errors`` speak of.
        attempts: how often its orders went out.
        earlier: who was late, rejected or failed in attempts before this one.
        seconds: from the orders to the average; None while it goes on.
        sketch_fill: share of non-zero cells of the merged table, 0 to 1.
        sketch_total: keys behind the merged table since the run began.
        alike: site and how alike its experience is to all others', in thousandths.
    """

    round: int
    phase: Phase
    trained: int
    started_at: datetime
    attempts: int = 1
    earlier: tuple[SiteRound, ...] = ()
    sites: tuple[SiteRound, ...] = ()
    finished_at: datetime | None = None
    seconds: float | None = None
    model_sha256: str = ""
    sketch_fill: float = 0.0
    sketch_total: int = 0
    alike: tuple[tuple[str, int], ...] = ()

    def of(self, site: str) -> SiteRound | None:
        """Return a site's part, None when it was not asked."""
        return next((s for s in self.sites if s.site == site), None)

    @property
    def errors(self) -> tuple[TaskError, ...]:
        """Every site's figures together."""
        return tuple(error for site in self.sites for error in site.errors)

    @property
    def troubled(self) -> tuple[SiteRound, ...]:
        """The sites that were late, rejected or failed, in any attempt."""
        now = tuple(s for s in self.sites if s.status in ("late", "rejected", "failed"))
        return self.earlier + now


@dataclass(frozen=True)
class SiteState:
    """A site as it stands now.

    Attributes:
        errors_mm: its latest evaluation of each part that it told, mean over searches.
        part: of ``curve``: held-out where the site told any of it, else training.
        curve: its errors by round.
    """

    site: str
    status: Status
    detail: str
    bytes_out: int
    seconds: float
    ledger_size: int
    errors_mm: Mapping[Part, float]
    part: Part
    curve: Curve

    @property
    def error_mm(self) -> float | None:
        """Its latest error on ``part``."""
        return self.errors_mm.get(self.part)


@dataclass(frozen=True)
class Incident:
    """Something that keeps a run from being COMPLETED without a word."""

    round: int
    site: str
    kind: Status
    why: str


@dataclass(frozen=True)
class Waiting:
    """A run's wait before its first orders go out, and for whom.

    Attributes:
        sites: empty when it is not known who will come; of a turn, the runs before it.
    """

    what: Awaited
    sites: tuple[str, ...] = ()

    @property
    def says(self) -> str:
        """In a line, e.g. ``waiting for the federation key: site-c``."""
        of_whom = f": {', '.join(self.sites)}" if self.sites else ""
        return f"waiting {_AWAITED[self.what]}{of_whom}"


_AWAITED: Final[dict[Awaited, str]] = {
    "turn": "for its turn behind other runs",
    "online": "for sites to be online",
    "federation_key": "for the federation key",
    "approval": "for people to approve the plan",
}
_AWAITED_OF: Final[dict[Awaited, str]] = {
    "turn": "",
    "online": "not online",
    "federation_key": "the federation key is on its way",
    "approval": "a person there has to approve the plan: cairn-site plans",
}


@dataclass(frozen=True)
class RunState:
    """Everything a journal says about a run.

    Attributes:
        started_at, resumed_at: first start, and the latest; they differ after a resumption.
        queued_at, ended_at: when it last began to wait for its turn, and when it ended.
        stopping: a coordinator wants it to end, and it has not yet.
        verdict: empty while the run goes on, and again when it is resumed.
        unit: of errors.
        reason: the aggregator's, with the verdict.
        seconds: since the latest start, as the aggregator measured; 0 while it goes on.
        earlier_s: seconds of the run before it was resumed.
        waiting: what is waited for before the first orders; None when nothing is, or it
            is over.
    """

    run: str = ""
    federation: str = ""
    plan_name: str = ""
    plan_fingerprint: str = ""
    kind: Kind = "training"
    unit: str = MM
    planned_rounds: int = 0
    quorum: int = 0
    sites: tuple[str, ...] = ()
    started_at: datetime | None = None
    resumed_at: datetime | None = None
    updated_at: datetime | None = None
    rounds: tuple[RoundSummary, ...] = ()
    queued_at: datetime | None = None
    ended_at: datetime | None = None
    stopping: bool = False
    verdict: RunVerdict | Literal[""] = ""
    reason: str = ""
    seconds: float = 0.0
    earlier_s: float = 0.0
    waiting: Waiting | None = None
    final_model: str = field(default="", repr=False)

    @property
    def current(self) -> RoundSummary | None:
        """The round that began last."""
        return self.rounds[-1] if self.rounds else None

    @property
    def phase(self) -> Phase | Literal["waiting", "finished"]:
        """The run's present phase."""
        if self.verdict:
            return "finished"
        return self.current.phase if self.current and not self._interrupted else "waiting"

    @property
    def standing(self) -> str:
        """In a word: a verdict, ``queued``, ``stopping``, or what it is at."""
        if self.verdict or self.stopping:
            return self.verdict or "stopping"
        queued = self.waiting is not None and self.waiting.what == "turn"
        return "queued" if queued else self.phase

    @property
    def trained(self) -> int:
        """Rounds of work that finished: of training, in a training run."""
        return sum(is_work(r.phase) and r.finished_at is not None for r in self.rounds)

    @property
    def round(self) -> int:
        """The round of work that goes on, or the last one; 0 before the first."""
        current = self.current
        running = current is not None and is_work(current.phase) and current.finished_at is None
        return self.trained + (1 if running and not self.verdict and not self._interrupted else 0)

    @property
    def _interrupted(self) -> bool:
        """Tell whether the newest round began before the run was resumed."""
        return (
            self.current is not None
            and self.resumed_at is not None
            and self.current.started_at < self.resumed_at
        )

    @property
    def model_sha256(self) -> str:
        """Digest of the newest weights all sites share; empty before there are any."""
        return self.final_model or next(
            (r.model_sha256 for r in reversed(self.rounds) if r.model_sha256), ""
        )

    @property
    def elapsed_s(self) -> float:
        """Seconds the run has been at work, without the time between its interruptions."""
        if self.seconds or self.updated_at is None:
            return self.earlier_s + self.seconds
        return self.elapsed_at(self.updated_at)

    def elapsed_at(self, now: datetime) -> float:
        """Return the same for a run that goes on, seen at ``now``."""
        if self.resumed_at is None:
            return self.earlier_s
        return self.earlier_s + max(0.0, (now - self.resumed_at).total_seconds())

    @property
    def expected_end(self) -> datetime | None:
        """Time when training will be done if the rounds to come last as long as those before.

        The median of the finished training rounds, so that one late site does
        not move it; None before the first has finished and after the last. Rounds of
        other work have little in common, so nothing is expected of them.
        """
        seconds = [r.seconds for r in self.rounds if r.phase == "train" and r.seconds is not None]
        rounds_left = self.planned_rounds - self.trained
        if self.verdict or not seconds or rounds_left <= 0 or self.current is None:
            return None
        since = self.current.finished_at or self.current.started_at
        if self.resumed_at is not None:
            since = max(since, self.resumed_at)
        return since + timedelta(seconds=rounds_left * median(seconds))

    @property
    def incidents(self) -> tuple[Incident, ...]:
        """The sites that were late, rejected or failed, in order of rounds."""
        return tuple(
            Incident(r.round, s.site, s.status, s.detail) for r in self.rounds for s in r.troubled
        )

    def why(self, most: int = 3) -> tuple[str, ...]:
        """Return the incidents in words, at most so many and how many more there are."""
        reasons = [
            f"round {i.round}: {i.site} {'was late' if i.kind == 'late' else i.kind}"
            + (f" ({i.why})" if i.why else "")
            for i in self.incidents
        ]
        if len(reasons) > most:
            reasons[most:] = [f"and {len(reasons) - most} more"]
        return tuple(reasons)

    def site(self, name: str) -> SiteState:
        """Return a site as it stands now."""
        answers = [answer for r in self.rounds if (answer := r.of(name))]
        now = self.current.of(name) if self.current and not self._interrupted else None
        status: Status = now.status if now else "waiting"
        if status == "training" and self.verdict:
            status = "waiting"  # nothing is awaited any more
        latest = {part: c[-1][1] for part in PARTS if (c := self.curve(part, name))}
        part: Part = next(iter(latest), "training")
        return SiteState(
            site=name,
            status=status,
            detail=(now.detail if now else "") or self._awaited_of(name),
            bytes_out=sum(a.bytes for a in answers),
            seconds=next((a.seconds for a in reversed(answers) if a.seconds), 0.0),
            ledger_size=max((a.ledger_size for a in answers), default=0),
            errors_mm=latest,
            part=part,
            curve=self.curve(part, name),
        )

    def _awaited_of(self, site: str) -> str:
        """Say why the run waits for a site; empty when it does not."""
        if self.waiting is None or site not in self.waiting.sites or self.verdict:
            return ""
        return _AWAITED_OF[self.waiting.what]

    @property
    def parts(self) -> tuple[Part, ...]:
        """Return the parts that any site told errors of; the first one is the headline."""
        return tuple(part for part in PARTS if self.evaluated(part))

    def curve(self, part: Part, site: str | None = None) -> Curve:
        """Mean error by training rounds behind the model, weighted by searches.

        Args:
            part: of the sites' own cases.
            site: one site's own evaluation; all sites' that answered when omitted.
        """
        points: dict[int, float] = {}
        for r in self.rounds:
            answers = r.of(site) if site else r
            mean = mean_mm(answers.errors, part) if answers else None
            if mean is not None:
                points[r.trained] = mean
        return tuple(sorted(points.items()))

    def evaluated(self, part: Part) -> tuple[RoundSummary, ...]:
        """Return the rounds in which any site told its errors on a part."""
        return tuple(r for r in self.rounds if mean_mm(r.errors, part) is not None)


def rounds_of(state: RunState) -> str:
    """Name a run's rounds of work."""
    return "training rounds" if state.kind in TRAINED else "rounds"


def mean_mm(errors: Iterable[TaskError], part: Part, landmark: str | None = None) -> float | None:
    """Average the errors on a part, weighted by searches; None when nothing was searched."""
    return _weighted(errors, part, landmark, "mean_milli")


def prior_mm(errors: Iterable[TaskError], part: Part, landmark: str | None = None) -> float | None:
    """Average the mean-position predictor's errors on the same cases, weighted alike."""
    return _weighted(errors, part, landmark, "prior_milli")


def _weighted(
    errors: Iterable[TaskError],
    part: Part,
    landmark: str | None,
    name: Literal["mean_milli", "prior_milli"],
) -> float | None:
    chosen = [e for e in errors if e.part == part and landmark in (None, e.label)]
    searches = sum(e.searches for e in chosen)
    if searches == 0:
        return None
    total = sum(
        e.searches * (e.mean_milli if name == "mean_milli" else e.prior_milli) for e in chosen
    )
    return total / searches / 1000.0


def sites_with(state: RunState) -> dict[str, tuple[str, ...]]:
    """By landmark that not all sites evaluated, those that did, in order of name."""
    reported = {
        (site.site, error.label) for r in state.rounds for site in r.sites for error in site.errors
    }
    sites = sorted({site for site, _ in reported})
    having = {
        label: tuple(site for site in sites if (site, label) in reported)
        for label in landmarks_of(state)
    }
    return {label: names for label, names in having.items() if len(names) < len(sites)}


def landmarks_of(state: RunState) -> tuple[str, ...]:
    """Landmarks that were evaluated, in the order in which they first appear."""
    return tuple(dict.fromkeys(e.label for r in state.rounds for e in r.errors))
