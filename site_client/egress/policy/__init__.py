"""The site's own bounds on every plan: ``policy.toml``.

The coordinator proposes a plan; the site's owner decides here how far any plan
may go. A plan beyond the policy is refused before training starts, and the
digest of the policy stands in every ledger record. Nothing here can be changed
by an order.

``sections`` what the file says, ``ranges`` its ``[bounds]`` and ``[budget]``;
``bounds`` which field of a plan they bound, and the refusal; ``default`` the file
that ``cairn-site join`` writes. To audit, read ``BOUNDED`` and ``HARMLESS`` in
``bounds``: every field of a plan stands in one of them.
"""

from __future__ import annotations

from site_client.egress.policy.bounds import (
    BOUNDED,
    HARMLESS,
    ORDER_FIELDS,
    TOGETHER,
    check_phase,
    check_plan,
)
from site_client.egress.policy.default import default_policy_text
from site_client.egress.policy.ranges import Bounds, Budget
from site_client.egress.policy.sections import (
    ByteCaps,
    Floors,
    HeldOut,
    KeySharing,
    Peers,
    PixelBounds,
    Plans,
    Policy,
    Privacy,
    Records,
    Witnesses,
    read_policy,
)

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
    "Records",
    "Witnesses",
    "check_phase",
    "check_plan",
    "default_policy_text",
    "read_policy",
]
