"""The kinds of run there are: an entry each, and a room at either end that implements it.

What a plan of a kind holds, which phases its rounds have, and where the site's study, the
aggregator's work and the words about it are. Records and their rules follow from the phases
(``common.wire.rules.ANSWERS``). Nothing is imported here but names: a site never loads
the aggregator's room, nor the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol, get_args

from common.plan.limits import Rounds
from common.plan.pixels import Pixels
from common.settings import AgentSettings

Kind = Literal["training", "no-op", "pixels", "embed"]
Phase = Literal["begin", "train", "evaluate", "survey", "range", "sketch", "recover", "embed"]
PHASES: Final[tuple[Phase, ...]] = get_args(Phase)
Phases = tuple[Phase, ...]


class Scheduled(Protocol):
    """The part of a plan that decides the phases of its rounds."""

    @property
    def rounds(self) -> Rounds:
        """Number of training rounds among others."""

    @property
    def pixels(self) -> Pixels:
        """Of plans about slides."""


@dataclass(frozen=True)
class RunKind:
    """One kind of run.

    Attributes:
        must: the section that a plan of it must give.
        may: the sections that it may give, beside those of every plan.
        phases: the phase of every round, from round 0 on.
        study: module of the site whose ``ROOM`` makes its study.
        work: module of the aggregator whose ``work_of`` makes its work.
        words: module of ``common.words`` whose ``WORDS`` say what its plans ask.
        trains: whether its sites have the settings of an agent, and a model.
        slides: whether its sites read slides, and not scans.
    """

    must: str
    may: frozenset[str]
    phases: Callable[[Scheduled], Phases]
    study: str
    work: str
    words: str
    trains: bool = False
    slides: bool = False


def _training(plan: Scheduled) -> Phases:
    rounds: list[Phase] = ["train"] * plan.rounds.training
    return ("begin", *rounds, "evaluate")


def _pixels(plan: Scheduled) -> Phases:
    # Levels of bands follow from the survey; components have ranges to be found.
    ranged: Phases = () if plan.pixels.codec == "all-bands" else ("range",)
    return ("begin", "survey", *ranged, "sketch", "recover")


def _embed(_: Scheduled) -> Phases:
    return ("begin", "embed")


_AGENT: Final = frozenset({*AgentSettings.model_fields, "experience", "start"})

RUNS: Final[Mapping[Kind, RunKind]] = {
    "training": RunKind(
        "task",
        _AGENT,
        _training,
        study="site_client.worker.training",
        work="aggregator.rounds.training",
        words="common.words.training",
        trains=True,
    ),
    "no-op": RunKind(
        "task",
        _AGENT,
        _training,
        study="site_client.worker.noop",
        work="aggregator.rounds.training",
        words="common.words.noop",
        trains=True,
    ),
    "pixels": RunKind(
        "pixels",
        frozenset({"pixels"}),
        _pixels,
        study="site_client.worker.pixels",
        work="aggregator.rounds.pixels",
        words="common.words.pixels",
        slides=True,
    ),
    "embed": RunKind(
        "embed",
        frozenset({"embed"}),
        _embed,
        study="site_client.worker.embedding",
        work="aggregator.rounds.embedding",
        words="common.words.embed",
        slides=True,
    ),
}
