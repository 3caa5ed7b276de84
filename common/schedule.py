"""The order of each round of a plan: one list that every party reads alike.

A run is nothing but this list from its first entry to its last; the aggregator
asks for one phase after the other, and a site refuses an order that is out of
its place. What a phase asks, merges and keeps is not decided here.
"""

from __future__ import annotations

from typing import Final

from common.plan import PHASES, RUNS, FederationPlan, Phase

__all__ = ["PHASES", "Phase", "is_work", "schedule", "working_rounds"]

_AROUND: Final[frozenset[Phase]] = frozenset({"begin", "evaluate"})


def schedule(plan: FederationPlan) -> tuple[Phase, ...]:
    """Return the phase of every round, from round 0 on."""
    return RUNS[plan.kind].phases(plan)


def is_work(phase: Phase) -> bool:
    """Tell whether a round does what its plan is for, as opposed to agreeing or measuring."""
    return phase not in _AROUND


def working_rounds(plan: FederationPlan) -> int:
    """Count a plan's rounds of work."""
    return sum(is_work(phase) for phase in schedule(plan))
