"""The agent on its own: training and evaluation at one site, without a federation.

The honest baseline beside a federated model: the same network, the same number
of updates, the site's own cases only. Nothing here touches spool, ledger or
door; what is written stays where the person asked for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from common.errors import InputDataError
from common.model import check_weights, weights_digest
from common.plan import FederationPlan
from site_client.agent.evaluation import EvaluationReport
from site_client.agent.federated import evaluate_weights, planned_learner, trace_search
from site_client.agent.learner import TrainingReport
from site_client.agent.tasks.triplanar import mean_positions
from site_client.files import write_atomically
from site_client.imaging.dataset import Case, load_cases
from site_client.worker.experience import Frequencies

Weights = dict[str, NDArray[np.float32]]
Progress = Callable[[str, int, int], None]
EVALUATION_SEED = 1


@dataclass(frozen=True)
class LocalRound:
    """The outcome of one round of local training."""

    round: int
    training: TrainingReport

    def as_dict(self) -> dict[str, object]:
        """For JSON, which has no NaN: a figure that was not computed is null."""
        figures = self.training.as_dict()
        return {"round": self.round} | {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in figures.items()
        }


def train_alone(
    plan: FederationPlan, data: Path, output: Path, progress: Progress
) -> tuple[list[LocalRound], str]:
    """Train on one folder for as many updates as the plan's rounds have together.

    Writes ``weights.safetensors`` into ``output``.

    Returns:
        Each round's figures, and the digest of the weights.

    Raises:
        InputDataError: the images or landmarks cannot be used.
    """
    cases = load_cases(data, plan.task, _named(progress, "reading images"))
    learner = planned_learner(plan, cases, plan.seed, _named(progress, "training"))
    frequencies = Frequencies(None, replay_first=False)
    rounds: list[LocalRound] = []
    for number in range(1, plan.rounds.training + 1):
        progress("round", number, plan.rounds.training)
        rounds.append(LocalRound(number, learner.train(plan.agent.updates, frequencies)))
        frequencies.expect_replay()
    weights = learner.weights()
    output.mkdir(parents=True, exist_ok=True)
    write_atomically(output / "weights.safetensors", safetensors.numpy.save(dict(weights)))
    return rounds, weights_digest(weights)


def read_weights(path: Path, plan: FederationPlan) -> Weights:
    """Return a network's weights from a safetensors file.

    Raises:
        InputDataError: unreadable, or not this plan's network.
    """
    try:
        weights = dict(safetensors.numpy.load(path.read_bytes()))
    except (OSError, safetensors.SafetensorError) as error:
        raise InputDataError(
            "cannot read the weights",
            field=str(path),
            expected="a safetensors file",
            got=type(error).__name__,
        ) from error
    check_weights(weights, plan)
    return weights


def evaluate_alone(
    plan: FederationPlan, weights: Weights, data: Path, training: Path | None, progress: Progress
) -> EvaluationReport:
    """Errors on a folder of held-out cases, beside the constant predictor of ``training``.

    Raises:
        InputDataError: the images or landmarks cannot be used.
    """
    prior = None
    if training is not None:
        prior = mean_positions(
            load_cases(training, plan.task, _named(progress, "reading training images"))
        )
    cases = load_cases(data, plan.task, _named(progress, "reading images"))
    return evaluate_weights(weights, plan, cases, EVALUATION_SEED, prior=prior)


def trajectories(
    plan: FederationPlan, weights: Weights, data: Path, progress: Progress
) -> list[dict[str, object]]:
    """One search per case and landmark, step by step; holds case names, so it stays at the site."""
    cases: Sequence[Case] = load_cases(data, plan.task, _named(progress, "reading images"))
    paths: list[dict[str, object]] = []
    for case in cases:
        for index, name in enumerate(plan.task.landmarks):
            path = trace_search(weights, plan, case, index, EVALUATION_SEED)
            paths.append(
                {
                    "case": case.name,
                    "landmark": name,
                    "target_mm": case.landmarks_mm[index].tolist(),
                    "positions_mm": path.positions_mm.tolist(),
                    "levels": path.levels.tolist(),
                    "errors_mm": path.errors_mm.tolist(),
                }
            )
    return paths


def _named(progress: Progress, what: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(what, done, total)
