"""All plans that this site has heard of, and the one that a person means. Reads only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from common.canonical import sha256_hex
from common.errors import CairnError, InputDataError, UsageError
from common.ledger.layout import Layout
from common.plan import FederationPlan, read_plan
from common.policy import read_policy
from site_client.decisions.standing import Decided, Standing, read_standing
from site_client.plans.waiting import kept_plans, plan_of
from site_client.site import SiteFolder

LEAST_DIGITS: Final = 8
State = Literal["waiting", "approved", "declined", "kept"]


@dataclass(frozen=True)
class KnownPlan:
    """A plan that this site has heard of.

    Attributes:
        fingerprint: 64 hex digits.
        state: ``waiting`` for a person; ``approved`` or ``declined`` by one; or ``kept``:
            of a site whose policy asks nobody, or of nothing yet but a file.
        plan: None where only a decision is left of it.
        since: when it was first heard of, empty where only a decision is left.
        run: the newest that asked for it and did not get it at once, or None.
        decided: by whom and when, or None.
    """

    fingerprint: str
    state: State
    plan: FederationPlan | None
    since: str = ""
    run: str | None = None
    decided: Decided | None = None

    @property
    def name(self) -> str:
        """The plan's own, or an empty text."""
        return "" if self.plan is None else self.plan.name

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "fingerprint": self.fingerprint,
            "state": self.state,
            "plan": self.name or None,
            "kind": None if self.plan is None else self.plan.kind,
            "since": self.since or None,
            "run": self.run,
            "person": None if self.decided is None else self.decided.person,
            "decided_at": None if self.decided is None else self.decided.ts,
        }


def known_plans(site: SiteFolder, standing: Standing | None = None) -> tuple[KnownPlan, ...]:
    """Every plan heard of: those that wait first, then by the time of their decision.

    Raises:
        VerificationError: a line of the ledger cannot be read.
    """
    standing = read_standing(site) if standing is None else standing
    asks, plans = _asks_people(site), {}
    for stored in kept_plans(site):
        fingerprint = stored.plan.fingerprint
        state, decided = _decided(standing, fingerprint)
        if state == "kept" and stored.run is not None and asks:
            state = "waiting"
        plans[fingerprint] = KnownPlan(
            fingerprint, state, stored.plan, stored.since, stored.run, decided
        )
    for fingerprint in (*standing.approved, *standing.declined):
        if fingerprint not in plans:
            state, decided = _decided(standing, fingerprint)
            plan = _archived(site, fingerprint)
            plans[fingerprint] = KnownPlan(fingerprint, state, plan, decided=decided)
    return tuple(sorted(plans.values(), key=_order))


def plans_that_wait(site: SiteFolder, standing: Standing | None = None) -> tuple[KnownPlan, ...]:
    """List the plans for which a person is asked now, first heard of first.

    Raises:
        VerificationError: a line of the ledger cannot be read.
    """
    return tuple(plan for plan in known_plans(site, standing) if plan.state == "waiting")


def find_plan(site: SiteFolder, word: str) -> KnownPlan:
    """Return the plan that a person means: a file, or the beginning of a known fingerprint.

    Raises:
        UsageError: neither; too few digits; or several plans begin like that.
        InputDataError: the file is not a plan.
        VerificationError: a line of the ledger cannot be read.
    """
    plans = known_plans(site)
    path = Path(word)
    if path.suffix == ".toml" or path.is_file():
        plan = read_plan(path)
        for each in plans:
            if each.fingerprint == plan.fingerprint:
                return KnownPlan(
                    each.fingerprint, each.state, plan, each.since, each.run, each.decided
                )
        return KnownPlan(plan.fingerprint, "kept", plan)
    return _begins_with(plans, word)


def _begins_with(plans: Sequence[KnownPlan], word: str) -> KnownPlan:
    if not re.fullmatch(f"[0-9a-f]{{{LEAST_DIGITS},64}}", word):
        raise UsageError(
            "this names no plan",
            expected=f"a plan file, or {LEAST_DIGITS} to 64 hexadecimal digits of a fingerprint",
            got="another word",
            advice="See: cairn-site plans",
        )
    matches = [each for each in plans if each.fingerprint.startswith(word)]
    if len(matches) == 1:
        return matches[0]
    raise UsageError(
        "no plan of this site begins like that" if not matches else "several plans begin like that",
        field="fingerprint",
        expected="the beginning of exactly one plan's",
        got=f"{len(matches)} plans",
        advice="See: cairn-site plans" if not matches else "Type more of its digits",
    )


def text_of(entry: KnownPlan) -> FederationPlan:
    """Return the plan itself.

    Raises:
        InputDataError: only a decision is left of it here.
    """
    if entry.plan is None:
        raise InputDataError(
            "the text of this plan is not here",
            field=entry.fingerprint[:12],
            expected="a plan that waits, or was served before",
            got="a decision about it",
            advice="Ask the coordinator for the plan file, and name that instead",
        )
    return entry.plan


def _decided(standing: Standing, fingerprint: str) -> tuple[State, Decided | None]:
    if fingerprint in standing.approved:
        return "approved", standing.approved[fingerprint]
    if fingerprint in standing.declined:
        return "declined", standing.declined[fingerprint]
    return "kept", None


def _asks_people(site: SiteFolder) -> bool:
    """Tell whether a person is asked at all; of a policy that cannot be read, yes."""
    try:
        return read_policy(site.policy_file).plans.approval == "each"
    except InputDataError:
        return True


def _archived(site: SiteFolder, fingerprint: str) -> FederationPlan | None:
    """Return the plan as it lies in the ledger's archive since it was served."""
    try:
        text = Layout(site.ledger).payload(fingerprint).read_bytes()
        return plan_of(text) if sha256_hex(text) == fingerprint else None
    except (OSError, CairnError):
        return None


def _order(plan: KnownPlan) -> tuple[int, str, str]:
    rank = ("waiting", "kept", "approved", "declined").index(plan.state)
    when = plan.since if plan.decided is None else plan.decided.ts
    return rank, when, plan.fingerprint
