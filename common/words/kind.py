"""The words that only plans of one kind of run need: an entry of the registry names their room.

``RunKind.words`` says which module has them; whoever asks for words asks here, and nobody
else looks at the kind of a plan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from common.plan import RUNS, FederationPlan

Facts = list[tuple[str, str]]
Sentences = tuple[str, ...]


@dataclass(frozen=True)
class KindWords:
    """The sentences about a plan that follow from its kind.

    Attributes:
        fields: dotted names of what its sentences tell.
        facts: name and value of what is worth a look, for tables.
        work: what a site is asked to do.
        floors: what must stand behind what leaves.
        seen: what the aggregator sees, and what not.
        learnt: what the other sites learn.
        report: what a round's report holds, one clause.
    """

    fields: frozenset[str]
    facts: Callable[[FederationPlan], Facts]
    work: Callable[[FederationPlan], Sentences]
    floors: Callable[[FederationPlan], Sentences]
    seen: Callable[[FederationPlan], Sentences]
    learnt: Callable[[FederationPlan], Sentences]
    report: str = "counts, and the digests of what was computed with; or the number of a failure"


def words_of(plan: FederationPlan) -> KindWords:
    """Look up the words of a plan's kind."""
    words: KindWords = import_module(RUNS[plan.kind].words).WORDS
    return words


def tier(plan: FederationPlan) -> str:
    """Name the privacy tier."""
    return f"privacy tier {plan.limits.privacy_tier}"


def hidden(plan: FederationPlan) -> str:
    """Say what of the sketches the aggregator can look up."""
    if plan.limits.privacy_tier == 0:
        return (
            "This plan asks for no key: whoever has a site's sketch, the aggregator first, can "
            "look up in it whatever they think of."
        )
    return (
        "What the sketches counted it cannot look up: cells are hashed with a key that only "
        "the sites have. Totals, and how alike two sites' sketches are, it sees."
    )


def few(names: tuple[str, ...], shown: int = 8) -> str:
    """All names, or the first few and how many there are: a plan may have 256."""
    if len(names) <= shown:
        return ", ".join(names)
    return f"{', '.join(names[: shown - 2])}, … ({len(names)} in all)"
