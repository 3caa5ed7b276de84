"""A site's own bounds on every plan, as a form: ``policy.toml`` and its canonical text.

The site's owner writes it (``site_client.egress.policy`` has the default), the door keeps
to it, and an auditor reads it years later: its text lies in the ledger's archive under the
digest that stands in every record, so both hold a release against the same words.

``sections`` what the file says, ``ranges`` its ``[bounds]`` and ``[budget]``; ``bounds``
which field of a plan they bound, and the refusal; ``floors`` the stricter of plan and
site. To audit, read ``BOUNDED`` and ``HARMLESS`` in ``bounds``: every field of a plan
stands in one of them.
"""

from __future__ import annotations

from common.policy.bounds import (
    BOUNDED,
    HARMLESS,
    ORDER_FIELDS,
    TOGETHER,
    check_phase,
    check_plan,
)
from common.policy.floors import stricter_floors
from common.policy.ranges import Bounds, Budget
from common.policy.sections import (
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
    parse_policy,
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
    "Receipts",
    "Records",
    "Retention",
    "Witnesses",
    "check_phase",
    "check_plan",
    "parse_policy",
    "read_policy",
    "stricter_floors",
]
