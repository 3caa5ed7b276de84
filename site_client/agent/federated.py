"""The agent as a federation's plan wants it: its task, its network, its learner, its errors.

A plan is data that every site has; this module alone turns it into the settings
and objects that the rest of the agent knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from common.model import check_weights, initial_weights
from common.plan import FederationPlan
from site_client.agent.evaluation import EvaluationReport, evaluate
from site_client.agent.keys import ExperienceKeys, experience_codec
from site_client.agent.learner import Learner, Progress, Watch
from site_client.agent.network import set_weights, use_deterministic_torch
from site_client.agent.networks import QNetwork, build_network
from site_client.agent.search import greedy_search
from site_client.agent.settings import (
    evaluation_settings,
    ladder_settings,
    learner_settings,
    network_settings,
    pose_settings,
)
from site_client.agent.task import Situations
from site_client.agent.tasks.triplanar import ACTIONS, TriplanarLandmark
from site_client.imaging.dataset import Case


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One search in its image.

    Attributes:
        positions_mm: float64[t, 3], LPS mm.
        levels: int64[t].
        errors_mm: float64[t], distance to the landmark.
    """

    positions_mm: NDArray[np.float64]
    levels: NDArray[np.int64]
    errors_mm: NDArray[np.float64]


def planned_task(plan: FederationPlan, cases: Sequence[Case]) -> TriplanarLandmark:
    """The plan's search over a site's cases.

    Raises:
        InputDataError: no cases, or more than a situation can number.
    """
    return TriplanarLandmark(
        cases,
        ladder_settings(plan),
        pose_settings(plan),
        roi=plan.model.roi,
        spacing_mm=plan.task.working_spacing_mm,
    )


def planned_network(plan: FederationPlan, weights: Mapping[str, NDArray[np.float32]]) -> QNetwork:
    """The plan's network with given weights.

    Raises:
        InputDataError: the weights are not this plan's.
    """
    check_weights(weights, plan)
    # What is drawn here is overwritten at once: a plan's first weights come from numpy.
    network = build_network(network_settings(plan), _Spaces.of(plan), torch.Generator())
    set_weights(network, weights)
    return network


@dataclass(frozen=True)
class _Spaces:
    """The sizes of a plan's task, known before any case is."""

    shape: tuple[int, ...]
    actions: int
    heads: int
    levels: int
    agents: int

    @classmethod
    def of(cls, plan: FederationPlan) -> _Spaces:
        side = plan.model.roi
        heads, levels = len(plan.task.landmarks), len(plan.agent.scales)
        return cls((3, side, side), ACTIONS, heads, levels, agents=1)


def planned_learner(
    plan: FederationPlan,
    cases: Sequence[Case],
    seed: int,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Learner:
    """A site's learner, with the plan's first weights.

    Args:
        plan: the federation plan.
        cases: the site's cases; their voxels are copied into one buffer.
        seed: of this site's exploration and sampling; sites should differ.
        progress: called with (updates done, updates of this call).
        watch: shown the transitions of every gradient step.

    Raises:
        InputDataError: no cases, or more than a situation can number.
    """
    task = planned_task(plan, cases)
    return Learner(
        task,
        planned_network(plan, initial_weights(plan)),
        learner_settings(plan),
        seed,
        progress=progress,
        watch=watch,
        keys=ExperienceKeys(task, experience_codec(plan)),
    )


def evaluate_weights(
    weights: Mapping[str, NDArray[np.float32]],
    plan: FederationPlan,
    cases: Sequence[Case],
    seed: int,
    prior: NDArray[np.float64] | None = None,
    poses: int = 4,
    *,
    native: bool = True,
) -> EvaluationReport:
    """Search every landmark of every case from several starts.

    Args:
        weights: the network's.
        plan: the federation plan; ``evaluation_starts`` searches per pose and landmark.
        cases: held-out cases.
        seed: draws poses and starts; equal seeds compare networks on equal searches.
        prior: ``mean_positions`` of the *training* cases.
        poses: random poses per case.
        native: search the cases as acquired, too.

    Raises:
        InputDataError: no cases, or the weights are not this plan's.
    """
    settings = evaluation_settings(plan).model_copy(update={"poses": poses, "native": native})
    network = planned_network(plan, weights)
    names = plan.task.landmarks
    return evaluate(planned_task(plan, cases), network, settings, seed, prior, names)


def trace_search(
    weights: Mapping[str, NDArray[np.float32]],
    plan: FederationPlan,
    case: Case,
    landmark: int,
    seed: int,
) -> Trajectory:
    """Follow one greedy search through the image as acquired."""
    use_deterministic_torch()
    task = planned_task(plan, [case])
    rng = np.random.Generator(np.random.PCG64(seed))
    situations = task.starts(rng, 1, posed=False)
    situations = situations[situations["head"] == landmark]
    visited: list[Situations] = [situations.copy()]
    network = planned_network(plan, weights)
    visited.append(greedy_search(task, network, situations, evaluation_settings(plan), visited))
    path = np.concatenate(visited)
    return Trajectory(
        positions_mm=task.world_mm(path, case.volume.centre_mm[None]),
        levels=path["level"].astype(np.int64),
        errors_mm=task.errors(path),
    )
