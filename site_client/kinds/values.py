"""Values that pass between a kind of task and those who ask it: tasks, findings, measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from common.settings import AgentSettings
from site_client.agent.evaluation import EvaluationReport
from site_client.agent.networks import QNetwork
from site_client.agent.task import Task
from site_client.imaging.case_sets import Cases
from site_client.kinds.tables import Table

T = TypeVar("T", bound=Task)


class Found(Protocol):
    """One thing that was found in one case."""

    @property
    def name(self) -> str:
        """Name the case."""

    def as_dict(self) -> dict[str, object]:
        """Write it for JSON."""


F = TypeVar("F", bound=Found)


@dataclass(frozen=True, eq=False)
class Built(Generic[T]):
    """A task over some cases.

    Attributes:
        task: what is searched.
        cases: the cases, numbered as in the task.
        labels: a name for every agent of every head.
        teams: int64[heads, agents], which landmark or label each agent of each head looks for.
    """

    task: T
    cases: Cases
    labels: tuple[str, ...]
    teams: NDArray[np.int64]

    @staticmethod
    def of(task: T, cases: Cases, labels: tuple[str, ...]) -> Built[T]:
        """Name the heads of a task of one agent."""
        return Built(task, cases, labels, np.arange(len(labels))[:, None])


@dataclass(frozen=True, eq=False)
class Player(Generic[T]):
    """A network that searches some cases.

    Attributes:
        built: the task over the cases.
        network: what searches.
        config: settings of the search.
        say: is told what is being done.
        prior: float64[heads[, agents], d], mean parameters of the training cases; None where
            they are not known.
    """

    built: Built[T]
    network: QNetwork
    config: AgentSettings
    say: Callable[[str], None] = lambda _: None
    prior: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Extra:
    """A table that only some kinds have.

    Attributes:
        name: of its part of the page, for links.
        said: over it on a terminal.
        title, note: over it on a page.
        table: the numbers.
    """

    name: str
    said: str
    title: str
    note: str
    table: Table


@dataclass(frozen=True, eq=False)
class Answers(Generic[F]):
    """Findings of searches in the cases as acquired.

    Attributes:
        findings: by case.
        further: what else a measurement says, for JSON.
        extras: the same for people.
        warnings: to whoever plays.
    """

    findings: tuple[F, ...]
    further: Mapping[str, object] = field(default_factory=dict)
    extras: tuple[Extra, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Measured(Generic[T, F]):
    """Results of an evaluation, for a kind to show.

    Attributes:
        config: with the settings that it was measured with.
        built: the task over the cases.
        report: errors of single searches.
        answers: what was found.
    """

    config: AgentSettings
    built: Built[T]
    report: EvaluationReport
    answers: Answers[F]
