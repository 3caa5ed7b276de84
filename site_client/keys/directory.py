"""The other sites of the federation as this one has heard of them, and whom its people confirmed.

What was heard comes from the aggregator, by way of the desk or a run's roster, and
proves nothing; what was confirmed comes from the ledger. Reads files only, changes
nothing but the note of a roster, and decides nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from common.errors import InputDataError
from common.policy import Policy, read_policy
from site_client.decisions.standing import KnownPeer, Standing, read_standing
from site_client.files import write_atomically
from site_client.keys.state import KeyState, read_key_state
from site_client.keys.trust import Acquaintances
from site_client.site import SiteFolder

_ROSTER = "roster.json"


@dataclass(frozen=True)
class PeerEntry:
    """Another site.

    Attributes:
        site: its name.
        shows: fingerprints of the ledger keys that the aggregator has shown for it; none
            for a site that was only confirmed, and more than one is a contradiction.
        confirmed: who confirmed it, and with which key; None: nobody.
        strayed: whether it shows another key than it did when we dealt with it.
    """

    site: str
    shows: tuple[str, ...]
    confirmed: KnownPeer | None = None
    strayed: bool = False

    @property
    def standing(self) -> Literal["confirmed", "unconfirmed", "changed"]:
        """``changed``: what it shows contradicts itself, or what was confirmed or remembered."""
        if self.confirmed is not None:
            steady = set(self.shows) <= {self.confirmed.ledger_key}
            return "confirmed" if steady else "changed"
        return "changed" if self.strayed or len(self.shows) > 1 else "unconfirmed"


@dataclass(frozen=True)
class Directory:
    """All of them.

    Attributes:
        site, federation: ours.
        peers: the others, by name.
        policy: the site's own.
    """

    site: str
    federation: str
    peers: Mapping[str, PeerEntry]
    policy: Policy

    def named(self, standing: Literal["confirmed", "unconfirmed", "changed"]) -> list[str]:
        """Sites that stand so."""
        return [name for name, peer in self.peers.items() if peer.standing == standing]

    @property
    def enough(self) -> bool:
        """True if this site could take part, were all that were heard of in a run."""
        confirmed = len(self.named("confirmed"))
        return confirmed >= self.policy.peers.least_known and not self.named("changed")

    @property
    def says(self) -> str:
        """One line: how many are confirmed, and how many must be."""
        confirmed, least = len(self.named("confirmed")), self.policy.peers.least_known
        changed = self.named("changed")
        loud = f"CHANGED KEY: {', '.join(changed)}; " if changed else ""
        needed = f"at least {least} {'is' if least == 1 else 'are'} needed"
        if not self.peers:
            return f"no other site was heard of yet; {needed}"
        return f"{loud}{confirmed} of {len(self.peers)} other sites confirmed; {needed}"

    @property
    def fix(self) -> str:
        """The thing to do now; empty when there is none."""
        changed, unknown = self.named("changed"), self.named("unconfirmed")
        if changed:
            return (
                f"Telephone {', '.join(changed)}. Only if a key really is new: cairn-site peers "
                f"forget {changed[0]}, then cairn-site peers confirm {changed[0]}"
            )
        if self.enough:
            return ""
        if unknown:
            return (
                f"Telephone {', '.join(unknown)}, then: cairn-site peers confirm "
                f"{' '.join(unknown)}"
            )
        return (
            "Wait until more sites have joined (the courier hears of them: cairn-site up); a site "
            "that joined by mail is confirmed with all 64 digits: cairn-site peers confirm "
            "NAME:FINGERPRINT. A federation of fewer sites needs another peers.least_known in "
            "policy.toml, where it says what that costs"
        )

    @property
    def summary(self) -> dict[str, object]:
        """Figures for monitoring."""
        return {
            "confirmed": len(self.named("confirmed")),
            "others": len(self.peers),
            "needed": self.policy.peers.least_known,
            "changed": self.named("changed"),
            "says": self.says,
        }


def read_directory(site: SiteFolder, standing: Standing | None = None) -> Directory:
    """Whom this site knows.

    Args:
        site: its folder.
        standing: what its ledger says; read when omitted.

    Raises:
        InputDataError: no site folder, or its policy or notes cannot be read.
        VerificationError: a ledger line that cannot be read.
    """
    settings, policy = site.settings(), read_policy(site.policy_file)
    confirmed = (read_standing(site) if standing is None else standing).peers
    state = read_key_state(site) or KeyState()
    desk = dict(state.fingerprints or {}) | dict(state.changed or {})
    roster = read_roster(site)
    entries = {}
    for name in sorted((set(desk) | set(roster) | set(confirmed)) - {settings.site}):
        shows = dict.fromkeys(source[name] for source in (desk, roster) if name in source)
        strayed = name in (state.changed or {})
        entries[name] = PeerEntry(name, tuple(shows), confirmed.get(name), strayed)
    return Directory(settings.site, settings.federation, entries, policy)


def note_roster(site: SiteFolder, roster: Mapping[str, str]) -> None:
    """Remember a run's sites as an order named them, for people to confirm.

    Where no desk tells of the others, this is how their names come here.

    Args:
        site: the folder.
        roster: fingerprint of the ledger key by site.
    """
    path = site.key_ring / _ROSTER
    text = json.dumps(dict(roster), sort_keys=True).encode()
    if not path.exists() or path.read_bytes() != text:
        site.key_ring.mkdir(mode=0o700, exist_ok=True)
        write_atomically(path, text)


def read_roster(site: SiteFolder) -> Mapping[str, str]:
    """Return the sites of the newest order that came; none before the first.

    Raises:
        InputDataError: the note is damaged.
    """
    return Acquaintances(site.key_ring / _ROSTER).known()


def lost_promises(policy: Policy) -> list[str]:
    """List what this policy gives away of the promise that no image leaves, in plain words."""
    lost = []
    if policy.sharing.share == "admitted":
        lost.append(
            'share = "admitted": an aggregator that invents a site is handed the federation key, '
            "can forge sums, and then read images"
        )
    match policy.peers.least_known:
        case 0:
            lost.append(
                "peers.least_known = 0: all others of a run may be invented by the aggregator, "
                "which then reads this site's own part out of every sum, and images from crafted "
                "ones"
            )
        case 1:
            lost.append(
                "peers.least_known = 1: all others of a run but one may be invented by the "
                "aggregator, and that one can take its own part out of a sum and read yours"
            )
        case _:
            pass
    if policy.peers.least_in_sum == 0:
        lost.append(
            "peers.least_in_sum = 0: nobody that is known here need stand behind a sum beside "
            "this site"
        )
    return lost


def directory_or_none(site: SiteFolder, standing: Standing) -> Directory | None:
    """Return the same where the policy may be out of sight, as in a courier's container."""
    try:
        return read_directory(site, standing)
    except InputDataError:
        return None
