"""The site's own bounds: they hold before an image is opened, whatever the plan says."""

import pytest

from common.errors import InputDataError, RefusedError
from common.plan import FederationPlan, parse_plan
from common.policy import Policy, check_phase, check_plan, read_policy
from site_client.egress.policy import default_policy_text


@pytest.fixture
def plan() -> FederationPlan:
    learner = {"replay": "rare-first"}
    return parse_plan(
        {"name": "p", "seed": 1, "task": {"landmarks": ["AC", "PC"]}, "learner": learner}
    )


@pytest.fixture
def policy(tmp_path) -> Policy:
    path = tmp_path / "policy.toml"
    path.write_text(default_policy_text())
    return read_policy(path)


def bend(policy, section, **changes):
    inner = getattr(policy, section).model_dump() | changes
    return Policy.model_validate(policy.model_dump() | {section: inner})


def refused(policy, plan, **more):
    with pytest.raises(RefusedError, match="policy does not allow this plan") as caught:
        check_plan(policy, plan, **more)
    return caught.value.field


def test_the_default_policy_is_valid_and_allows_the_default_plan(policy, plan):
    check_plan(policy, plan)


def test_the_digest_depends_on_what_the_policy_says_and_not_on_how_it_is_written(policy, tmp_path):
    path = tmp_path / "again.toml"
    path.write_text(
        "# another comment\n\n" + default_policy_text().replace("67_108_864", "67108864")
    )
    assert read_policy(path).sha256 == policy.sha256
    path.write_text(default_policy_text().replace("images = 2", "images = 3"))
    assert read_policy(path).sha256 != policy.sha256


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("images = 2", "imagse = 2", "floors.images"),
        ("images = 2", "images = 2\nimages_max = 9", "floors.images_max"),
        ('"RoundReport"]', '"RawImages"]', "records.allowed"),
        ("per_round = 67_108_864", "per_round = 8_000_000_000_000", "bytes"),
        ("least_tier = 1", "least_tier = 2", "privacy.least_tier"),
        ('landmarks = "any"', 'landmarks = "all"', "plans.landmarks"),
        ("version = 1", "version = 2", "version"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused_by_field(tmp_path, old, new, field):
    path = tmp_path / "policy.toml"
    assert old in default_policy_text()
    path.write_text(default_policy_text().replace(old, new))
    with pytest.raises(InputDataError, match="policy is not valid") as caught:
        read_policy(path)
    assert caught.value.field.startswith(field)


def test_an_absent_policy_allows_nothing(tmp_path):
    with pytest.raises(InputDataError, match="cannot read the site's policy"):
        read_policy(tmp_path / "policy.toml")


def test_a_kind_of_plan_that_is_not_listed_is_refused(policy, plan):
    assert refused(bend(policy, "plans", kinds=("no-op",)), plan) == "kind"
    assert refused(bend(policy, "plans", kinds=()), plan) == "kind"


def test_a_task_that_is_not_listed_is_refused(policy, plan):
    assert refused(bend(policy, "plans", tasks=()), plan) == "task.kind"


def test_a_landmark_that_is_not_listed_is_refused(policy, plan):
    check_plan(bend(policy, "plans", landmarks=("AC", "PC", "MB")), plan)
    assert refused(bend(policy, "plans", landmarks=("AC",)), plan) == "task.landmarks"
    assert refused(bend(policy, "plans", landmarks=()), plan) == "task.landmarks"


def test_a_plan_that_was_not_approved_is_refused(policy, plan):
    check_plan(bend(policy, "plans", fingerprints=(plan.fingerprint,)), plan)
    assert refused(bend(policy, "plans", fingerprints=("0" * 64,)), plan) == "fingerprint"
    assert refused(bend(policy, "plans", fingerprints=()), plan) == "fingerprint"


def test_an_order_whose_answer_may_not_leave_is_refused_before_it_is_worked_on(policy, plan):
    for phase in ("begin", "train", "evaluate"):
        check_phase(policy, plan, phase)
    reports = bend(policy, "records", allowed=("RoundReport",))
    check_phase(reports, plan, "evaluate")
    with pytest.raises(RefusedError, match="a need for ModelUpdate"):
        check_phase(reports, plan, "train")


def test_a_plan_below_the_sites_privacy_tier_is_refused(policy, plan):
    limits = plan.limits.model_copy(update={"privacy_tier": 0})
    assert refused(policy, plan.model_copy(update={"limits": limits})) == "limits.privacy_tier"


def test_a_plan_bound_to_send_more_than_the_caps_is_refused_before_it_starts(policy, plan):
    table = 8 * plan.experience.rows * plan.experience.columns
    exact = bend(policy, "bytes", per_round=table + 10, per_run=(table + 10) * 6)
    check_plan(exact, plan, weights_bytes=10)
    assert refused(exact, plan, weights_bytes=11) == "experience and model"
    run = bend(policy, "bytes", per_round=table + 11, per_run=(table + 10) * 6)
    assert refused(run, plan, weights_bytes=11) == "rounds.training"
