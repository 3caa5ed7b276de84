"""The order of each round of a plan: one list that every party reads alike.

A run is nothing but this list from its first entry to its last; the aggregator
asks for one phase after the other, and a site refuses an order that is out of
its place. What a phase asks, merges and keeps is not decided here.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

from common.plan import FederationPlan

Phase = Literal["begin", "train", "evaluate", "survey", "range", "sketch", "recover", "embed"]
PHASES: Final[tuple[Phase, ...]] = get_args(Phase)
_AROUND: Final[frozenset[Phase]] = frozenset({"begin", "evaluate"})


def schedule(plan: FederationPlan) -> tuple[Phase, ...]:
    """Return the phase of every round, from round 0 on."""
    match plan.kind:
        case "training" | "no-op":
            training: list[Phase] = ["train"] * plan.rounds.training
            return ("begin", *training, "evaluate")
        case "pixels":
            # Levels of bands follow from the survey; components have ranges to be found.
            ranged: tuple[Phase, ...] = () if plan.pixels.codec == "all-bands" else ("range",)
            return ("begin", "survey", *ranged, "sketch", "recover")
        case "embed":
            return ("begin", "embed")


def is_work(phase: Phase) -> bool:
    """Tell whether a round does what its plan is for, as opposed to agreeing or measuring."""
    return phase not in _AROUND


def working_rounds(plan: FederationPlan) -> int:
    """Count a plan's rounds of work."""
    return sum(is_work(phase) for phase in schedule(plan))
