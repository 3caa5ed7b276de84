from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from site_client.agent.federated import planned_learner
from site_client.exposure.crops import TrainedCrops
from tests.crafted import textured_cases
from tests.tasks import planned_task


@dataclass
class Round:
    """One round trained by the learner itself, whatever was ordered: no policy stands before it."""

    plan: object
    before: dict
    delta: dict
    trained: TrainedCrops


@pytest.fixture(scope="session")
def textured():
    return textured_cases(6)


@pytest.fixture(scope="session")
def train():
    """Trains a plan's round on cases from given weights; remembers the crops."""

    def make(plan, before, cases, seed=1) -> Round:
        watched = []
        task = planned_task(plan, cases)
        learner = planned_learner(plan, task, seed, watch=watched.append)
        learner.load(before)
        learner.train(plan.updates_in(1))
        after = learner.weights()
        delta = {name: after[name] - np.asarray(value) for name, value in before.items()}
        return Round(plan, before, delta, TrainedCrops(task, watched))

    return make
