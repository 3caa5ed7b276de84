"""Every round bound to all rounds before it: run, plan, sites, start and every sum.

A link is a digest. Sites make the tags of a round under the link that they themselves
computed, so summands of sites that were shown different histories, other sums, another
roster or other weights to start from do not add up to anything that holds.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.canonical import canonical_json, sha256_hex
from common.wire.orders import RosterEntry


def first_link(run: str, plan_fingerprint: str, roster: Sequence[RosterEntry], start: str) -> str:
    """Return the link of round 0.

    Args:
        run: its name.
        plan_fingerprint: of its plan.
        roster: the sites that may take part.
        start: digest of what the run starts from, e.g. of the first weights.
    """
    entries = sorted((entry.model_dump() for entry in roster), key=lambda e: str(e["site"]))
    about = {
        "link": "cairn chain v1",
        "plan": plan_fingerprint,
        "roster": entries,
        "run": run,
        "start": start,
    }
    return sha256_hex(canonical_json(about))


def next_link(link: str, sum_sha256: str) -> str:
    """Return the link after a round whose sum has this digest."""
    return sha256_hex(canonical_json({"before": link, "sum": sum_sha256}))


def tag_context(run: str, round_: int, record_type: str, link: str) -> str:
    """Name what the tags of one kind of record in one round are made for; 64 hex digits."""
    about = {"link": link, "record": record_type, "round": round_, "run": run}
    return sha256_hex(canonical_json(about))
