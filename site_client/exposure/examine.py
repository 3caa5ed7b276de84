"""All attacks on one rehearsed release, in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.plan import FederationPlan
from site_client.agent.task import Situations
from site_client.exposure.crops import Trainable, TrainedCrops
from site_client.exposure.findings import (
    LEAST_CASES,
    READABLE,
    UNREADABLE,
    Exposure,
    MembershipFinding,
    why_not,
)
from site_client.exposure.membership import membership, train_half
from site_client.exposure.reading import imprint, slices

Progress = Callable[[str, int, int], None]

_ATTACKS = 3
_STEP = "attacking the release"


@dataclass(frozen=True, eq=False)
class RehearsedRound:
    """A rehearsed round of training, and what only the site knows of it.

    Attributes:
        plan: of the run.
        before: the weights that were trained from.
        delta: weights after less weights before: what would leave.
        cases: what was trained on.
        watched: the transitions of every gradient step.
        seed: of the site's exploration and sampling.
    """

    plan: FederationPlan
    before: Mapping[str, NDArray[np.float32]]
    delta: Mapping[str, NDArray[np.float32]]
    cases: Trainable
    watched: Sequence[Situations]
    seed: int


def examine(release: RehearsedRound, progress: Progress | None = None) -> Exposure:
    """Try every attack on a rehearsed release; some seconds, and one more round of training.

    Raises:
        InputDataError: the weights are not the plan's.
    """
    plan, before, delta = release.plan, release.before, release.delta
    if reason := why_not(plan):
        return Exposure(reason)
    if not all(np.isfinite(array).all() for array in delta.values()):
        return Exposure("training ran away: the update is not finite, and the door refuses it")
    if plan.network.architecture not in READABLE:
        _tell(progress, 2)
        membership = _membership(release)
        _tell(progress, _ATTACKS)
        return Exposure(membership=membership, untried=UNREADABLE)
    trained = TrainedCrops(release.cases.task, release.watched)
    _tell(progress, 0)
    from_neurons = slices(before, delta, plan, trained, release.seed)
    _tell(progress, 1)
    from_neighbours = imprint(before, delta, plan, trained, release.seed)
    _tell(progress, 2)
    membership = _membership(release)
    _tell(progress, _ATTACKS)
    return Exposure(slices=from_neurons, imprint=from_neighbours, membership=membership)


def _membership(release: RehearsedRound) -> MembershipFinding:
    """Train on half of the cases and compare the halves, unless there are too few."""
    plan, cases = release.plan, release.cases
    if len(cases) < LEAST_CASES:
        middle = len(cases) // 2
        some, others = cases.part(range(middle)), cases.part(range(middle, len(cases)))
        return membership(release.before, release.delta, plan, some, others)
    half = train_half(release.before, plan, cases, release.seed)
    return membership(release.before, half.delta, plan, half.trained, half.others, release.seed)


def _tell(progress: Progress | None, done: int) -> None:
    if progress is not None:
        progress(_STEP, done, _ATTACKS)
