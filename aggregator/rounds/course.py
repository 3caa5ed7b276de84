"""The course of a run: which round comes next, when one counts, what the verdict is.

The rules, all of them:

1. Round 0 (``begin``) asks every site what it starts from. A site that starts from
   something else than the plan's, or with sketches of another key or quantiser than
   the others, does not take part; its difference is a rejection.
2. Each later round asks every site for the next phase of the plan's schedule.
3. A round counts when at least ``quorum`` sites were accepted; otherwise the
   run ends FAILED there, and what earlier rounds merged stays.
4. A rejection, a failure or an absence leaves the site out of that round only,
   and makes the run DEGRADED. COMPLETED means that everybody was always there.

No I/O, no clock, no Flower: whoever holds a ``Course`` does what ``step`` says
and tells it what came of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from common.errors import RefusedError, UnreachableError
from common.plan import FederationPlan
from common.schedule import Phase, is_work
from common.schedule import schedule as phases

Verdict = Literal["COMPLETED", "DEGRADED", "FAILED"]


@dataclass(frozen=True)
class Step:
    """The next request to the sites."""

    round: int
    phase: Phase


def schedule(plan: FederationPlan) -> list[Step]:
    """Every step of a run of ``plan``, in order."""
    return [Step(number, phase) for number, phase in enumerate(phases(plan))]


@dataclass(frozen=True)
class Agreement:
    """The agreement of round 0: the name of the federation key and of the quantiser."""

    key_id: str
    codec: str


@dataclass
class Course:
    """State of one run.

    Attributes:
        plan: what is carried out.
        finished: rounds that count, in order.
        blemishes: why the run is not COMPLETED: by site and what was wrong, the rounds.
    """

    plan: FederationPlan
    finished: list[int] = field(default_factory=list)
    blemishes: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def step(self) -> Step | None:
        """Return the next round, or None when the run is over."""
        following = self.finished[-1] + 1 if self.finished else 0
        return next((step for step in schedule(self.plan) if step.round == following), None)

    @property
    def worked(self) -> int:
        """Rounds of work that count: agreement and evaluation are none."""
        return sum(is_work(s.phase) for s in schedule(self.plan) if s.round in self.finished)

    def blemish(self, round_: int, site: str, what: str) -> None:
        """Note that a site was rejected, failed or was absent in a round."""
        self.blemishes.setdefault((site, what), []).append(round_)

    def forgive(self, round_: int, site: str, what: str) -> None:
        """Take a blemish back: what was wrong was another site's doing, and it answered since."""
        rounds = self.blemishes.pop((site, what), [])
        if rest := [number for number in rounds if number != round_]:
            self.blemishes[site, what] = rest

    @property
    def reason(self) -> str:
        """The blemishes as a person reads them: each site and fault once, with its rounds."""
        return "; ".join(
            f"{site} {what} ({_rounds(rounds)})" for (site, what), rounds in self.blemishes.items()
        )

    def require_quorum(self, step: Step, accepted: int) -> None:
        """Refuse a round of too few sites.

        Raises:
            UnreachableError: too few sites were accepted for the round to count.
        """
        if accepted < self.plan.rounds.quorum:
            lacking = "".join(
                f"; {site} {what}"
                for (site, what), rounds in self.blemishes.items()
                if step.round in rounds
            )
            raise UnreachableError(
                f"round {step.round} did not reach its quorum",
                expected=f"{self.plan.rounds.quorum} sites",
                got=f"{accepted}{lacking}",
                advice="See `cairn-aggregator status` for each site's reason; "
                "`cairn-aggregator round resume` goes on from the last round that counts",
            )

    def close(self, step: Step, accepted: int) -> None:
        """Close a round of which the outcome is on disk.

        Raises:
            UnreachableError: as ``require_quorum``.
        """
        self.require_quorum(step, accepted)
        self.finished.append(step.round)

    @property
    def verdict(self) -> Verdict:
        """COMPLETED or DEGRADED once no step is left, FAILED before."""
        if self.step() is not None:
            return "FAILED"
        return "DEGRADED" if self.blemishes else "COMPLETED"


def _rounds(numbers: Sequence[int]) -> str:
    """Numbers as a person writes them, e.g. rounds 0-3, 5."""
    ordered = sorted(set(numbers))
    runs: list[list[int]] = []
    for number in ordered:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]
    return f"round{'s' if len(ordered) > 1 else ''} {', '.join(parts)}"


def agree(claims: dict[str, tuple[str | None, str | None]]) -> tuple[Agreement, set[str]]:
    """Find what most sites say of their sketches, and the sites that say otherwise.

    Args:
        claims: (key id, codec) by site.

    Raises:
        RefusedError: nobody says anything, or no majority does.
    """
    votes: dict[tuple[str, str], list[str]] = {}
    for site, (key_id, codec) in sorted(claims.items()):
        if key_id is not None and codec is not None:
            votes.setdefault((key_id, codec), []).append(site)
    winners = max(votes.values(), key=len, default=[])
    if 2 * len(winners) <= len(claims):
        raise RefusedError(
            "the sites do not share one federation key and quantiser",
            field="key_id, codec",
            expected="the same at most of the sites",
            got=f"{len(votes)} different ones at {len(claims)} sites",
            advice="A site that is up gets the newest federation key by itself: see `cairn-site "
            "check` there; and every site needs the same release of Cairn",
        )
    key_id, codec = next(claim for claim, sites in votes.items() if sites is winners)
    return Agreement(key_id, codec), set(claims) - set(winners)
