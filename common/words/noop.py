"""The words of plans that train nothing: messages of the right size, to try the way."""

from __future__ import annotations

from typing import Final

from common.cli import counted
from common.plan import FederationPlan
from common.words.kind import KindWords, Sentences, hidden
from common.words.leaving import weights_of
from common.words.training import facts, floors, learnt, network, sought

_TOLD: Final = frozenset(
    {
        *("task.kind", "task.landmarks", "task.plane_landmarks", "task.roi", "network.width"),
        *("network.architecture", "rounds.training"),
        *("experience.rows", "experience.columns", "limits.update_l2", "limits.min_images"),
        *("limits.min_transitions", "limits.min_sketch_fill", "limits.privacy_tier"),
    }
)


def _work(plan: FederationPlan) -> Sentences:
    return (
        "Train nothing and open no image: for "
        f"{counted(plan.rounds.training, 'round')} send messages of the right size, with "
        "an update of zeros and counts of random keys, to see whether the way there and "
        "back works.",
        f"The images are counted. The network would have {weights_of(plan):,} weights "
        f"({network(plan)}); not looked for {sought(plan)}.",
    )


def _seen(plan: FederationPlan) -> Sentences:
    return (
        "It sees how many images each site has, and zeros.",
        *([hidden(plan)] if plan.counts else []),
    )


WORDS: Final = KindWords(
    fields=_TOLD, facts=facts, work=_work, floors=floors, seen=_seen, learnt=learnt
)
