"""Facts of plans and people for ``cairn-site check``. Reads only."""

from __future__ import annotations

from common.cli import counted, shown
from common.plan import FederationPlan
from common.policy import read_policy
from site_client.decisions.standing import read_standing
from site_client.facts import Fact
from site_client.plans.approval import UndecidedPlanError, require_approved
from site_client.plans.finding import plans_that_wait
from site_client.site import SiteFolder

_FEW = 5


def waiting_fact(site: SiteFolder) -> Fact:
    """Say which plans wait for a person, and whether one is asked at all.

    Raises:
        InputDataError: the policy cannot be read.
        VerificationError: a line of the ledger cannot be read.
    """
    if read_policy(site.policy_file).plans.approval == "bounded":
        return Fact("plans", "ok", "those within policy.toml are served without asking anybody")
    waiting = plans_that_wait(site)
    if not waiting:
        return Fact("plans", "ok", "none waits for a person")
    names = ", ".join(f"{plan.name} {plan.fingerprint[:12]}" for plan in waiting[:_FEW])
    more = f" and {len(waiting) - _FEW} more" if len(waiting) > _FEW else ""
    short = waiting[0].fingerprint[:12]
    return Fact(
        "plans",
        "warning",
        f"{counted(len(waiting), 'plan')} asked for and not approved: {names}{more}",
        f"Read it: cairn-site plans show {short}; then: cairn-site plans approve {short}",
    )


def approval_fact(site: SiteFolder, plan: FederationPlan) -> Fact:
    """Say whether a person here has approved this plan.

    Raises:
        CairnError: as ``waiting_fact``.
    """
    standing = read_standing(site)
    try:
        require_approved(read_policy(site.policy_file), standing, plan)
    except UndecidedPlanError as error:
        return Fact("approval", "warning", f"{error.problem}: {error.got}", error.advice)
    decided = standing.approved.get(plan.fingerprint)
    if decided is None:
        return Fact("approval", "ok", "the policy asks nobody")
    return Fact("approval", "ok", f"by {shown(decided.person)}, {decided.ts}")
