"""The outcome of a run by a site's own computation, from sums it verified, round by round.

The only way from an order to weights, a codec or merged tables. A sum is believed when
every group of it holds under the federation key, in this run, round and history; weights
follow from it by the plan's own rule. Nothing that arrives is trained on, evaluated or
recovered from in any other way. Pure: a worker's ``chain_file`` keeps it on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from common.crypto.keyed import FederationKey
from common.errors import CairnError, InternalError, RefusedError
from common.keys.pixel_agreement import family, read_codec
from common.model import Weights, initial_weights, shared_part
from common.plan import FederationPlan
from common.schedule import schedule
from common.sums.addition import Sum, decode_sum, sum_digest, verify_sum
from common.sums.chain import first_link, next_link
from common.sums.pixels import require_fitted
from common.sums.summand import Summand
from common.sums.training import ModelState, advance
from common.wire.codes import NumberedError, ReplyCode
from common.wire.orders import OrderHeader
from common.wire.records import PixelSketches, PixelStatistics
from common.wire.rules import SUMMED, summed_of

PREFIX_COUNTS: Final = "prefix_counts"
CheckMembers = Callable[[tuple[str, ...]], None]
"""Refuses a set of sites that may not stand behind a sum."""


class ForgedSumError(NumberedError):
    """A sum, its set of sites or its tag does not hold."""

    code = ReplyCode.FORGED_SUM
    problem_text = "what the aggregator says a round came to does not hold"


class BehindError(NumberedError):
    """The sums of earlier rounds are missing here and did not come with the order."""

    code = ReplyCode.BEHIND
    problem_text = "this site was away and lacks what earlier rounds came to"


@dataclass(frozen=True, eq=False)
class Derived:
    """The state of a run after a round, by this site's own computation.

    Attributes:
        round: that it is the outcome of; 0 before the first sum.
        link: of the chain after it.
        applied: digest of the sum of ``round``; empty before the first.
        members: sites behind that sum, in order of name.
        model: weights, velocity and merged experience; None in runs without a model.
        survey, ranges, tables: sums of a run of pixels, as far as it has come.
    """

    round: int
    link: str
    applied: str = ""
    model: ModelState | None = None
    survey: Summand | None = None
    ranges: Summand | None = None
    tables: Summand | None = None
    members: tuple[str, ...] = ()


def trains(plan: FederationPlan) -> bool:
    """Tell whether a run of this plan has a model."""
    return plan.trains


def begin(plan: FederationPlan, header: OrderHeader, start: Weights | None) -> Derived:
    """Derive the state that a run begins with.

    Args:
        plan: of the run.
        header: of any of its orders: the run's name and roster.
        start: weights of the plan's start model, digest compared; None: from the seed.

    Raises:
        InternalError: the plan names a start model, and none is given.
    """
    model = None
    if trains(plan):
        if start is None and plan.start is not None:
            raise InternalError("a run without its start", expected="the model", got="none")
        first = shared_part(initial_weights(plan), plan) if start is None else start
        model = ModelState(first)
        origin = model.digest
    else:
        origin = plan.embed.codec if plan.kind == "embed" else family(plan)
    link = first_link(header.run, plan.fingerprint, header.roster, origin)
    return Derived(0, link, model=model)


def follow(
    derived: Derived,
    plan: FederationPlan,
    header: OrderHeader,
    sums: Mapping[int, bytes],
    key: FederationKey,
    check_members: CheckMembers,
) -> Derived:
    """Go on from what is known to the state that an order starts from.

    Args:
        derived: what is known.
        plan: of the run.
        header: of the order.
        sums: bytes by round; those of rounds that are known are not looked at again.
        key: of the federation.
        check_members: refuses a set of sites.

    Raises:
        ForgedSumError: a sum does not hold, or differs from one that is known.
        BehindError: a sum is missing.
        UnknownPeersError: a sum of sites that may not stand behind one.
    """
    rounds = _rounds_before(plan, header.round)
    if derived.round > rounds:
        raise ForgedSumError("round", f"{derived.round + 1} or later", f"{header.round}")
    while derived.round < rounds:
        following = derived.round + 1
        if following not in sums:
            raise BehindError("sums", f"those of rounds {following} to {rounds}", "fewer")
        derived = _take(derived, plan, header, sums[following], key, check_members)
    if header.sum != (derived.applied or None):
        raise ForgedSumError("sum", "the digest of what the round before came to", "another")
    return derived


def _rounds_before(plan: FederationPlan, round_: int) -> int:
    """Count the sums before an order of this round: every phase but the ends has one."""
    return sum(phase in SUMMED for phase in schedule(plan)[:round_])


def _take(
    derived: Derived,
    plan: FederationPlan,
    header: OrderHeader,
    data: bytes,
    key: FederationKey,
    check_members: CheckMembers,
) -> Derived:
    """One verified sum further."""
    number = derived.round + 1
    try:
        total = decode_sum(data)
        _require((total.run, total.round) == (header.run, number), "run, round", "this one's")
        kinds = {kind.__name__ for kind in summed_of(plan, schedule(plan)[number])}
        _require(set(total.groups) == kinds, "groups", ", ".join(sorted(kinds)))
        sets = {group.members for group in total.groups.values()}
        _require(len(sets) == 1, "members", "the same sites in all records")
        for members in sets:
            check_members(members)
        verify_sum(total, key, derived.link)
        after = _apply(derived, plan, total)
    except (ForgedSumError, BehindError):
        raise
    except RefusedError as error:
        if getattr(error, "code", None) is not None:
            raise  # a number of its own: of the sites behind the sum
        raise ForgedSumError(error.field, error.expected, error.got) from error
    except CairnError as error:
        raise ForgedSumError(error.field, error.expected, error.got) from error
    digest = sum_digest(data)
    return replace(
        after,
        round=number,
        link=next_link(derived.link, digest),
        applied=digest,
        members=next(iter(sets)),
    )


def _apply(derived: Derived, plan: FederationPlan, total: Sum) -> Derived:
    """Derive what follows from a sum that holds."""
    if derived.model is not None:
        return replace(derived, model=advance(derived.model, plan, total))
    phase = schedule(plan)[total.round]
    if phase == "sketch":
        tables = total.group(PixelSketches.__name__).summand
        _check_tables(plan, tables)
        return replace(derived, tables=tables)
    statistics = total.group(PixelStatistics.__name__).summand
    names = {"survey": {"gram", "histogram"}, "range": {"histogram"}}[phase]
    _require(set(statistics.arrays) == names, "arrays", ", ".join(sorted(names)))
    if phase == "survey":
        return replace(derived, survey=statistics)
    return replace(derived, ranges=statistics)


def _check_tables(plan: FederationPlan, tables: Summand) -> None:
    section = plan.pixels
    shapes = dict.fromkeys(section.tables, (section.rows, section.columns))
    got = {name: array.shape for name, array in tables.arrays.items()}
    _require(got == {**shapes, PREFIX_COUNTS: (section.prefixes,)}, "tables", "the plan's form")
    counts = tables.arrays[PREFIX_COUNTS]
    _require(bool(np.all(counts >= 0)), PREFIX_COUNTS, "not negative")


def require_codec_follows(derived: Derived, plan: FederationPlan, header: OrderHeader) -> None:
    """Refuse an order whose codec of pixels is not what the verified sums come to.

    Raises:
        ForgedSumError: another codec.
    """
    if plan.kind != "pixels" or header.codec is None:
        return
    _require(derived.survey is not None, "codec", "none before the survey")
    try:
        if derived.survey is not None:
            require_fitted(read_codec(header.codec), plan.pixels, derived.survey, derived.ranges)
    except CairnError as error:
        raise ForgedSumError(error.field, error.expected, error.got) from error


def _require(holds: bool, field: str, expected: str) -> None:
    if not holds:
        raise ForgedSumError(field, expected, "another")
