"""It must not get more than was approved: extra runs, rounds backwards, a plan swapped in a run."""

import pytest

from common.wire.codes import ReplyCode
from tests.attacks.conftest import approve, make_past, plan_of


def trained(liar, plan, round_, run="run-1"):
    past = make_past(liar, plan, run)
    return liar.ask(plan, round_, "train", run=run, sums=past.until(round_))


def updates(liar):
    return [r for r in liar.records() if r.get("record_type") == "ModelUpdate"]


def test_thirty_more_runs_of_an_approved_plan_are_counted_over_all_runs(trusting):
    policy = trusting.site.policy_file
    text = policy.read_text()
    assert text.count("runs = 40") == 1
    policy.write_text(text.replace("runs = 40", "runs = 3"))
    plan = plan_of()
    codes = [trained(trusting, plan, 1, run=f"run-{n}").code for n in range(6)]
    assert codes == [ReplyCode.OK] * 3 + [ReplyCode.BUDGET_SPENT] * 3
    assert len(updates(trusting)) == 3


def test_a_round_is_answered_once_and_never_after_a_later_one(trusting):
    plan = plan_of()
    assert trained(trusting, plan, 1).code is ReplyCode.OK
    assert trained(trusting, plan, 3).code is ReplyCode.OK
    for round_ in (1, 2, 3):
        sums = make_past(trusting, plan).until(round_)
        heard = trusting.ask(plan, round_, "train", sums=sums, deadline_s=61)
        assert heard.code is ReplyCode.BACKWARDS, round_
    assert trusting.ask(plan, 0, "begin").code is ReplyCode.BACKWARDS
    assert [r["round"] for r in updates(trusting)] == [1, 3]


def test_the_same_order_again_gets_the_same_bytes_and_no_new_record(trusting):
    plan = plan_of()
    sums = make_past(trusting, plan).until(2)
    first = trusting.ask(plan, 2, "train", sums=sums)
    before = len(trusting.records())
    again = trusting.ask(plan, 2, "train", sums=sums)
    assert again.released["ModelUpdate"].record == first.released["ModelUpdate"].record
    assert len(trusting.records()) == before


@pytest.mark.parametrize("change", [{"seed": 6}, {"learner": {"learning_rate": 2e-3}}])
def test_another_plan_in_a_run_is_refused_though_it_is_approved(trusting, change):
    plan, other = plan_of(), plan_of(**change)
    approve(trusting, other)
    assert trained(trusting, plan, 1).code is ReplyCode.OK
    past = make_past(trusting, other)
    heard = trusting.ask(other, 2, "train", sums=past.until(2))
    assert heard.code is ReplyCode.CHANGED_PLAN
    assert len(updates(trusting)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"learner": {"batch": 1}},
        {"learner": {"updates": 4}},
        {"learner": {"warmup": 1}},
        {"learner": {"learning_rate": 1e30}},
        {"learner": {"gradient_clip": 1e30}},
        {"limits": {"update_l2": 1e300}},
        {"task": {"roi": 129}},
        {"network": {"width": 64}},
        {"rounds": {"quorum": 1}},
    ],
)
def test_a_foolish_plan_is_refused_though_a_person_approved_it(trusting, changes):
    plan = plan_of(**changes)
    approve(trusting, plan)
    assert trusting.ask(plan, run="run-9").code is ReplyCode.REFUSED_BY_POLICY
    assert trusting.got_nothing()
    refusal = trusting.records()[-2]
    assert refusal["event"] == "REFUSE"
    section, field = next((s, next(iter(f))) for s, f in changes.items())
    assert refusal["detail"]["field"] == f"{section}.{field}"


def test_no_plan_runs_that_nobody_approved_and_none_that_somebody_declined(hospital):
    from site_client.decisions.making import Decision, decide
    from tests.attacks.conftest import OTHERS, confirm

    confirm(hospital, *OTHERS)
    plan = plan_of()
    assert trained(hospital, plan, 1).code is ReplyCode.PLAN_WAITS
    words = {"event": "DECLINE", "person": "Ada", "plan_fingerprint": plan.fingerprint}
    decide(hospital.site, [Decision.made(**words)])
    assert trained(hospital, plan, 1).code is ReplyCode.PLAN_DECLINED
    assert hospital.got_nothing()
