"""A training run on disk: what a round comes to does not depend on a resume in between."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy

from aggregator.rounds.ask import Ask
from aggregator.rounds.course import Agreement, Step
from aggregator.rounds.store import RoundState, RunOptions, RunStore
from aggregator.rounds.training import VELOCITY, TrainingWork
from common.errors import InputDataError
from common.model import initial_weights, weights_digest
from common.plan import FederationPlan, parse_plan
from common.sums.addition import add_records, decode_sum, encode_sum
from common.sums.fixed_point import to_fixed_point
from common.sums.training import ModelState, advance
from common.wire.envelope import Envelope
from common.wire.records import ModelUpdate, SketchTable

LEAST = {"name": "p", "seed": 1, "task": {"landmarks": ["AC"], "roi": 9}, "network": {"width": 4}}
SKETCH = {"experience": {"rows": 3, "columns": 64}, "learner": {"replay": "rare-first"}}
AGREEMENT = Agreement("0" * 16, "d" * 64)
ROUNDS = 5


def plan_of(momentum: float) -> FederationPlan:
    rounds = {"training": ROUNDS, "server_momentum": momentum}
    return parse_plan(LEAST | SKETCH | {"rounds": rounds})


def reply(plan: FederationPlan, site: int, round_: int) -> SimpleNamespace:
    """What a site sends, and nothing of how it was checked."""
    rng = np.random.default_rng([site, round_])
    delta = {n: rng.normal(0, 0.01, a.shape).astype("f4") for n, a in initial_weights(plan).items()}
    tag = f"{int(rng.integers(2**60)):016x}"
    update = ModelUpdate.model_construct(samples=1 + site, tag=tag)
    sketch = SketchTable.model_construct(total=10, tag=tag)
    table = {"table": rng.integers(-9, 9, (3, 64))}
    return SimpleNamespace(
        envelopes={
            "ModelUpdate": Envelope(update, to_fixed_point(delta)),
            "SketchTable": Envelope(sketch, table),
        },
        measure=1.0 + site,
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
        total = add_records("run", number, {s: r.envelopes.values() for s, r in replies.items()})
        state = work.merge(Step(number, "train"), state, replies, total)
    return work.merge(Step(ROUNDS + 1, "evaluate"), state, {}, None)


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


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_sites_are_sent_neither_weights_nor_velocity(momentum):
    plan = plan_of(momentum)
    asked = TrainingWork(plan).ask(Step(ROUNDS + 1, "evaluate"), run_of(plan))
    assert asked == Ask()


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_a_site_that_follows_the_sums_comes_to_the_aggregators_weights(momentum):
    plan = plan_of(momentum)
    site = ModelState(initial_weights(plan))
    for number in range(1, ROUNDS + 1):
        replies = {f"site-{k}": reply(plan, k, number) for k in range(3)}
        data = encode_sum(
            add_records("run", number, {s: r.envelopes.values() for s, r in replies.items()})
        )
        site = advance(site, plan, decode_sum(data))
    assert site.digest == run_of(plan).digest


def model_bytes(plan: FederationPlan, scale: float = 1.0) -> tuple[bytes, str]:
    """A model of the plan's network, as a file, and its digest."""
    weights = {n: np.float32(scale) * a for n, a in initial_weights(plan).items()}
    return safetensors.numpy.save(weights), weights_digest(weights)


def test_a_plan_that_starts_from_a_model_starts_from_it_and_brings_it_to_every_site():
    data, digest = model_bytes(plan_of(0.0), 0.5)
    plan = parse_plan(LEAST | SKETCH | {"start": digest})
    work = TrainingWork(plan, data)
    assert work.origin == work.start(AGREEMENT).digest == digest
    assert work.ask(Step(0, "begin"), None) == Ask(beside={"start": data})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"no model", "not a model"),
        (model_bytes(plan_of(0.0), 2.0)[0], "not the model that the plan starts from"),
        (model_bytes(parse_plan(LEAST | {"network": {"width": 8}}))[0], "weights"),
        (safetensors.numpy.save({}), "weights"),
    ],
)
def test_another_model_than_the_plan_names_is_not_started_from(data, words):
    digest = model_bytes(plan_of(0.0), 0.5)[1]
    plan = parse_plan(LEAST | SKETCH | {"start": digest})
    with pytest.raises(InputDataError, match=words):
        TrainingWork(plan, data)
