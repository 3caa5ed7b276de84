"""The effect of witnesses on releases: ``[witnesses]`` of policy.toml, asked before every answer.

A ledger that somebody has seen otherwise, or that too few have seen for too long, is no
ledger to release on. The site itself says in its policy how strict that is; without
witnesses in site.toml nothing here applies.
"""

from __future__ import annotations

from common.ledger.log import Ledger
from common.policy import Policy
from common.wire.codes import NumberedError, ReplyCode
from site_client.witnesses.standing import WitnessStanding


class ContradictedError(NumberedError):
    """A witness has seen another history of this ledger."""

    code = ReplyCode.CONTRADICTED
    problem_text = "a witness has seen another history of this ledger"


class UnwitnessedError(NumberedError):
    """Too much was released that no quorum of witnesses has seen."""

    code = ReplyCode.UNWITNESSED
    problem_text = "too many releases have no quorum of witnesses"


def require_uncontradicted(standing: WitnessStanding | None, policy: Policy) -> None:
    """Return only if no witness contradicts this ledger in a way that stops releases.

    Raises:
        ContradictedError: one does.
    """
    if standing is None or policy.witnesses.contradicted == "tell":
        return
    for seen in standing.contradictions:
        if seen.proven or policy.witnesses.contradicted == "stop":
            names = "/".join(seen.names)
            raise ContradictedError(f"witness {names}", "the history of this ledger", "another")


def require_witnessed(standing: WitnessStanding | None, policy: Policy, ledger: Ledger) -> None:
    """Return only if a quorum has seen all releases but the last few.

    Raises:
        ContradictedError: a witness has seen another history.
        UnwitnessedError: as many releases as ``unwitnessed`` wait for a quorum.
    """
    require_uncontradicted(standing, policy)
    most = policy.witnesses.unwitnessed
    if standing is None or most == 0:
        return
    waiting = 0
    for seq in range(ledger.size - 1, standing.witnessed - 1, -1):
        waiting += b'"event":"SEND"' in ledger.line(seq)
    if waiting >= most:
        raise UnwitnessedError(
            "witnesses", f"fewer than {most} releases without a quorum", f"{waiting}"
        )
