"""The site's own bounds on every plan: ``policy.toml``.

The coordinator proposes a plan; the site's owner decides here how far any plan
may go. A plan beyond the policy is refused before training starts, and the
digest of the policy stands in every ledger record. Nothing here can be changed
by an order.

The form and its rules are ``common.policy``, for an auditor holds releases against
them, too; ``default`` is the file that ``cairn-site join`` writes.
"""

from __future__ import annotations

from common.policy import (
    BOUNDED,
    HARMLESS,
    ORDER_FIELDS,
    TOGETHER,
    Bounds,
    Budget,
    ByteCaps,
    Floors,
    HeldOut,
    KeySharing,
    Peers,
    PixelBounds,
    Plans,
    Policy,
    Privacy,
    Receipts,
    Records,
    Retention,
    Witnesses,
    check_phase,
    check_plan,
    parse_policy,
    read_policy,
    stricter_floors,
)
from site_client.egress.policy.default import default_policy_text

__all__ = [
    "BOUNDED",
    "HARMLESS",
    "ORDER_FIELDS",
    "TOGETHER",
    "Bounds",
    "Budget",
    "ByteCaps",
    "Floors",
    "HeldOut",
    "KeySharing",
    "Peers",
    "PixelBounds",
    "Plans",
    "Policy",
    "Privacy",
    "Receipts",
    "Records",
    "Retention",
    "Witnesses",
    "check_phase",
    "check_plan",
    "default_policy_text",
    "parse_policy",
    "read_policy",
    "stricter_floors",
]
