"""Beside whom this site takes part: a pure rule over names and fingerprints.

The aggregator says who a run's sites are, and whose summands stand behind a sum.
It could invent all of them but one; then the sum is that one's own. What stands
against it is that people of this site have confirmed enough of the others by
telephone. Reads no file, asks nobody, decides nothing about keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from common.errors import RefusedError, VerificationError
from common.wire.codes import ReplyCode

MOST_NAMED = 5


class UnknownPeersError(RefusedError):
    """Too few of a run's sites are known to the staff of this one, or one shows another key."""

    code = ReplyCode.UNKNOWN_PEERS


class SummandsError(VerificationError):
    """The sites said to stand behind a sum cannot be: one twice, a stranger, too few."""

    code = ReplyCode.FORGED_SUM


def require_known(
    roster: Mapping[str, str],
    site: str,
    confirmed: Mapping[str, str],
    least_known: int,
    *,
    own_key: str,
) -> None:
    """Refuse a run in whose roster too few others are confirmed, or one is somebody else.

    A site counts when name and fingerprint are as they were confirmed, and once,
    whatever names its key has.

    Args:
        roster: fingerprint of the ledger key of each site of the run, by name.
        site: our name.
        confirmed: fingerprint by name, as people of this site confirmed them.
        least_known: how many confirmed others there must be.
        own_key: fingerprint of our own ledger key.

    Raises:
        UnknownPeersError: says whom to telephone.
    """
    if roster.get(site) != own_key:
        raise UnknownPeersError(
            "the run's roster does not hold this site",
            field=f"roster, {site}",
            expected="our own ledger key",
            got="another key" if site in roster else "no such site",
            advice="Compare your ledger key's fingerprint with the coordinator, by telephone",
        )
    _require_one_key_each(roster)
    changed = sorted(name for name in roster if confirmed.get(name, roster[name]) != roster[name])
    if changed:
        raise UnknownPeersError(
            "a site of the run shows another key than the one that was confirmed here",
            field=f"roster, {_names(changed)}",
            expected=f"fingerprint {confirmed[changed[0]][:16]}",
            got=f"{roster[changed[0]][:16]}",
            advice=f"Telephone {_names(changed)}. Only if its key really is new: cairn-site peers "
            f"forget {changed[0]}, then cairn-site peers confirm {changed[0]}",
        )
    confirmed_others = _known_others(roster, site, confirmed)
    if len(confirmed_others) < least_known:
        unknown = sorted(set(roster) - confirmed_others - {site})
        raise UnknownPeersError(
            "too few of the run's sites are confirmed here",
            field="roster",
            expected=f"at least {least_known} confirmed other sites (peers.least_known)",
            got=f"{len(confirmed_others)} of {len(roster) - 1}",
            advice=f"Telephone {_names(unknown)}, then: cairn-site peers confirm "
            f"{' '.join(unknown[:MOST_NAMED])}"
            if unknown
            else "The run has too few sites: ask the coordinator",
        )


def require_in_sum(  # noqa: PLR0913, RUF100 - each is a word of the rule
    members: Iterable[str],
    roster: Mapping[str, str],
    site: str,
    confirmed: Mapping[str, str],
    least_in_sum: int,
    quorum: int,
) -> None:
    """Refuse a sum whose set of sites cannot be right, or holds too few that are known.

    Args:
        members: the sites whose summands are said to stand behind the sum.
        roster: as for ``require_known``, which has passed.
        site: our name; we may be a member or not.
        confirmed: likewise.
        least_in_sum: how many confirmed others must be members.
        quorum: the plan's least number of sites behind a round.

    Raises:
        SummandsError: a member twice, or not of this run; fewer members than the quorum.
        UnknownPeersError: too few confirmed others.
    """
    named = list(members)
    distinct = set(named)
    _require_summands(len(named) == len(distinct), "each site once", "one of them twice")
    strangers = len(distinct - set(roster))
    _require_summands(not strangers, "sites of the run's roster", f"{strangers} others")
    _require_summands(
        len(named) >= quorum, f"at least {quorum} sites (the plan's quorum)", f"{len(named)}"
    )
    confirmed_others = _known_others({name: roster[name] for name in named}, site, confirmed)
    if len(confirmed_others) < least_in_sum:
        unknown = sorted(distinct - confirmed_others - {site})
        raise UnknownPeersError(
            "too few of the sites behind a sum are confirmed here",
            field="sum",
            expected=f"at least {least_in_sum} confirmed other sites (peers.least_in_sum)",
            got=f"{len(confirmed_others)} of {len(distinct - {site})}",
            advice=f"Telephone {_names(unknown)}, then: cairn-site peers confirm "
            f"{' '.join(unknown[:MOST_NAMED])}"
            if unknown
            else "Only this site stands behind it: ask the coordinator who was left out, and why",
        )


def _known_others(
    roster: Mapping[str, str], site: str, confirmed: Mapping[str, str]
) -> frozenset[str]:
    return frozenset(
        name for name, key in roster.items() if name != site and confirmed.get(name) == key
    )


def _require_one_key_each(roster: Mapping[str, str]) -> None:
    """Two names with one key would be one site that counts twice."""
    if len(set(roster.values())) == len(roster):
        return
    keys = list(roster.values())
    twice = sorted(name for name, key in roster.items() if keys.count(key) > 1)
    raise UnknownPeersError(
        "two names of the run's roster are one site",
        field=f"roster, {_names(twice)}",
        expected="a ledger key each",
        got="one key for several names",
        advice="Ask the coordinator why",
    )


def _require_summands(holds: bool, expected: str, got: str) -> None:
    if not holds:
        raise SummandsError(
            "the sites behind a sum cannot be right", field="sum", expected=expected, got=got
        )


def _names(names: list[str]) -> str:
    """Return the first few of them, and how many more there are."""
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
