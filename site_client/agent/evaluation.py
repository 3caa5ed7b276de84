"""Distances from the truth at which greedy searches end, beside a predictor that never looks.

Every search starts on the coarsest level. Summaries hold no case's name or number;
the single searches behind them do, and stay where they are. Errors are given under
random poses, because scans that were all aligned the same way let a memorised
position pass for skill, and as acquired ("native").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import nn

from common.errors import InputDataError, InternalError
from common.settings import EvaluationSettings
from site_client.agent.network import use_deterministic_torch
from site_client.agent.search import Values, search_in_groups
from site_client.agent.task import MM, Situations, Task

FAR_MM = 10.0
_WARM_STEPS = 4


@dataclass(frozen=True)
class ErrorSummary:
    """Errors of one head, in the task's unit.

    Attributes:
        unit: of the errors.
        searches: searches summarised.
        mean, median, std: over single searches.
        share_above_10mm: share of searches that ended more than 10 mm away; None in
            another unit.
        consensus: mean error of what the starts of a case agree on, outliers rejected.
        prior: mean error of the constant predictor on the same poses; None if none was
            given, or its cases never had this head.
        further: means of the task's other figures over single searches.
    """

    unit: str
    searches: int
    mean: float
    median: float
    std: float
    share_above_10mm: float | None
    consensus: float
    prior: float | None
    further: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """For JSON; errors in mm have names that say so."""
        errors = ("mean", "median", "std", "consensus", "prior")
        mark = _mark(self.unit)
        return {(k + mark if k in errors else k): v for k, v in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class Searched:
    """The single searches behind the summaries; these name cases by number.

    Attributes:
        found: situations [groups, starts] in which the searches ended; the searches of a
            group differ in nothing but their start.
        errors: float64[groups, starts[, agents]].
        agreed: situations [groups], moved to what their starts agree on.
        agreed_errors: float64[groups[, agents]].
        prior_errors: float64[groups[, agents]], or None without a prior.
        further: the task's other figures by name, float64[groups, starts].
    """

    found: Situations
    errors: NDArray[np.float64]
    agreed: Situations
    agreed_errors: NDArray[np.float64]
    prior_errors: NDArray[np.float64] | None
    further: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class EvaluationReport:
    """The figures of an evaluation.

    Attributes:
        cases: cases evaluated.
        unit: of the errors.
        posed, native: head's name to its errors, under random poses and as acquired;
            native is empty when it was not asked for.
        posed_searches, native_searches: the single searches, for tables that stay at
            the site; not part of `as_dict`.
    """

    cases: int
    unit: str
    posed: dict[str, ErrorSummary]
    native: dict[str, ErrorSummary]
    posed_searches: Searched = field(compare=False, repr=False)
    native_searches: Searched | None = field(default=None, compare=False, repr=False)

    @property
    def mean(self) -> float:
        """Mean posed error over the heads."""
        return float(np.mean([summary.mean for summary in self.posed.values()]))

    @property
    def prior(self) -> float | None:
        """Mean posed error of the constant predictor over the heads."""
        priors = [s.prior for s in self.posed.values() if s.prior is not None]
        return float(np.mean(priors)) if priors else None

    def as_dict(self) -> dict[str, object]:
        """The summaries for JSON."""
        return {
            "cases": self.cases,
            "unit": self.unit,
            "posed": {name: summary.as_dict() for name, summary in self.posed.items()},
            "native": {name: summary.as_dict() for name, summary in self.native.items()},
            f"mean{_mark(self.unit)}": self.mean,
            f"prior{_mark(self.unit)}": self.prior,
        }


def evaluate(
    task: Task,
    policy: nn.Module | Values,
    settings: EvaluationSettings,
    seed: int,
    prior: NDArray[np.floating] | None = None,
    names: Sequence[str] | None = None,
    threads: int = 1,
) -> EvaluationReport:
    """Search everything that every case has, from several starts.

    Args:
        task: over the held-out cases.
        policy: a Q-network, or a function with its values.
        settings: starts, poses and when a search ends.
        seed: draws poses and starts; equal seeds compare networks on equal searches.
        prior: float[heads[, agents], d], the constant predictor: `mean_parameters` of the
            *training* cases.
        names: of the heads; of head and agent, head by head, when agents search
            together. Numbers from 0 without them.
        threads: of torch.

    Raises:
        InternalError: names that do not fit the task.
        InputDataError: searches are to begin at a prior that nobody knows.
    """
    use_deterministic_torch(threads)
    rng = np.random.Generator(np.random.PCG64(seed))

    def begin(*, posed: bool) -> Situations:
        starts = task.starts(rng, settings.starts, posed=posed)
        return begin_warm(task, starts, prior, rng) if settings.warm_start else starts

    draws = [begin(posed=True) for _ in range(settings.poses)]
    posed = _search(task, policy, settings, np.concatenate(draws), prior)
    native = None
    if settings.native:
        starts = begin(posed=False)
        native = _search(task, policy, settings, starts, prior)
    labels = _labels(task, names)
    return EvaluationReport(
        cases=len(task),
        unit=task.unit,
        posed=_summaries(task.unit, labels, posed),
        native={} if native is None else _summaries(task.unit, labels, native),
        posed_searches=posed,
        native_searches=native,
    )


def begin_warm(
    task: Task,
    starts: Situations,
    prior: NDArray[np.floating] | None,
    rng: np.random.Generator,
) -> Situations:
    """Begin searches near the constant predictor, some random steps of the coarsest level away.

    Args:
        task: whose actions are steps.
        starts: of the searches; moved in place.
        prior: see `evaluate`.
        rng: draws the steps.

    Raises:
        InputDataError: nobody knows the prior.
    """
    if prior is None:
        raise InputDataError(
            "searches cannot begin at the mean position",
            field="evaluation.warm_start",
            expected="a model that knows the mean position of its training cases",
            got="one that does not",
            advice="Leave it at false: searches then begin anywhere",
        )
    task.move_to(starts, prior[starts["head"].astype(np.int64)].astype(np.float32))
    for _ in range(_WARM_STEPS):
        starts["action"] = rng.integers(0, task.actions, starts["action"].shape)
        starts[:] = task.step(starts).reached
    # What led here was no search: its history is forgotten.
    task.move_to(starts, task.parameters(starts))
    return starts


def mean_parameters(task: Task) -> NDArray[np.float64]:
    """float64[heads[, agents], d]: the mean truth over a task's cases as acquired, per head.

    A head that no case has is NaN.
    """
    situations = task.starts(np.random.Generator(np.random.PCG64(0)), 1, posed=False)
    targets = task.targets(situations)
    heads = situations["head"].astype(np.int64)
    mean = np.full((task.heads, *targets.shape[1:]), np.nan)
    for head in np.unique(heads):
        mean[head] = targets[heads == head].mean(axis=0)
    return mean


def as_parameters(task: Task, prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give a prior float64[heads, agents, d] the axes of the task's parameters.

    Raises:
        InternalError: it is another task's.
    """
    if prior.shape[:2] != (task.heads, task.agents):
        raise InternalError(
            "the constant predictor does not fit the task",
            expected=str((task.heads, task.agents)),
            got=str(prior.shape[:2]),
        )
    return prior if task.agents > 1 else prior[:, 0]


def _search(
    task: Task,
    policy: nn.Module | Values,
    settings: EvaluationSettings,
    starts: Situations,
    prior: NDArray[np.floating] | None,
) -> Searched:
    """Run searches whose starts for one case, pose and head are adjacent."""
    last, agreed = search_in_groups(task, policy, starts, settings.starts, settings)
    ended = last.reshape(-1)
    errors = task.errors(ended)
    # Of couples of landmarks, in the better of their two orders.
    errors_of: Callable[[Situations], NDArray[np.float64]] = getattr(
        task, "agreed_errors", task.errors
    )
    prior_errors = None
    if prior is not None:
        constant = agreed.copy()
        task.move_to(constant, prior[constant["head"].astype(np.int64)].astype(np.float32))
        prior_errors = errors_of(constant)
    further = task.report(ended)
    return Searched(
        found=last,
        errors=errors.reshape(*last.shape, *errors.shape[1:]),
        agreed=agreed,
        agreed_errors=errors_of(agreed),
        prior_errors=prior_errors,
        further={name: value.reshape(last.shape) for name, value in further.items()},
    )


def _labels(task: Task, names: Sequence[str] | None) -> list[str]:
    """One name per head, or per head and agent.

    Raises:
        InternalError: too few or too many.
    """
    heads = task.heads * task.agents
    if names is None:
        return [str(k) for k in range(heads)]
    if len(names) == heads:
        return list(names)
    if len(names) == task.heads:
        return [f"{name} #{k + 1}" for name in names for k in range(task.agents)]
    raise InternalError("names do not fit the task", expected=f"{heads}", got=str(len(names)))


def _summaries(unit: str, labels: Sequence[str], searched: Searched) -> dict[str, ErrorSummary]:
    """Errors per head (and agent) that was searched for."""
    heads = searched.agreed["head"].astype(np.int64)
    groups, starts = searched.found.shape
    errors = searched.errors.reshape(groups, starts, -1)
    agreed = searched.agreed_errors.reshape(groups, -1)
    prior = None if searched.prior_errors is None else searched.prior_errors.reshape(groups, -1)
    agents = errors.shape[2]
    summaries: dict[str, ErrorSummary] = {}
    for k, name in enumerate(labels):
        head, agent = divmod(k, agents)
        of = heads == head
        if not of.any():
            continue
        e = errors[of, :, agent]
        summaries[name] = ErrorSummary(
            unit=unit,
            searches=e.size,
            mean=float(e.mean()),
            median=float(np.median(e)),
            std=float(e.std()),
            share_above_10mm=float((e > FAR_MM).mean()) if unit == MM else None,
            consensus=float(agreed[of, agent].mean()),
            prior=None if prior is None else _finite(prior[of, agent].mean()),
            further={name: float(value[of].mean()) for name, value in searched.further.items()},
        )
    return summaries


def _mark(unit: str) -> str:
    """Return what an error's name in JSON ends with."""
    return "_mm" if unit == MM else ""


def _finite(value: np.floating) -> float | None:
    """The value, or None for one that could not be computed."""
    return float(value) if np.isfinite(value) else None
