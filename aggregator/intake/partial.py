"""A relay's sum over some of its sites: whether it is one that they could have sent.

Nobody here can read a tag, so whether it is what they sent is for the sites to say. Here is
checked that it names exactly the sites that were asked for, has the plan's form, counts no
more than they may, and is no longer than the lengths that were compared let it be: a relay
that tells too short lengths can move the model by them and no further.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from common.errors import RefusedError
from common.plan import FederationPlan
from common.schedule import Phase
from common.sums.addition import Group, Sum, decode_sum, magnitude
from common.sums.forms import Form, forms_of
from common.wire.expected import l2_norm
from common.wire.labels import without_labels
from common.wire.records import ModelUpdate

ROUNDING: Final = 1e-6
"""By which a length may be missed: both sides add squares of many numbers as floats."""


@dataclass(frozen=True)
class PartialRequest:
    """The partial sum that a relay was asked for.

    Attributes:
        caps: most samples that each of its sites may count as, by name.
        lengths: L2 norm of each site's update, by the relay's word; of those that have one.
    """

    run: str
    round: int
    phase: Phase
    plan: FederationPlan
    caps: Mapping[str, int]
    lengths: Mapping[str, float]


def check_partial(data: bytes, request: PartialRequest) -> Sum:
    """Read a relay's sum and check everything that can be checked without the federation key.

    Args:
        data: as ``encode_sum`` makes it.
        request: what was asked for.

    Raises:
        RefusedError: another run, round, set of sites or form, or more than they could send.
        VerificationError: not canonical.
    """
    total = decode_sum(data)
    _require((total.run, total.round) == (request.run, request.round), "run, round", "the order's")
    forms = forms_of(request.plan, request.phase, sum(request.caps.values()), len(request.caps))
    _require(set(total.groups) == set(forms), "groups", ", ".join(forms) or "none")
    for kind, group in total.groups.items():
        members = list(group.members) == sorted(request.caps)
        _require(members, f"{kind}.members", f"the {len(request.caps)} sites that were asked for")
        _check_form(kind, group, forms[kind])
    if ModelUpdate.__name__ in total.groups:
        _check_length(total.groups[ModelUpdate.__name__], request)
    return total


def _check_form(kind: str, group: Group, form: Form) -> None:
    shapes = {name: array.shape for name, array in group.summand.arrays.items()}
    _require(shapes == dict(form.shapes), f"{kind}.arrays", "the plan's names and shapes")
    for name, count in group.summand.counts.items():
        most = form.counts[name]
        _require(count <= most, f"{kind}.{name}", f"at most {most}")
    for name, array in group.summand.arrays.items():
        within = magnitude(array) <= form.reach
        _require(within, f"{kind}/{name}", "within what its sites could send")


def _check_length(group: Group, request: PartialRequest) -> None:
    """Require a weighted mean that is no longer than the longest of what it is a mean of."""
    samples = group.summand.counts["samples"]
    _require(samples >= len(group.members), "ModelUpdate.samples", "one or more of each site")
    longest = samples * max(request.lengths[site] for site in group.members)
    length = l2_norm(without_labels(group.summand.arrays))
    _require(
        length <= longest * (1 + ROUNDING),
        "ModelUpdate",
        "no longer than the lengths that the relay told allow",
    )


def _require(holds: bool, field: str, expected: str) -> None:
    if not holds:
        raise RefusedError(
            "a relay's sum is not what was asked for", field=field, expected=expected, got="another"
        )
