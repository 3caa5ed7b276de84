"""The rule by which a plan may be served, apart from the worker that keeps to it.

Pure: the policy, the decisions that hold, the plan; no file and no clock. The bounds
of the policy are checked before this, and by others; nobody's approval lifts one.
"""

from __future__ import annotations

from typing import ClassVar

from common.errors import RefusedError
from common.plan import FederationPlan
from common.policy import Policy
from common.wire.codes import ReplyCode
from site_client.decisions.standing import Standing


class UndecidedPlanError(RefusedError):
    """A plan that is not served because of what people said, or did not say yet.

    Attributes:
        code: the number under which this leaves the site.
    """

    code: ClassVar[ReplyCode]


class PlanWaitsError(UndecidedPlanError):
    """No person of this site has approved the plan yet."""

    code = ReplyCode.PLAN_WAITS


class PlanDeclinedError(UndecidedPlanError):
    """A person of this site has declined the plan."""

    code = ReplyCode.PLAN_DECLINED


def require_approved(policy: Policy, standing: Standing, plan: FederationPlan) -> None:
    """Return only if the plan may be served.

    An approval is of a fingerprint: it holds for every later run of the same plan,
    until somebody declines it.

    Args:
        policy: the site's; with ``plans.approval = "bounded"`` only a declined plan is
            refused here.
        standing: the decisions that hold.
        plan: that an order asks for.

    Raises:
        PlanDeclinedError: a person declined it.
        PlanWaitsError: nobody has approved it.
    """
    short = plan.fingerprint[:12]
    if plan.fingerprint in standing.declined:
        raise PlanDeclinedError(
            "this plan was declined here",
            field="plan",
            expected="one that nobody declined",
            got=f"plan {short}",
            advice=f"Whoever thinks better of it types: cairn-site plans approve {short}",
        )
    if policy.plans.approval == "bounded" or plan.fingerprint in standing.approved:
        return
    raise PlanWaitsError(
        "this plan waits for a person here",
        field="plan",
        expected="approved by a person of this site",
        got=f"plan {short}",
        advice=f"Read it: cairn-site plans show {short}; then: cairn-site plans approve {short}",
    )
