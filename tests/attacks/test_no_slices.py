"""It must not get slices: weights crafted so that an update holds the image.

`site_client/exposure` shows that such weights work when they are trained from
(tests/site_client/exposure); here is that no order can have a site train from them.
"""

import tomllib

import numpy as np
import pytest

from common.canonical import canonical_json
from common.model import initial_weights, weights_digest
from common.sums.summand import COUNTS
from common.wire.codes import ReplyCode
from common.wire.envelope import pack
from common.wire.orders import SIGNATURE_CONTEXT
from site_client.egress.policy import default_policy_text
from tests.attacks.conftest import approve, forge, make_past, plan_of
from tests.crafted import crafted_plan, imprint_weights, slices_weights, textured_cases
from tests.tasks import planned_task

UNIT = 2**24


def crafted_weights(plan):
    """The prototype's, for whatever network the plan has: here only that they are not honest."""
    rng = np.random.default_rng(1)
    return {n: rng.normal(size=a.shape).astype("f4") for n, a in initial_weights(plan).items()}


def test_an_order_of_the_old_kind_that_carries_weights_is_not_even_read(trusting):
    plan = plan_of()
    header = {
        "v": 1,
        "message": "Order",
        "run": "run-1",
        "round": 1,
        "phase": "train",
        "plan": plan.canonical().decode(),
        "deadline_s": 60,
        "sketch_total": 0,
    }
    body = pack(header, {f"weight/{n}": a for n, a in crafted_weights(plan).items()})
    signature = trusting.witness.sign(SIGNATURE_CONTEXT + body)
    assert trusting.send({"order": body, "signature": signature}).code is None
    assert trusting.got_nothing()
    assert trusting.records()[-1]["code"] == int(ReplyCode.BAD_ORDER)


@pytest.mark.parametrize("name", ["weights", "model", "start", "sum-000000", "sum-000001"])
def test_weights_beside_an_order_are_refused_or_not_looked_at(trusting, name):
    plan = plan_of()
    crafted = pack({}, {f"weight/{n}": a for n, a in crafted_weights(plan).items()})
    heard = trusting.ask(plan, 1, "train", **{name: crafted})
    if heard.code is ReplyCode.OK:  # a part that an order may have, and this one does not name
        honest = weights_digest(initial_weights(plan))
        assert heard.released["RoundReport"].record.weights_sha256 == honest
    else:
        assert trusting.got_nothing()


def crafting(plan, start):
    """Changes the sum of a first round so that crafted weights would follow from it."""
    wanted = crafted_weights(plan)

    def change(arrays):
        samples = 6  # two sites of three
        for name, array in arrays.items():
            kind, _, weight = name.partition("/")
            if kind == "ModelUpdate":
                far = (wanted[weight].astype(np.float64) - start[weight]) * UNIT * samples
                array[...] = np.rint(far).astype(np.int64)

    return change


def test_a_sum_from_which_crafted_weights_would_follow_is_refused(trusting):
    plan = plan_of()
    assert trusting.ask(plan).code is ReplyCode.OK
    honest = make_past(trusting, plan).until(2)[1]
    crafted = forge(honest, crafting(plan, initial_weights(plan)))
    heard = trusting.ask(plan, 2, "train", sums={1: crafted})
    assert heard.code is ReplyCode.FORGED_SUM
    assert trusting.got_nothing()
    refusal = [r for r in trusting.records() if r["event"] == "REFUSE"][-1]
    assert (refusal["code"], refusal["phase"]) == (int(ReplyCode.FORGED_SUM), "train")
    assert refusal["order_sha256"]


def test_the_honest_sum_is_taken_after_the_forged_one_was_refused(trusting):
    plan = plan_of()
    honest = make_past(trusting, plan).until(2)
    crafted = forge(honest[1], crafting(plan, initial_weights(plan)))
    assert trusting.ask(plan, 2, "train", sums={1: crafted}).code is ReplyCode.FORGED_SUM
    heard = trusting.ask(plan, 2, "train", sums=honest)
    assert heard.code is ReplyCode.OK
    assert set(heard.released) == {"ModelUpdate", "SketchTable", "RoundReport"}


@pytest.mark.parametrize("batch", [1, 64])
def test_the_plan_that_made_slices_readable_is_beyond_the_default_policy(trusting, batch):
    plan = crafted_plan(batch=batch, roi=129 if batch == 1 else 25)
    approve(trusting, plan)  # even if a person was talked into it
    for round_, phase in ((0, "begin"), (1, "train")):
        assert trusting.ask(plan, round_, phase).code is ReplyCode.REFUSED_BY_POLICY
    assert trusting.got_nothing()


@pytest.mark.parametrize("made", [slices_weights, None])
def test_a_start_model_that_nobody_here_computed_is_refused(trusting, made):
    import safetensors.numpy

    base = plan_of()
    if made is None:
        weights = imprint_weights(crafted_plan(batch=64), np.linspace(0.02, 0.6, 256))
    else:
        weights = crafted_weights(base)
    plan = plan_of(start=weights_digest(weights))
    approve(trusting, plan)
    start = safetensors.numpy.save(weights)
    heard = trusting.ask(plan, 1, "train", start=start)
    assert heard.code is ReplyCode.UNKNOWN_START
    assert trusting.got_nothing()


def test_no_field_of_an_order_and_no_count_of_a_sum_is_a_place_for_pixels():
    """What a liar can say is words, digests, and sums that must hold: nothing of free form."""
    from common.wire.orders import OrderHeader, RosterEntry

    fields = set(OrderHeader.model_fields) | set(RosterEntry.model_fields)
    assert not fields & {"weights", "arrays", "code", "script", "data"}
    summed = {"ModelUpdate", "SketchTable", "ErrorTables", "PixelStatistics", "PixelSketches"}
    assert set(COUNTS) == summed
    assert canonical_json({}) == b"{}"


LEAST = {
    "batch": 16,
    "updates": 40,
    "warmup": 100,
    "replay_capacity": 1000,
    "searches": 16,
    "episode_steps": 5,
    "gamma": 0.0,
    "warm_start": 1.0,
}
STILL = {"rotation_deg": 0.0, "scale_fraction": 0.0, "shift_mm": 0.0, "gamma_contrast": 0.0}
ONE_RUNG = {"scales": [1.0], "steps_mm": [2.0]}


@pytest.mark.parametrize(
    ("learner", "roi"),
    [
        ({"learning_rate": 1e-2}, 25),
        # Gradients far below Adam's epsilon: the update is their plain sum.
        pytest.param({"learning_rate": 1e-2, "gradient_clip": 1e-3}, 25, marks=pytest.mark.slow),
        pytest.param({"learning_rate": 1e-6, "gradient_clip": 1e-3}, 25, marks=pytest.mark.slow),
        pytest.param({"learning_rate": 1e-2}, 65, marks=pytest.mark.slow),
    ],
)
def test_the_most_telling_plan_within_the_default_bounds_shows_no_crop(learner, roi):
    """The least of everything that a default policy serves, from the plan's own start."""
    from common.policy import Policy, check_plan
    from common.sums.fixed_point import from_fixed_point, to_fixed_point
    from site_client.agent.federated import planned_learner
    from site_client.exposure.crops import TrainedCrops
    from site_client.exposure.reading import imprint, slices

    plan = plan_of(
        learner=LEAST | learner,
        ladder=ONE_RUNG,
        pose=STILL,
        task={"roi": roi},
        network={"width": 32},
    )
    check_plan(Policy.model_validate(tomllib.loads(default_policy_text())), plan)
    task, watched, before = planned_task(plan, textured_cases(2)), [], initial_weights(plan)
    trained = planned_learner(plan, task, 1, watch=watched.append)
    trained.train(plan.updates_in(1))
    after = trained.weights()
    released = from_fixed_point(to_fixed_point({n: after[n] - before[n] for n in before}))
    crops = TrainedCrops(task, watched)
    for attack in (slices, imprint):
        found = attack(before, released, plan, crops)
        assert found.crops > 90
        assert found.best_db < 20, attack
        assert found.above_20_db == 0
