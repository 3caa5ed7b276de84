"""Laws of the average by label: over the sites that have it, exactly, in any order."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import RefusedError
from common.model import initial_weights, shared_parameters
from common.plan import parse_plan
from common.sums.addition import Group, Sum, add_records
from common.sums.averaging import mean_by_label, mean_delta, with_momentum
from common.sums.fixed_point import UNIT
from common.sums.summand import Summand
from common.sums.training import ModelState, advance
from common.wire.envelope import Envelope
from common.wire.labels import LABELS, branch_rows
from common.wire.records import ModelUpdate

NAMES = ["A", "B", "C"]
ROWS = {"heads": 2, "state": 1}
SHAPES = {"conv": (4, 3), "heads": (6, 5), "state": (3,)}
SMALL = {
    "name": "differ",
    "seed": 5,
    "task": {"landmarks": NAMES, "roi": 9},
    "network": {"width": 4, "hidden": [8], "dueling": True},
    "experience": {"rows": 1, "columns": 16},
}

has = st.lists(st.booleans(), min_size=3, max_size=3).filter(any)
sites = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d"]), st.tuples(has, st.integers(1, 5000)), min_size=1
)


def update(site, labels, samples, shapes=SHAPES, rows=ROWS, *, tells=True):
    """An honest site's: what belongs to labels that it lacks does not move."""
    rng = np.random.default_rng([ord(site), samples])
    arrays = {n: rng.integers(-(2**31), 2**31, s).astype(np.int32) for n, s in shapes.items()}
    for name, each in rows.items():
        arrays[name][np.repeat(~np.array(labels), each)] = 0
    if tells:
        arrays[LABELS] = np.array(labels, np.int32)
    record = ModelUpdate(
        plan_fingerprint="ab" * 32,
        site=site,
        run="run-1",
        round=1,
        images=samples,
        samples=samples,
        transitions=1,
        updates=1,
    )
    return [Envelope(record, arrays)]


def split(answers):
    """The summand of the weights, and the samples behind each label."""
    total = add_records("run-1", 1, answers).group("ModelUpdate").summand
    arrays = dict(total.arrays)
    behind = arrays.pop(LABELS)
    return Summand(total.counts, arrays), behind


@given(sites)
def test_a_row_is_the_exact_mean_over_the_sites_that_have_its_label_rounded_once(drawn):
    answers = {site: update(site, *words) for site, words in drawn.items()}
    weights, behind = split(answers)
    mean, still = mean_by_label(weights, behind, ROWS)
    for name, shape in SHAPES.items():
        for index in np.ndindex(shape):
            label = index[0] // ROWS[name] if name in ROWS else None
            having = [s for s, (labels, _) in drawn.items() if label is None or labels[label]]
            samples = sum(drawn[site][1] for site in having)
            exact = sum(
                (drawn[s][1] * Fraction(int(answers[s][0].arrays[name][index])) for s in having),
                Fraction(0),
            )
            expected = float(exact / (int(UNIT) * samples)) if having else 0.0
            assert mean[name][index] == expected
            if label is not None:
                assert still[name][index[0]] == (not having)


@given(sites, st.randoms(use_true_random=False))
def test_the_order_of_the_sites_changes_no_bit_of_a_mean_by_label(drawn, random):
    answers = {site: update(site, *words) for site, words in drawn.items()}
    order = list(answers)
    random.shuffle(order)
    first, _ = mean_by_label(*split(answers), ROWS)
    second, _ = mean_by_label(*split({site: answers[site] for site in order}), ROWS)
    assert all(first[name].tobytes() == second[name].tobytes() for name in SHAPES)


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 5000), min_size=1))
def test_where_every_site_has_every_label_the_mean_is_that_without_labels_bit_for_bit(drawn):
    everything = [True] * 3
    answers = {site: update(site, everything, samples) for site, samples in drawn.items()}
    weights, behind = split(answers)
    by_label, still = mean_by_label(weights, behind, ROWS)
    plain = mean_delta(weights)
    assert all(by_label[name].tobytes() == plain[name].tobytes() for name in SHAPES)
    assert not any(rows.any() for rows in still.values())


@pytest.mark.parametrize("behind", [[-1, 1, 1], [4, 1, 1]])
def test_more_samples_behind_a_label_than_there_are_is_refused(behind):
    weights, _ = split({"a": update("a", [True] * 3, 3)})
    with pytest.raises(RefusedError, match="labels"):
        mean_by_label(weights, np.array(behind), ROWS)


def test_a_change_of_a_label_that_no_site_has_is_refused():
    weights, _ = split({"a": update("a", [True] * 3, 3)})
    with pytest.raises(RefusedError, match="no change"):
        mean_by_label(weights, np.array([3, 0, 3]), ROWS)


def test_a_label_that_nobody_trained_waits_with_its_velocity():
    mean = {"heads": np.array([[1.0], [0.0]])}
    before = {"heads": np.array([[4.0], [8.0]], np.float32)}
    step, velocity = with_momentum(mean, before, 0.5, {"heads": np.array([False, True])})
    assert step["heads"].tolist() == [[1 + 0.5 * 3], [0.0]]
    assert velocity["heads"].tolist() == [[3.0], [8.0]]


# With a plan: from a sum to the next weights.


def plan_of(momentum=0.0, **task):
    rounds = {"training": 2, "server_momentum": momentum}
    return parse_plan(SMALL | {"task": SMALL["task"] | task, "rounds": rounds})


def sum_of(plan, drawn):
    parameters = shared_parameters(plan)
    shapes = {name: parameter.shape for name, parameter in parameters.items()}
    rows, tells = branch_rows(plan), plan.tells_labels
    answers = {s: update(s, *words, shapes, rows, tells=tells) for s, words in drawn.items()}
    updates = add_records("run-1", 1, answers).group("ModelUpdate")
    table = np.zeros((plan.experience.rows, plan.experience.columns), np.int64)
    sketch = Group(updates.members, Summand({"total": 0}, {"table": table}), 0)
    return Sum("run-1", 1, {"ModelUpdate": updates, "SketchTable": sketch})


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_a_plan_that_lets_labels_lack_derives_the_same_where_nothing_lacks(momentum):
    drawn = {"a": ([True] * 3, 7), "b": ([True] * 3, 11)}
    states = []
    for plan in (plan_of(momentum), plan_of(momentum, missing="allow")):
        state = ModelState(initial_weights(plan))
        for _ in range(2):
            state = advance(state, plan, sum_of(plan, drawn))
        states.append(state)
    plain, told = states
    assert plain.digest == told.digest
    for name, array in plain.velocity.items():
        assert array.tobytes() == told.velocity[name].tobytes()


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_a_head_that_no_site_has_stays_and_the_others_move(momentum):
    plan = plan_of(momentum, missing="allow")
    state = ModelState(initial_weights(plan))
    for _ in range(2):
        state = advance(
            state,
            plan,
            sum_of(plan, {"a": ([True, False, False], 7), "b": ([False, True, False], 3)}),
        )
    first = initial_weights(plan)
    for name, rows in branch_rows(plan).items():
        moved = (state.weights[name] != first[name]).reshape(3, rows, -1).any(axis=(1, 2))
        assert moved.tolist() == [True, True, False]


def test_a_sum_without_labels_is_not_of_such_a_plan():
    plan, other = plan_of(missing="allow"), plan_of()
    with pytest.raises(RefusedError, match="form"):
        advance(ModelState(initial_weights(plan)), plan, sum_of(other, {"a": ([True] * 3, 7)}))
