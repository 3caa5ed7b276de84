"""A plan in a few lines: name and value of everything worth a look, for tables."""

from __future__ import annotations

from typing import Final

from common.cli import megabytes
from common.plan import FederationPlan
from common.schedule import schedule
from common.words.leaving import most_in_a_round, most_in_a_run

DIGITS: Final = {"reduced": "components", "all-bands": "bands"}
RADIX: Final = {"reduced": "bins", "all-bands": "levels"}


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
    limits, tier = plan.limits, f"privacy tier {plan.limits.privacy_tier}"
    if plan.kind == "pixels":
        section = plan.pixels
        count, radix = section.digits
        return [
            ("bands", few(section.bands)),
            ("codec", f"{count} {DIGITS[section.codec]} of {radix} {RADIX[section.codec]}"),
            ("rounds", ", ".join(schedule(plan)[1:])),
            (
                "sketches",
                f"{len(section.tables)} of {section.rows} x {section.columns} cells, {tier}",
            ),
            ("named", f"keys of {section.key_pixels} pixels or more at {section.key_sites} sites"),
        ]
    if plan.kind == "embed":
        return [
            ("codebook", plan.embed.codebook[:16]),
            ("groups", ", ".join(plan.embed.groups)),
            ("told", f"groups of {plan.embed.group_pixels} pixels or more"),
        ]
    sketch, momentum = plan.experience, plan.rounds.server_momentum
    return [
        ("task", f"{plan.task.kind}, {plan.network.architecture}"),
        ("looked for", ", ".join(plan.space.labels)),
        *([("missing", "allowed; a head is its sites' average")] if plan.tells_labels else []),
        *([("heads", "private, each site keeps its own")] if plan.network.private_heads else []),
        (
            "rounds",
            f"{plan.rounds.training}, together of {plan.learner.updates} updates, then an "
            "evaluation",
        ),
        *([("server momentum", f"{momentum:g}")] if momentum else []),
        ("sketch", f"{sketch.rows} x {sketch.columns} cells, {tier}"),
        ("update norm", f"at most {limits.update_l2:g}"),
    ]


def few(names: tuple[str, ...], shown: int = 8) -> str:
    """All names, or the first few and how many there are: a plan may have 256."""
    if len(names) <= shown:
        return ", ".join(names)
    return f"{', '.join(names[: shown - 2])}, … ({len(names)} in all)"
