"""Membership: does the update tell a case that was trained on from one that was not?

The rehearsed round is trained once more, on half of the site's cases. The attacker of
this room has the update, a case's image and its landmarks, which is more than any real
one has, and asks how much better the network became on it.
Source: Yeom et al., Privacy risk in machine learning, CSF 2018 (the loss as a test).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.model import shared_shapes
from common.plan import FederationPlan
from common.settings import LearnerSettings
from site_client.agent.displacement import regression_losses
from site_client.agent.federated import planned_learner, planned_network
from site_client.agent.network import set_weights, use_deterministic_torch
from site_client.agent.networks import QNetwork
from site_client.agent.objective import Objective
from site_client.agent.partial_policy import better_step_losses
from site_client.agent.task import Situations, Task, by_displacement
from site_client.exposure.crops import Trainable
from site_client.exposure.findings import LEAST_CASES, MembershipFinding

Weights = Mapping[str, NDArray[np.float32]]
Progress = Callable[[int, int], None]
Losses = Callable[[Situations], Tensor]

MOST_UPDATES: Final = 500
"""Gradient steps of the round on half of the cases; a longer round is cut off there."""
_MOST_CASES = 128
_SITUATIONS = 256
_CHUNK = 64
_DRAWS = 2000
_SPLIT, _PROBE, _BOOTSTRAP = 0x73706C6974, 0x70726F6265, 0x626F6F74  # "split", "probe", "boot"


@dataclass(frozen=True, eq=False)
class Half:
    """A round that was trained on half of the cases.

    Attributes:
        delta: what training changed.
        updates: gradient steps.
        trained, others: the halves.
    """

    delta: dict[str, NDArray[np.float32]]
    updates: int
    trained: Trainable
    others: Trainable


def train_half(
    before: Weights,
    plan: FederationPlan,
    cases: Trainable,
    seed: int,
    progress: Progress | None = None,
) -> Half:
    """Train the plan's first round on a seeded half of the cases.

    Args:
        before: weights to train from.
        plan: how to train; at most `MOST_UPDATES` gradient steps.
        cases: of the site; two at least.
        seed: of the split, and of exploration and sampling.
        progress: called with (updates done, updates in all).

    Raises:
        InputDataError: the weights are not the plan's, or one case cannot be halved.
    """
    order = np.random.default_rng([_SPLIT, seed]).permutation(len(cases))[:_MOST_CASES]
    middle = len(order) // 2
    trained, others = cases.part(order[:middle].tolist()), cases.part(order[middle:].tolist())
    learner = planned_learner(plan, trained.task, seed, progress)
    learner.load(before)
    updates = min(plan.updates_in(1), MOST_UPDATES)
    learner.train(updates)
    after = learner.weights()
    shared = shared_shapes(plan)  # of the rest nobody outside the site learns a change
    delta = {n: (after[n] if n in shared else value) - value for n, value in before.items()}
    return Half(delta, updates, trained, others)


def membership(
    before: Weights,
    delta: Weights,
    plan: FederationPlan,
    trained: Trainable,
    others: Trainable,
    seed: int = 0,
) -> MembershipFinding:
    """Compare how much better the network became on cases trained on and on others.

    Args:
        before: the weights that were trained from.
        delta: weights after less weights before, of a round on ``trained`` alone.
        plan: says what values are regressed to.
        trained: cases that the round was trained on.
        others: cases that it was not; with fewer than `LEAST_CASES` together nothing is computed.
        seed: of the situations looked at, and of the bootstrap.
    """
    began, updates = time.monotonic(), min(plan.updates_in(1), MOST_UPDATES)
    if len(trained) + len(others) < LEAST_CASES or not trained or not others:
        return MembershipFinding(len(trained), len(others), updates, None, None, None, 0.0)
    members = gains_by_case(before, delta, plan, trained, seed)
    rest = gains_by_case(before, delta, plan, others, seed)
    rng = np.random.default_rng([_BOOTSTRAP, seed])
    drawn = [
        area_under_curve(rng.choice(members, len(members)), rng.choice(rest, len(rest)))
        for _ in range(_DRAWS)
    ]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return MembershipFinding(
        trained=len(trained),
        others=len(others),
        updates=updates,
        auc=area_under_curve(members, rest),
        low=float(low),
        high=float(high),
        seconds=time.monotonic() - began,
    )


def gains_by_case(
    before: Weights, delta: Weights, plan: FederationPlan, cases: Trainable, seed: int
) -> NDArray[np.float64]:
    """float64[cases]: by how much the mean loss fell on random searches of each case."""
    use_deterministic_torch()
    settings = plan.learner
    network = planned_network(plan, before)
    after = {name: value + delta[name] for name, value in before.items()}
    gains = np.empty(len(cases))
    for number in range(len(cases)):
        task = cases.part([number]).task
        # The target stays what it was before; only the online network changes below.
        set_weights(network, before)
        losses_of = _losses_of(task, network, settings)
        # Equal draws for every case: what differs is the case.
        situations = task.draw(np.random.default_rng([_PROBE, seed]), _SITUATIONS)
        taken = np.add.outer(np.arange(len(situations)), np.arange(task.agents)) % task.actions
        situations["action"] = taken.reshape(situations["action"].shape)
        losses = []
        for weights in (before, after):
            set_weights(network, weights)
            losses.append(_loss(losses_of, situations))
        gains[number] = losses[0] - losses[1]
    return gains


def _losses_of(task: Task, network: QNetwork, settings: LearnerSettings) -> Losses:
    """Give the losses that the plan's first updates minimise; a target network stays as it is."""
    if by_displacement(task):
        return lambda part: regression_losses(task, network, part, settings.loss)
    if settings.moves_all_axes:
        # Also where policies act from the first update on: it says how well they fit a case.
        return lambda part: (
            better_step_losses(task, network, part, settings.loss).flatten(1).mean(dim=1)
        )
    objective = Objective(task, network, settings)
    of_values = objective.of_all_rewards if settings.warm_start > 0 else objective.of_returns
    return lambda part: of_values(part)[0]


@torch.no_grad()
def _loss(losses_of: Losses, situations: Situations) -> float:
    """Mean loss of situations."""
    parts = [situations[begin : begin + _CHUNK] for begin in range(0, len(situations), _CHUNK)]
    return float(torch.cat([losses_of(part) for part in parts]).double().mean())


def area_under_curve(members: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Chance that a member scores above another, ties counting half."""
    apart = members[:, None] - others[None]
    return float((apart > 0).mean() + 0.5 * (apart == 0).mean())
