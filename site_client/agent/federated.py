"""The agent as a federation's plan wants it: its network, its learner, its errors.

A plan *is* the agent's settings; what it says beyond them, the first weights and how
transitions are counted, this module alone turns into objects that the rest of the agent
knows. Which task the plan is about, whoever reads the images has built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import InputDataError
from common.model import check_weights, initial_weights
from common.plan import FederationPlan
from site_client.agent.device import worker_device
from site_client.agent.evaluation import EvaluationReport, evaluate
from site_client.agent.keys import ExperienceKeys, experience_codec
from site_client.agent.learner import Learner, Progress
from site_client.agent.method import Watch
from site_client.agent.network import set_weights
from site_client.agent.networks import QNetwork, build_network
from site_client.agent.task import Task


def require_planned(task: Task, plan: FederationPlan) -> None:
    """Refuse images that make another search than the plan's, such as ones of more channels.

    Raises:
        InputDataError: what is seen, or how much is looked for, is not as planned.
    """
    planned = plan.space
    sizes = (planned.shape, planned.actions, planned.heads, planned.levels, planned.agents)
    got = (task.shape, task.actions, task.heads, task.levels, task.agents)
    if got != sizes:
        raise InputDataError(
            "the images are not what the plan looks at",
            field="task.channels" if got[1:] == sizes[1:] else "task",
            expected=_said(sizes),
            got=_said(got),
            advice="The plan and the images of all sites must agree: ask the coordinator",
        )


def _said(sizes: tuple[tuple[int, ...], int, int, int, int]) -> str:
    shape, actions, heads, levels, agents = sizes
    view = " x ".join(map(str, shape))
    return f"views of {view}, {actions} actions, {heads} heads, {levels} levels, {agents} agents"


def planned_network(plan: FederationPlan, weights: Mapping[str, NDArray[np.float32]]) -> QNetwork:
    """Build the plan's network with given weights.

    Raises:
        InputDataError: the weights are not this plan's.
    """
    check_weights(weights, plan)
    # What is drawn here is overwritten at once: a plan's first weights come from numpy.
    network = build_network(plan.network, plan.space, torch.Generator(), device=worker_device())
    network.moves_all_axes = plan.learner.moves_all_axes
    set_weights(network, weights)
    return network


def planned_learner(
    plan: FederationPlan,
    task: Task,
    seed: int,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Learner:
    """Build a site's learner, with the plan's first weights.

    Args:
        plan: the federation plan.
        task: the plan's search over the site's cases.
        seed: of this site's exploration and sampling; sites should differ.
        progress: called with (updates done, updates of this call).
        watch: shown the transitions of every gradient step.

    Raises:
        InputDataError: the task is not the plan's.
    """
    require_planned(task, plan)
    return Learner(
        task,
        planned_network(plan, initial_weights(plan)),
        plan.learner,
        seed,
        progress=progress,
        watch=watch,
        keys=None if plan.counts is None else ExperienceKeys(task, experience_codec(plan)),
    )


def evaluate_weights(
    weights: Mapping[str, NDArray[np.float32]],
    plan: FederationPlan,
    task: Task,
    seed: int,
    prior: NDArray[np.float64] | None = None,
    names: Sequence[str] | None = None,
    *,
    poses: int | None = None,
    native: bool = False,
) -> EvaluationReport:
    """Search everything in every case from several starts.

    Args:
        weights: the network's.
        plan: the federation plan; its ``evaluation`` says how.
        task: the plan's search over some cases.
        seed: draws poses and starts; equal seeds compare networks on equal searches.
        prior: parameters of an answer that never looks, of the *training* cases.
        names: of every agent of every head; the plan's labels when None.
        poses: random poses per case, where not as planned.
        native: search the cases as acquired, too.

    Raises:
        InputDataError: the task or the weights are not this plan's.
    """
    require_planned(task, plan)
    change: dict[str, object] = {"native": native}
    if poses is not None:
        change["poses"] = poses
    settings = plan.evaluation.model_copy(update=change)
    labels = plan.space.labels if names is None else names
    return evaluate(task, planned_network(plan, weights), settings, seed, prior, labels)
