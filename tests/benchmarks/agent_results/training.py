"""Fitting and judging agents: alone, pooled, and as a federation in this process.

A federation here is what the rounds do, without doors and wires: every site trains
from the averaged weights, the weights are averaged, the sites' experience counts are
added. Equal numbers of gradient steps per site is what "the same effort" means.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from common.model import Weights
from common.settings import EvaluationSettings, LearnerSettings, NetworkSettings
from common.sums.averaging import moved, with_momentum
from site_client.agent.evaluation import EvaluationReport, Searched, evaluate
from site_client.agent.experience import Keys, Lookup, NewExperience
from site_client.agent.learner import Learner
from site_client.agent.network import set_weights
from site_client.agent.networks import QNetwork, build_network
from site_client.agent.task import Task

SUCCESS_MM = (2.0, 2.5, 3.0, 4.0)


@dataclass(frozen=True)
class Recipe:
    """How agents of one study are made."""

    network: NetworkSettings
    learner: LearnerSettings
    evaluation: EvaluationSettings

    def network_for(self, task: Task, seed: int) -> QNetwork:
        return build_network(self.network, task, torch.Generator().manual_seed(seed))

    def planned(self, **changes: object) -> Recipe:
        """With other learner settings."""
        learner = self.learner.model_copy(update=changes)
        return Recipe(self.network, LearnerSettings(**learner.model_dump()), self.evaluation)


@dataclass(frozen=True)
class Fitted:
    network: QNetwork
    cpu_s: float
    updates: int


def fit(task: Task, recipe: Recipe, seed: int) -> Fitted:
    """One agent on one task, all planned updates."""
    began = time.process_time()
    network = recipe.network_for(task, seed)
    Learner(task, network, recipe.learner, seed).train(recipe.learner.updates)
    return Fitted(network.eval(), time.process_time() - began, recipe.learner.updates)


def average(weights: Sequence[Weights], shares: Sequence[float] | None = None) -> Weights:
    """The sites' weights, averaged in float64."""
    share = np.ones(len(weights)) if shares is None else np.asarray(shares, np.float64)
    share = share / share.sum()
    return {
        name: sum(
            s * w[name].astype(np.float64) for s, w in zip(share, weights, strict=True)
        ).astype(np.float32)
        for name in weights[0]
    }


class Shared(Protocol):
    """What sites tell each other of their experience."""

    def keys(self, task: Task) -> Keys:
        """How situations of a task are named."""

    def known(self) -> Lookup | None:
        """What is known of them before a round; one for each site that asks."""

    def add(self, told: Sequence[NewExperience]) -> None:
        """Merge what all sites tell after a round."""


def federate(
    tasks: Sequence[Task],
    recipe: Recipe,
    seed: int,
    rounds: int,
    *,
    momentum: float = 0.0,
    shared: Shared | None = None,
    after_round: Callable[[int, QNetwork], None] | None = None,
) -> Fitted:
    """FedAvg over sites of equal effort; the recipe's updates are those of one site.

    Args:
        tasks: one per site.
        recipe: planned updates are spread evenly over the rounds.
        seed: of the first weights; the sites' exploration differs.
        rounds: of training.
        momentum: the server's, as a plan's ``rounds.server_momentum``.
        shared: what the sites tell each other of their experience; None: nothing.
        after_round: sees the averaged network.
    """
    began = time.process_time()
    together = recipe.network_for(tasks[0], seed)
    learners = []
    for k, task in enumerate(tasks):
        keys = None if shared is None else shared.keys(task)
        network = recipe.network_for(task, seed)
        learners.append(Learner(task, network, recipe.learner, 1000 * seed + k, keys=keys))
    merged = learners[0].weights()
    velocity: Weights = {}
    for round_ in range(1, rounds + 1):
        for learner in learners:
            learner.load(merged)
            known = None if shared is None else shared.known()
            learner.train(recipe.learner.updates // rounds, known)
        averaged = average([learner.weights() for learner in learners])
        if momentum:
            mean = {n: averaged[n].astype(np.float64) - start for n, start in merged.items()}
            step, velocity = with_momentum(mean, velocity, momentum)
            averaged = moved(merged, step)
        merged = averaged
        if shared is not None:
            shared.add([learner.new_experience() for learner in learners])
        if after_round is not None:
            spent = time.process_time()
            set_weights(together, merged)
            after_round(round_, together)
            began += time.process_time() - spent
    set_weights(together, merged)
    return Fitted(together.eval(), time.process_time() - began, recipe.learner.updates)


def judge(
    task: Task,
    network: QNetwork,
    recipe: Recipe,
    seed: int,
    prior: NDArray[np.float64],
    names: Sequence[str],
) -> tuple[dict[str, object], EvaluationReport]:
    """What a table needs of an evaluation on held-out cases, and the whole of it."""
    began = time.process_time()
    report = evaluate(task, network, recipe.evaluation, 1000 + seed, prior=prior, names=names)
    result: dict[str, object] = {
        "posed": figures_of(report.posed_searches, names),
        "evaluation_cpu_s": round(time.process_time() - began, 1),
    }
    if report.native_searches is not None:
        result["native"] = figures_of(report.native_searches, names)
    return result, report


def figures_of(searched: Searched, names: Sequence[str]) -> dict[str, object]:
    """Mean over landmarks' searches, and per landmark; errors in mm."""
    heads = searched.agreed["head"].astype(np.int64)
    every = _row(searched.errors, searched.agreed_errors, searched.prior_errors)
    every["landmarks"] = {
        name: _row(
            searched.errors[heads == k],
            searched.agreed_errors[heads == k],
            None if searched.prior_errors is None else searched.prior_errors[heads == k],
        )
        for k, name in enumerate(names)
        if (heads == k).any()
    }
    return every


def _row(
    errors: NDArray[np.float64],
    agreed: NDArray[np.float64],
    prior: NDArray[np.float64] | None,
) -> dict[str, object]:
    row: dict[str, object] = {
        "searches": int(errors.size),
        "mean": float(errors.mean()),
        "std": float(errors.std()),
        "median": float(np.median(errors)),
        "far": float((errors > 10).mean()),
        "consensus": float(agreed.mean()),
        "success": {f"{mm:g}": float((agreed < mm).mean()) for mm in SUCCESS_MM},
    }
    if prior is not None:
        row["prior"] = float(prior.mean())
    return row
