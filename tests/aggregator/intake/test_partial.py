"""What a relay's sum may be: what the sites that were asked for could have sent, and no more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.intake.partial import PartialRequest, check_partial
from common.errors import RefusedError
from common.plan import FederationPlan, parse_plan
from common.schedule import schedule
from common.sums.addition import Group, Sum, add_records, encode_sum
from common.sums.forms import forms_of
from common.sums.summand import COUNTS, Summand
from common.wire.envelope import Envelope
from common.wire.expected import l2_norm
from common.wire.records import ModelUpdate
from common.wire.rules import summed_of

NO_OP = {
    "name": "p",
    "kind": "no-op",
    "seed": 3,
    "task": {"landmarks": ["AC", "PC"], "roi": 9},
    "network": {"width": 4, "hidden": [8]},
    "experience": {"rows": 3, "columns": 64},
}
TRAINING = {**NO_OP, "kind": "training"}
PIXELS = {
    "name": "p",
    "kind": "pixels",
    "seed": 3,
    "pixels": {"bands": ["a", "b", "c", "d"], "components": 3, "bins": 6},
}
PLANS = {
    "no-op": NO_OP,
    "uniform": {**TRAINING, "learner": {"replay": "uniform"}},
    "wrong-first": {**TRAINING, "learner": {"replay": "wrong-first"}},
    "pixels": PIXELS,
}
SITES = ("east", "west")


def total_of(plan: FederationPlan, phase: str, round_: int) -> Sum:
    """Zeros in the plan's form, of two sites with a sample each."""
    groups = {}
    for kind, form in forms_of(plan, phase, 20, 2).items():
        arrays = {name: np.zeros(shape, np.int64) for name, shape in form.shapes.items()}
        counts = dict.fromkeys(COUNTS[kind], 2)
        groups[kind] = Group(SITES, Summand(counts, arrays), 0)
    return Sum("run-1", round_, groups)


def wanted(plan: FederationPlan, phase: str, round_: int, length: float = 10.0) -> PartialRequest:
    caps, lengths = dict.fromkeys(SITES, 10), dict.fromkeys(SITES, length)
    return PartialRequest("run-1", round_, phase, plan, caps, lengths)


def summed_phases(plan: FederationPlan) -> list[tuple[int, str]]:
    return [(n, phase) for n, phase in enumerate(schedule(plan)) if summed_of(plan, phase)]


CASES = [
    (name, round_, phase)
    for name, words in PLANS.items()
    for round_, phase in summed_phases(parse_plan(words))[:3]
]


@pytest.mark.parametrize(("name", "round_", "phase"), CASES)
def test_a_sum_in_the_plans_form_is_taken_and_one_in_another_is_not(name, round_, phase):
    plan = parse_plan(PLANS[name])
    total = total_of(plan, phase, round_)
    assert set(total.groups) == {kind.__name__ for kind in summed_of(plan, phase)}
    asked = wanted(plan, phase, round_)
    check_partial(encode_sum(total), asked)
    for kind, group in total.groups.items():
        form = forms_of(plan, phase, 20, 2)[kind]
        summand = group.summand
        bent = [Summand(summand.counts, {**summand.arrays, "more": np.zeros(1, np.int64)})]
        bent += [
            Summand({**summand.counts, count: most + 1}, summand.arrays)
            for count, most in form.counts.items()
            if most + 1 < 2**53
        ]
        for array, shape in form.shapes.items():
            other = {**summand.arrays, array: np.zeros((*shape, 1), np.int64)}
            far = {**summand.arrays, array: np.full(shape, form.reach + 1, np.int64)}
            bent += [Summand(summand.counts, other), Summand(summand.counts, far)]
        for each in bent:
            groups = {**total.groups, kind: replace(group, summand=each)}
            with pytest.raises(RefusedError, match=rf"not what was asked for: {kind}"):
                check_partial(encode_sum(replace(total, groups=groups)), asked)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda t: replace(t, run="run-2"), "run, round"),
        (lambda t: replace(t, round=9), "run, round"),
        (lambda t: replace(t, groups={"ModelUpdate": t.groups["ModelUpdate"]}), "groups"),
        (lambda t: with_members(t, ("east",)), "members"),
        (lambda t: with_members(t, ("east", "north")), "members"),
        (lambda t: with_members(t, ("east", "north", "west")), "members"),
    ],
)
def test_a_sum_of_something_else_is_refused(change, field):
    plan = parse_plan(NO_OP)
    total = total_of(plan, "train", 1)
    with pytest.raises(RefusedError, match=field):
        check_partial(encode_sum(change(total)), wanted(plan, "train", 1))


def with_members(total: Sum, members: tuple[str, ...]) -> Sum:
    groups = {kind: replace(group, members=members) for kind, group in total.groups.items()}
    return replace(total, groups=groups)


@given(st.integers(0, 2**32), st.lists(st.integers(1, 10), min_size=2, max_size=2))
@settings(max_examples=30, deadline=None)
def test_what_honest_sites_sent_is_never_too_long_and_ten_times_it_is(seed, samples):
    plan = parse_plan({**TRAINING, "learner": {"replay": "uniform"}})
    rng = np.random.default_rng(seed)
    shapes = forms_of(plan, "train", 20, 2)["ModelUpdate"].shapes
    answers, lengths = {}, {}
    for site, count in zip(SITES, samples, strict=True):
        arrays = {n: rng.integers(-9, 10, s).astype(np.int32) for n, s in sorted(shapes.items())}
        record = ModelUpdate(
            plan_fingerprint=plan.fingerprint,
            site=site,
            run="run-1",
            round=1,
            images=count,
            samples=count,
            transitions=1,
            updates=1,
        )
        answers[site] = [Envelope(record, arrays)]
        lengths[site] = l2_norm(arrays)
    asked = PartialRequest("run-1", 1, "train", plan, dict.fromkeys(SITES, 10), lengths)
    total = add_records("run-1", 1, answers)
    check_partial(encode_sum(total), asked)
    group = total.groups["ModelUpdate"]
    longer = {name: 10 * array for name, array in group.summand.arrays.items()}
    bent = replace(group, summand=Summand(group.summand.counts, longer))
    with pytest.raises(RefusedError, match="no longer than the lengths"):
        check_partial(encode_sum(replace(total, groups={"ModelUpdate": bent})), asked)
