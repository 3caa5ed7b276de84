"""The words of plans that map slides by a codebook."""

from __future__ import annotations

from typing import Final

from common.cli import counted
from common.plan import FederationPlan
from common.words.kind import Facts, KindWords, Sentences

_TOLD: Final = frozenset(
    {
        *("embed.codec", "embed.codebook", "embed.groups", "embed.min_slides"),
        *("embed.min_pixels", "embed.group_pixels"),
    }
)


def _facts(plan: FederationPlan) -> Facts:
    return [
        ("codebook", plan.embed.codebook[:16]),
        ("groups", ", ".join(plan.embed.groups)),
        ("told", f"groups of {plan.embed.group_pixels} pixels or more"),
    ]


def _work(plan: FederationPlan) -> Sentences:
    section = plan.embed
    return (
        f"Map the site's slides with the codebook {section.codebook[:16]}… and the codec "
        f"{section.codec[:16]}…, which come with the run: every pixel gets the number of "
        f"one of {counted(len(section.groups), 'group')} ({', '.join(section.groups)}).",
        "The maps stay at the site; how many pixels each group has leaves it.",
    )


def _floors(plan: FederationPlan) -> Sentences:
    embed = plan.embed
    return (
        f"{counted(embed.min_slides, 'slide')} and {embed.min_pixels:,} pixels at least; a "
        f"group of fewer than {embed.group_pixels:,} pixels is told as none.",
    )


def _seen(_: FederationPlan) -> Sentences:
    return (
        "It sees each site's number of slides, of pixels, and of pixels per group.",
        "It sees no slide and no map.",
    )


_LEARNT: Final[Sentences] = ("Nothing from the run: each site's counts go to the aggregator.",)


WORDS: Final = KindWords(
    fields=_TOLD, facts=_facts, work=_work, floors=_floors, seen=_seen, learnt=lambda _: _LEARNT
)
