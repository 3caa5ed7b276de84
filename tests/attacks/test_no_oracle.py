"""It must not get an oracle: figures of a hospital's images for weights of the liar's choice."""

from common.model import initial_weights, weights_digest
from common.wire.codes import ReplyCode
from tests.attacks.conftest import approve, make_past, plan_of


def test_sixty_evaluation_orders_of_one_round_are_answered_once(trusting):
    plan = plan_of()
    past = make_past(trusting, plan)
    sums = past.until(5)
    first = trusting.ask(plan, 5, "evaluate", sums=sums)
    assert first.code is ReplyCode.OK
    reports = {first.released["RoundReport"].record.weights_sha256}
    for number in range(8):
        # Another roster entry's cap, another past, the same round: anything but the same order.
        other = make_past(trusting, plan)
        other.add({s: other.training_records(s, 1, 2000 + number) for s in ("east", "west")})
        heard = trusting.ask(plan, 5, "evaluate", sums=other.until(5))
        assert heard.code is ReplyCode.BACKWARDS
        assert heard.released["RoundReport"].record.errors == ()
        reports |= {heard.released["RoundReport"].record.weights_sha256}
    assert reports == {first.released["RoundReport"].record.weights_sha256, None}


def test_figures_are_only_of_weights_that_honest_sites_came_to(trusting):
    """What is evaluated follows from the plan's start and from sums that hold."""
    plan = plan_of()
    heard = trusting.ask(plan, 1, "train")
    report = heard.released["RoundReport"].record
    assert report.weights_sha256 == weights_digest(initial_weights(plan))
    assert len(report.errors) == 2


def test_an_evaluation_out_of_its_round_is_refused(trusting):
    plan = plan_of()
    sums = make_past(trusting, plan).until(3)
    assert trusting.ask(plan, 3, "evaluate", sums=sums).code is ReplyCode.BAD_ORDER
    assert trusting.ask(plan, 6, "evaluate", sums=sums).code is ReplyCode.BAD_ORDER


def test_plans_that_differ_in_their_seed_need_a_person_each(trusting):
    """Another seed is another start: an oracle for weights that a liar may choose among."""
    for seed in range(6, 12):
        plan = plan_of(seed=seed)
        assert trusting.ask(plan, run=f"run-{seed}").code is ReplyCode.PLAN_WAITS
    assert trusting.got_nothing()


def test_many_evaluations_in_approved_runs_spend_the_budget(trusting):
    policy = trusting.site.policy_file
    text = policy.read_text()
    assert text.count("evaluations = 60") == 1
    policy.write_text(text.replace("evaluations = 60", "evaluations = 2"))
    plan = plan_of(rounds={"training": 1})
    approve(trusting, plan)
    codes = []
    for number in range(4):
        past = make_past(trusting, plan, run=f"run-{number}")
        codes.append(
            trusting.ask(plan, 2, "evaluate", run=f"run-{number}", sums=past.until(2)).code
        )
    assert codes == [ReplyCode.OK, ReplyCode.OK, ReplyCode.BUDGET_SPENT, ReplyCode.BUDGET_SPENT]
