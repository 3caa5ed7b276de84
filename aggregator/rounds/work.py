"""The work of a plan's kind in a run: what it asks, what it merges, what it keeps.

One small module per kind behind one interface; the conductor knows no other
difference between a run of training and one of pixels. None of them does I/O but
that of the answers it is handed, and nothing is merged that intake has not accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Protocol

from aggregator.intake.reply import Reply
from aggregator.rounds.answers import AcceptedAnswer, Measure
from aggregator.rounds.ask import Ask
from aggregator.rounds.course import Agreement, Step
from aggregator.rounds.store import RoundState, RunStore
from common.plan import RUNS
from common.sums.addition import Sum

__all__ = ["Ask", "Work", "make_work"]


class Work(Protocol):
    """The work of one run; ``TrainingWork``, ``PixelWork`` and ``EmbedWork`` are exchangeable."""

    def check_start(self, reply: Reply) -> None:
        """Refuse, in round 0, a site that starts from something else.

        Raises:
            RefusedError: it may not take part in this run.
        """

    @property
    def origin(self) -> str:
        """Digest of what the run starts from: of weights, or of how pixels become keys."""

    def start(self, agreement: Agreement) -> RoundState:
        """Return the state after round 0."""

    def ask(self, step: Step, state: RoundState | None) -> Ask:
        """Write what the order of a step holds."""

    def codec(self, step: Step, state: RoundState | None) -> str | None:
        """Identity that the sites' records must name; None before round 0 has settled it."""

    def measure(self, step: Step, reply: Reply) -> Measure:
        """Return what of a reply is compared with the others'; the reply is let go after it."""

    def odd(
        self, step: Step, state: RoundState | None, answers: Mapping[str, AcceptedAnswer]
    ) -> dict[str, str]:
        """Sites whose accepted records do not go with the others', with the reason.

        Raises:
            RefusedError: nobody can tell who is right.
        """

    def merge(
        self,
        step: Step,
        state: RoundState,
        answers: Mapping[str, AcceptedAnswer],
        total: Sum | None,
    ) -> RoundState:
        """Return the state after a step.

        Args:
            step: that was taken.
            state: before it.
            answers: that were accepted; the records of each can be read once more.
            total: the sum of their records, in phases that have one.

        Raises:
            CairnError: the records together give nothing to go on with; the run ends.
        """

    def sketched(self, state: RoundState) -> tuple[float, int]:
        """Fill of the merged table and keys behind it, for the journal."""


def make_work(store: RunStore) -> Work:
    """Return the work of a run's plan."""
    room = import_module(RUNS[store.plan().kind].work)
    work: Work = room.work_of(store)
    return work
