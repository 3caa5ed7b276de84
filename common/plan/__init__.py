"""The federation plan: what is trained, how, for how long, and what may be asked of a site.

A plan is data, never code. It is written as TOML, read once, frozen, and known
everywhere by its fingerprint: the SHA-256 of its canonical JSON. Unknown keys
are refused, so that a misspelt limit is an error and not a default.

Lives here: the sections of each kind (``experience``, ``pixels``, ``embed``), those of
every plan (``limits``), the ``kinds`` of run, the whole that holds them
(``federation_plan``), ``reading``, and what follows of a plan's keys (``prefixes``).
What a plan says of an agent are the sections of ``common.settings``.
May not: whatever depends on a machine. A new field or another default is another
fingerprint, which sites and aggregators of an earlier release do not compute.
"""

from __future__ import annotations

from common.plan.embed import Embed
from common.plan.experience import Experience
from common.plan.federation_plan import FederationPlan
from common.plan.kinds import PHASES, RUNS, Kind, Phase, RunKind
from common.plan.limits import Limits, Rounds
from common.plan.pixels import Pixels
from common.plan.reading import parse_plan, read_plan

__all__ = [
    "PHASES",
    "RUNS",
    "Embed",
    "Experience",
    "FederationPlan",
    "Kind",
    "Limits",
    "Phase",
    "Pixels",
    "Rounds",
    "RunKind",
    "parse_plan",
    "read_plan",
]
