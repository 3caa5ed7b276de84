"""A training run on disk: what a round comes to does not depend on a resume in between."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from aggregator.rounds.course import Agreement, Step
from aggregator.rounds.store import RoundState, RunOptions, RunStore
from aggregator.rounds.training import VELOCITY, TrainingWork
from common.model import initial_weights
from common.plan import FederationPlan, parse_plan
from common.wire.records import ModelUpdate

LEAST = {"name": "p", "seed": 1, "task": {"landmarks": ["AC"]}, "model": {"roi": 9, "width": 4}}
SKETCH = {"experience": {"rows": 3, "columns": 64}}
AGREEMENT = Agreement("0" * 16, "d" * 64)
ROUNDS = 5


def plan_of(momentum: float) -> FederationPlan:
    rounds = {"training": ROUNDS, "server_momentum": momentum}
    return parse_plan(LEAST | SKETCH | {"rounds": rounds})


def reply(plan: FederationPlan, site: int, round_: int) -> SimpleNamespace:
    """What a site sends, and nothing of how it was checked."""
    rng = np.random.default_rng([site, round_])
    delta = {n: rng.normal(0, 0.01, a.shape).astype("f4") for n, a in initial_weights(plan).items()}
    update = ModelUpdate.model_construct(images=1 + site)
    table = {"table": rng.integers(-9, 9, (3, 64))}
    return SimpleNamespace(
        envelopes={
            "ModelUpdate": SimpleNamespace(record=update, arrays=delta),
            "SketchTable": SimpleNamespace(arrays=table),
        },
        report=SimpleNamespace(transitions=10),
    )


def run_of(plan: FederationPlan, store: RunStore | None = None) -> RoundState:
    """All training rounds; with a store every round begins with what the last one wrote."""
    work = TrainingWork(plan)
    state = work.start(AGREEMENT)
    for number in range(1, ROUNDS + 1):
        if store is not None:
            store.save(state)
            state = store.load(state.round)
        replies = {f"site-{k}": reply(plan, k, number) for k in range(3)}
        state = work.merge(Step(number, "train"), state, replies)
    return work.merge(Step(ROUNDS + 1, "evaluate"), state, {})


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_a_run_resumed_after_every_round_ends_with_the_same_weights(tmp_path, momentum):
    plan = plan_of(momentum)
    store = RunStore.create(tmp_path / "run", plan, RunOptions(min_sites=1, wait_s=1.0))
    whole, resumed = run_of(plan), run_of(plan, store)
    assert whole.digest == resumed.digest
    assert set(whole.arrays) == set(resumed.arrays)
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(resumed.arrays[name], array)


def test_momentum_goes_further_and_only_a_plan_that_asks_for_it_keeps_a_velocity():
    plain, far = run_of(plan_of(0.0)), run_of(plan_of(0.8))
    assert plain.below(VELOCITY) == {}
    assert set(far.below(VELOCITY)) == set(far.below("model"))
    begin = initial_weights(plan_of(0.0))
    way = [
        np.sqrt(sum(np.square(state.below("model")[n] - a).sum() for n, a in begin.items()))
        for state in (plain, far)
    ]
    assert way[1] > 1.5 * way[0]
    np.testing.assert_array_equal(plain.arrays["experience/table"], far.arrays["experience/table"])


def test_what_is_asked_of_the_sites_holds_no_velocity():
    plan = plan_of(0.8)
    state = run_of(plan)
    asked = TrainingWork(plan).ask(Step(ROUNDS + 1, "evaluate"), state)
    assert set(asked.weights) == set(initial_weights(plan))
