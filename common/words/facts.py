"""A plan in a few lines: name and value of everything worth a look, for tables."""

from __future__ import annotations

from common.cli import megabytes
from common.plan import FederationPlan
from common.words.kind import words_of
from common.words.leaving import most_in_a_round, most_in_a_run


def facts_of(plan: FederationPlan, admitted: int | None = None) -> list[tuple[str, str]]:
    """Name and value of everything worth a look, in order.

    Args:
        plan: a valid one.
        admitted: how many sites the federation has; None where it is not known.
    """
    among = "sites" if admitted is None else f"of {admitted} admitted sites"
    return [
        ("plan", f"{plan.name} ({plan.kind}), fingerprint {plan.fingerprint[:16]}"),
        *about_kind(plan),
        ("quorum", f"{plan.rounds.quorum} {among}"),
        ("deadline", f"{plan.rounds.deadline_s:g} s a round"),
        (
            "a site sends",
            f"at most {megabytes(most_in_a_round(plan))} a round, "
            f"{megabytes(most_in_a_run(plan))} a run",
        ),
    ]


def about_kind(plan: FederationPlan) -> list[tuple[str, str]]:
    """Put the plan's own sections into words, one line each."""
    return words_of(plan).facts(plan)
