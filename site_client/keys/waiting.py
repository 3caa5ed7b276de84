"""Reasons that keep the federation key from coming here, in our own words.

Says whether it comes by itself or a person of this site has to confirm somebody
first: an order may wait for the one, and not for the other. Decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from site_client.keys.giving import Turn

MOST_NAMED = 3


@dataclass(frozen=True)
class Awaited:
    """The key that is waited for.

    Attributes:
        says: empty when nothing is.
        person: whether a person of this site has to do something first.
    """

    says: str = ""
    person: bool = False


def await_newest(turn: Turn) -> Awaited:
    """Say who could give us the newest key, and what stands between."""
    generation, sealed = turn.news.newest.generation, turn.news.sealed
    others = {name: peer for name, peer in turn.verified.items() if name != turn.me.site}
    givers = sorted(name for name, peer in others.items() if peer.generation >= generation)
    if sealed is not None and sealed.generation == generation and sealed.from_site in others:
        # The desk keeps one box for each site: nobody else seals to us any more.
        givers = [sealed.from_site]
    if not givers:
        return Awaited(f"another site, to seal generation {generation} to us")
    allowed = [name for name in givers if name in turn.allowed]
    if allowed:
        return Awaited(
            f"{_any_of(allowed)}, to seal generation {generation} to us (once confirmed there: "
            f"cairn-site peers confirm {turn.me.site})"
        )
    return Awaited(
        f"{_any_of(givers)} to be confirmed: cairn-site peers confirm {givers[0]}", person=True
    )


def unknown_peers(turn: Turn) -> tuple[str, ...]:
    """Sites that could give or be given the key, were they confirmed here."""
    if turn.policy.sharing.share != "listed":
        return ()
    return tuple(
        sorted(
            name
            for name, peer in turn.verified.items()
            if name not in turn.allowed and peer.sealing is not None
        )
    )


def _any_of(names: list[str]) -> str:
    shown = names[:MOST_NAMED]
    return " or ".join(shown) + (f" or {len(names) - MOST_NAMED} more" if names != shown else "")
