"""A person's typing after a telephone call, against what the aggregator has shown.

A site is confirmed by digits that its own staff read aloud, never by a yes. Pure:
the words of the refusals are here, the record is made by ``site_client.decisions``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from common.errors import InputDataError, UsageError, VerificationError
from site_client.keys.aloud import LEAST_DIGITS, WHOLE, agrees, groups, read_typed
from site_client.keys.directory import Directory, PeerEntry


@dataclass(frozen=True)
class Agreed:
    """A site whose fingerprint holds.

    Attributes:
        already: whether it is confirmed with this key, so that nothing is to be recorded.
    """

    site: str
    fingerprint: str
    already: bool


def agree(
    words: Iterable[str], directory: Directory, own_key: str, ask: Callable[[PeerEntry], str]
) -> list[Agreed]:
    """All of them, or an error and none.

    Args:
        words: ``NAME`` or ``NAME:DIGITS``, as typed.
        directory: whom this site has heard of and confirmed.
        own_key: fingerprint of our own ledger key.
        ask: has a person type the digits for a site, as they were read aloud.

    Raises:
        VerificationError: digits differ, or a key is another site's, or has changed.
        InputDataError: nobody has heard of the name.
        UsageError: too few digits; our own name; a name twice.
    """
    confirmed: dict[str, Agreed] = {}
    owners = {own_key: directory.site} | {
        peer.confirmed.ledger_key: name for name, peer in directory.peers.items() if peer.confirmed
    }
    for word in words:
        name, colon, digits = word.partition(":")
        if name in confirmed:
            raise UsageError("a site is named twice", field=name, expected="once")
        agreed = _agree(name, digits if colon else None, directory, ask)
        _require_own_key(agreed, owners)
        owners[agreed.fingerprint] = name
        confirmed[name] = agreed
    return list(confirmed.values())


def require_confirmed(names: Iterable[str], directory: Directory) -> list[str]:
    """Return the names, if all of them can be forgotten.

    Raises:
        InputDataError: one is not confirmed here; whoever mistypes a name must learn it.
    """
    names = list(dict.fromkeys(names))
    for name in names:
        if name not in directory.peers or directory.peers[name].confirmed is None:
            confirmed = [n for n, peer in directory.peers.items() if peer.confirmed is not None]
            raise InputDataError(
                "this site is not confirmed here; nothing was recorded",
                field=name,
                expected=" or ".join(confirmed) or "a confirmed site, and there is none",
                got="another name",
            )
    return names


def _agree(
    name: str, typed: str | None, directory: Directory, ask: Callable[[PeerEntry], str]
) -> Agreed:
    if name == directory.site:
        raise UsageError(
            "this is this site itself",
            field=name,
            expected="the name of another",
            advice="Others confirm it: read them its fingerprint, see `cairn-site peers`",
        )
    peer = directory.peers.get(name)
    if peer is None:
        return Agreed(name, _unheard(name, typed, directory), already=False)
    if peer.confirmed is not None:
        return Agreed(name, _again(peer, peer.confirmed.ledger_key, typed), already=True)
    digits = read_typed(ask(peer) if typed is None else typed)
    matching = [shown for shown in peer.shows if agrees(digits, shown)]
    if not matching:
        raise _differs(name, digits, peer.shows)
    return Agreed(name, matching[0], already=False)


def _unheard(name: str, typed: str | None, directory: Directory) -> str:
    """Return a site that joined by mail, confirmed by all of its digits."""
    digits = "" if typed is None else read_typed(typed)
    if len(digits) < WHOLE:
        names = ", ".join(directory.peers) or "none yet"
        raise InputDataError(
            "nobody here has heard of this site",
            field=name,
            expected=f"one that `cairn-site peers` lists ({names})",
            got=f"a name with {len(digits)} digits" if digits else "another name",
            advice=f"Check how its name is spelt. Where no desk tells of others, type all {WHOLE} "
            f"digits: cairn-site peers confirm {name}:FINGERPRINT",
        )
    return digits


def _again(peer: PeerEntry, confirmed: str, typed: str | None) -> str:
    """Answer for a site confirmed before: the same key is no news, another one is told loudly."""
    other = next((shown for shown in peer.shows if shown != confirmed), None)
    if typed is not None and not agrees(read_typed(typed), confirmed):
        other = read_typed(typed)
    if other is not None:
        raise VerificationError(
            "this site is confirmed here with another key; nothing was recorded",
            field=f"ledger key of {peer.site}",
            expected=groups(confirmed[:LEAST_DIGITS]),
            got=groups(other[:LEAST_DIGITS]),
            advice=f"Telephone {peer.site}. Only if its key really is new: cairn-site peers forget "
            f"{peer.site}, then confirm it anew",
        )
    return confirmed


def _differs(name: str, digits: str, shows: tuple[str, ...]) -> VerificationError:
    return VerificationError(
        "the fingerprints differ; nothing was recorded",
        field=f"ledger key of {name}",
        expected=f"{groups(digits)}, as it was read aloud",
        got=f"{' or '.join(groups(s[: len(digits)]) for s in shows)} from the aggregator",
        advice="Have it read aloud once more. If it still differs, somebody stands between you "
        f"and {name}: take part in nothing, and tell {name} and the coordinator by telephone",
    )


def _require_own_key(agreed: Agreed, owners: Mapping[str, str]) -> None:
    """One key under two names would count as two sites."""
    owner = owners.get(agreed.fingerprint, agreed.site)
    if owner != agreed.site:
        raise VerificationError(
            "this key is another site's; nothing was recorded",
            field=f"ledger key of {agreed.site}",
            expected="a key of its own",
            got=f"that of {owner}",
            advice="Telephone both, and ask the coordinator",
        )
