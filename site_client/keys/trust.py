"""The other sites: only what each has signed about itself, and never two for a name.

The aggregator hands out the list and could lie. It cannot sign for a site whose
key it does not have, nor exchange the key of a site that we dealt with before or
that a person here has confirmed. It could invent a site: that nobody has confirmed
it is what stands against that (`share = "listed"` in policy.toml, the default).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import RootModel, ValidationError

from common.crypto.exchange import SealingKey
from common.crypto.identity import PublicKey
from common.enrolment import JoinRequest, parse_request
from common.errors import CairnError, InputDataError, VerificationError
from common.ledger.layout import Layout
from common.wire.records import Digest, SiteName
from site_client.decisions.standing import read_standing
from site_client.files import write_atomically
from site_client.keys.news import PeerNews
from site_client.site import SiteFolder

_LIE = "the aggregator names a site that does not prove itself"


@dataclass(frozen=True)
class Peer:
    """A site whose signature over its own keys holds.

    Attributes:
        sealing: None for a site of an earlier release, to which nothing can be sealed.
        generation: newest key that the desk says was sealed to it.
    """

    site: str
    ledger: PublicKey
    sealing: SealingKey | None
    generation: int


@dataclass(frozen=True)
class Me:
    """Our knowledge of ourselves."""

    federation: str
    site: str
    ledger: PublicKey
    sealing: SealingKey


class ChangedKeyError(VerificationError):
    """A name that is known here, with another key.

    Args:
        site: the name.
        fingerprint: of the ledger key that it shows now.
    """

    def __init__(self, site: str, fingerprint: str) -> None:
        super().__init__(
            _LIE,
            field=f"site {site}",
            expected="the ledger key that it had before",
            got="another",
            advice=f"Telephone that site's staff. Only if its key really is new: cairn-site peers "
            f"forget {site}, then cairn-site peers confirm {site}",
        )
        self.site = site
        self.fingerprint = fingerprint


class _Names(RootModel[dict[SiteName, Digest]]):
    """Fingerprint of the ledger key by site."""


class Acquaintances:
    """The ledger keys of sites that a key was sealed to or came from; a name keeps its key.

    Args:
        path: a file of the worker's.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def known(self) -> dict[str, str]:
        """Fingerprint by site.

        Raises:
            InputDataError: the file is damaged.
        """
        try:
            return dict(_Names.model_validate_json(self._path.read_bytes()).root)
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError) as error:
            raise InputDataError(
                "the list of known sites cannot be read",
                field=self._path.name,
                got=type(error).__name__,
                advice="Move it away; sites are then met anew",
            ) from error

    def meet(self, peers: Iterable[Peer]) -> None:
        """Remember these for good."""
        acquaintances = self.known()
        now = acquaintances | {peer.site: peer.ledger.fingerprint for peer in peers}
        if now != acquaintances:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            write_atomically(self._path, _Names(now).model_dump_json().encode())


def verify_peers(
    news: Iterable[PeerNews], me: Me, acquaintances: Mapping[str, str]
) -> tuple[dict[str, Peer], list[CairnError]]:
    """Find the sites that are who they say, ourselves included, and what is wrong with the rest.

    Args:
        news: what the desk said.
        me: what we know of ourselves.
        acquaintances: fingerprint by name, of sites that keep their key.
    """
    peers: dict[str, Peer] = {}
    faults: list[CairnError] = []
    for news_item in news:
        try:
            if news_item.site in peers:
                raise _not_a_peer(news_item.site, "named once", "twice")
            peers[news_item.site] = _verify(news_item, me, acquaintances)
        except CairnError as error:
            faults.append(error)
    return peers, faults


def _verify(news: PeerNews, me: Me, acquaintances: Mapping[str, str]) -> Peer:
    try:
        request = parse_request(news.join_request.encode("utf-8"), news.site)
    except (InputDataError, UnicodeEncodeError) as error:
        raise _not_a_peer(news.site, "a join request", "other text") from error
    if (request.federation, request.site) != (me.federation, news.site):
        raise _not_a_peer(news.site, "its own request to this federation", "another")
    peer = Peer(news.site, PublicKey.parse(request.ledger_key), _sealing(request), news.generation)
    if peer.sealing is not None:
        try:
            request.verify()
        except VerificationError as error:
            raise _not_a_peer(news.site, "keys signed by its ledger key", "not so") from error
    if peer.site == me.site and (peer.ledger, peer.sealing) != (me.ledger, me.sealing):
        raise _not_a_peer(news.site, "our own keys", "others under our name")
    if acquaintances.get(peer.site, peer.ledger.fingerprint) != peer.ledger.fingerprint:
        raise ChangedKeyError(peer.site, peer.ledger.fingerprint)
    return peer


def _sealing(request: JoinRequest) -> SealingKey | None:
    return None if request.sealing_key is None else SealingKey.parse(request.sealing_key)


def _not_a_peer(site: str, expected: str, got: str) -> VerificationError:
    return VerificationError(
        _LIE,
        field=f"site {site}",
        expected=expected,
        got=got,
        advice="Ask that site's staff for its ledger key's fingerprint, and the coordinator why",
    )


def follow_confirmed(site: SiteFolder) -> Callable[[], Mapping[str, str]]:
    """Follow who is confirmed here, read from the ledger whenever it has grown.

    For a caller that does not hold the ledger itself.

    Returns:
        Fingerprint of the ledger key by site; raises VerificationError for a ledger that
        cannot be read.
    """
    log, seen, fingerprints = Layout(site.ledger).log, -1, dict[str, str]()

    def confirmed() -> Mapping[str, str]:
        nonlocal seen, fingerprints
        size = log.stat().st_size if log.exists() else 0
        if size != seen:
            seen, fingerprints = size, dict(read_standing(site).fingerprints)
        return fingerprints

    return confirmed
