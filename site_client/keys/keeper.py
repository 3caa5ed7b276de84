"""The worker's half: verify what was heard, and settle which federation key this site has.

The desk settles who was first: a key that this site made is only proposed until
the desk names it as the newest of its generation, and forgotten if it names
another. What this site has learnt it never unlearns: an older generation, or
another key of one it has, is refused and recorded. With whom it deals at all is for
policy.toml and the people of this site to say, who confirm others by telephone.
``boxes`` seals and opens, ``giving`` is to whom and when, ``waiting`` says what is
missing, ``state`` what is shown.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from common.arrivals.files import read_bounded
from common.crypto.exchange import OpeningKey, read_opening_key
from common.crypto.identity import SigningKey
from common.errors import CairnError, VerificationError
from common.ledger.durable import StorageError
from common.policy import Policy, read_policy
from site_client.egress.keys import KeyDoor
from site_client.keys.boxes import open_news
from site_client.keys.giving import Giving, Turn
from site_client.keys.news import MAX_NEWS_BYTES, KeyNews, Newest
from site_client.keys.ring import Held, KeyRing
from site_client.keys.state import KeyState, note_key_state
from site_client.keys.trust import (
    Acquaintances,
    ChangedKeyError,
    Me,
    Peer,
    follow_confirmed,
    verify_peers,
)
from site_client.keys.waiting import Awaited, await_newest, unknown_peers
from site_client.site import SiteFolder
from site_client.spool import Spool

LOG = logging.getLogger("cairn.keys")


class KeyKeeper:
    """Keeps a site's federation key in step with the others'.

    Args:
        site: the site's folder.
        ledger_key: signs what is sealed.
        door: what it may leave through.
        clock: seconds; for patience.
        confirmed: fingerprint of the ledger key of every site that people of this one have
            confirmed, by name; asked at every turn. Read from the ledger when omitted.
    """

    def __init__(
        self,
        site: SiteFolder,
        ledger_key: SigningKey,
        door: KeyDoor,
        clock: Callable[[], float] = time.monotonic,
        confirmed: Callable[[], Mapping[str, str]] | None = None,
    ) -> None:
        self._site, self._door, self._ledger_key = site, door, ledger_key
        self._confirmed = confirmed or follow_confirmed(site)
        self._spool = Spool(site.spool)
        self._ring = KeyRing(site)
        self._friends = Acquaintances(site.key_ring / "sites.json")
        self._giving = Giving(door, self._friends, ledger_key, clock)
        self._read: tuple[int, int, dict[str, str]] | None = None
        self._last = KeyState()
        self._told: set[str] = set()

    @property
    def expects_key(self) -> bool:
        """True if a key, or a newer one, is on its way here without anybody's hands.

        Raises:
            InputDataError: the site's settings, its policy or a key cannot be read.
        """
        if self._site.settings().enrolment is None or not self._site.sealing_key.exists():
            return False
        if read_policy(self._site.policy_file).sharing.share == "never":
            return False
        newest, waiting = self._ring.newest(), bool(self._last.waiting) and not self._last.person
        if newest is None:
            return waiting or not (self._last.trouble or self._last.person)
        return newest.generation > 0 and waiting

    def turn(self) -> KeyState | None:
        """Do what the newest news ask for; None when nothing is new since the last turn.

        New is also whom people of this site have confirmed or forgotten.

        Raises:
            StorageError: the ledger could not record.
            InputDataError: the site's policy or one of its own keys cannot be read.
        """
        try:
            status = self._spool.key_news.lstat()
        except OSError:
            return None
        confirmed = dict(self._confirmed())
        seen = (status.st_mtime_ns, status.st_ino, confirmed)
        if seen == self._read or not self._site.sealing_key.exists():
            return None
        self._read = seen
        policy = read_policy(self._site.policy_file)
        opening = read_opening_key(self._site.sealing_key)
        try:
            data = read_bounded(self._spool.key_news, MAX_NEWS_BYTES, "key news", follow=False)
            news = KeyNews.read(data)
            state = self._consider(news, opening, policy, confirmed)
        except FileNotFoundError:
            return None
        except StorageError:
            raise
        except CairnError as error:
            self._refuse(error, policy)
            state = self._state({}, trouble=_short(error))
        note_key_state(self._site, state)
        self._last = state
        return state

    def _consider(
        self, news: KeyNews, opening: OpeningKey, policy: Policy, confirmed: Mapping[str, str]
    ) -> KeyState:
        settings = self._site.settings()
        me = Me(settings.federation, settings.site, self._ledger_key.public, opening.public)
        # What a person has confirmed goes before what we remember.
        peers = self._friends.known() | dict(confirmed)
        verified, faults = verify_peers(news.peers, me, peers)
        for fault in faults:
            self._refuse(fault, policy)
        trouble = _short(faults[-1]) if faults else ""
        changed = {f.site: f.fingerprint for f in faults if isinstance(f, ChangedKeyError)}
        if policy.sharing.share == "never":
            lacks = Awaited("a key brought by hand: policy.toml shares none", person=True)
            waiting = Awaited() if self._ring.newest() else lacks
            return self._state(verified, waiting, trouble, changed)
        allowed = {
            name: peer
            for name, peer in verified.items()
            if peer.sealing is not None
            and (name == me.site or policy.sharing.allows(name, peer.ledger.fingerprint, confirmed))
        }
        if me.site not in allowed:
            waiting = Awaited("admission by the coordinator")
            return self._state(verified, waiting, trouble, changed)
        work = Turn(news, opening, policy, me, confirmed, verified, allowed)
        try:
            waiting = self._settle(work)
        except StorageError:
            raise
        except CairnError as error:
            self._refuse(error, policy)
            waiting, trouble = Awaited(), _short(error)
        return self._state(verified, waiting, trouble, changed, unknown_peers(work))

    def _settle(self, turn: Turn) -> Awaited:
        """Take or make the newest key, then see that others get it; returns what is waited for."""
        newest = turn.news.newest
        self._settle_proposal(newest)
        present = self._ring.newest()
        if newest.generation == 0:
            if present is not None and present.generation > 0:
                raise _fell_back(present.generation, newest)
            key = self._ring.propose(1) if present is None else present.key
            self._giving.give(turn, Held(1, key), turn.allowed.values())
            return Awaited("the desk, to say that our key is the federation's")
        if present is None or present.generation == 0:
            present = self._adopt(turn, present)
        elif present.generation < newest.generation:
            present = self._take(turn) or present
        if present is None or present.generation < newest.generation:
            if newest.renew and all(
                p.generation < newest.generation for p in turn.verified.values()
            ):
                # Whoever had it was revoked: there is nobody left to wait for.
                return self._renew(turn, newest.generation)
            return await_newest(turn)
        if present.generation > newest.generation:
            raise _fell_back(present.generation, newest)
        if present.key.key_id != newest.key_id:
            raise another_key(newest)
        if newest.renew:
            return self._renew(turn, present.generation)
        self._giving.serve(turn, present)
        return Awaited()

    def _settle_proposal(self, newest: Newest) -> None:
        proposed = self._ring.proposal()
        if proposed is None or newest.generation < proposed.generation:
            return
        if (newest.generation, newest.key_id) == (proposed.generation, proposed.key.key_id):
            self._ring.add(proposed.generation, proposed.key)
            LOG.info("our key is the federation's generation %d", proposed.generation)
        else:
            LOG.info("another site was first with generation %d", newest.generation)
        self._ring.drop_proposal()

    def _adopt(self, turn: Turn, by_hand: Held | None) -> Held | None:
        """Adopt the first key that the desk names: opened, or known as the one brought by hand."""
        newest = turn.news.newest
        if by_hand is None:
            return self._take(turn)
        if by_hand.key.key_id != newest.key_id:
            raise another_key(newest)
        self._ring.add(newest.generation, by_hand.key)
        return self._ring.newest()

    def _take(self, turn: Turn) -> Held | None:
        """Open what was sealed to us, if it is what the desk says; None while there is nothing."""
        newest, sealed = turn.news.newest, turn.news.sealed
        if sealed is None or (
            sealed.from_site in turn.verified and sealed.from_site not in turn.allowed
        ):
            # It may have been sealed before our people have confirmed who did it; it keeps.
            return None
        key, sender = open_news(sealed, newest, turn.me, turn.allowed, turn.opening)
        self._friends.meet([sender])
        self._ring.add(newest.generation, key)
        LOG.info("generation %d came, sealed by %s", newest.generation, sender.site)
        return self._ring.newest()

    def _renew(self, turn: Turn, generation: int) -> Awaited:
        """Make the generation after this one, for a site was revoked."""
        following, proposal = generation + 1, self._ring.proposal()
        again = proposal is not None and proposal.generation == following
        if self._giving.may_renew(turn, generation, again=again):
            key = self._ring.propose(following)
            self._giving.give(turn, Held(following, key), turn.allowed.values())
        return Awaited(f"generation {following}, for a site was revoked")

    def _refuse(self, error: CairnError, policy: Policy) -> None:
        """Record what does not hold, once: the same lie every half minute is one record."""
        if str(error) not in self._told:
            self._told.add(str(error))
            self._door.refuse(error, policy)

    def _state(
        self,
        peers: Mapping[str, Peer],
        waiting: Awaited = Awaited(),  # noqa: B008 - frozen
        trouble: str = "",
        changed: Mapping[str, str] | None = None,
        unknown: tuple[str, ...] = (),
    ) -> KeyState:
        newest = self._ring.newest()
        return KeyState(
            generation=0 if newest is None else newest.generation,
            key_id="" if newest is None else newest.key.key_id,
            peers={name: peer.generation for name, peer in sorted(peers.items())},
            fingerprints={name: p.ledger.fingerprint for name, p in sorted(peers.items())},
            unknown=unknown,
            changed=dict(changed or {}),
            waiting=waiting.says,
            person=waiting.person,
            trouble=trouble,
        )


def _short(error: CairnError) -> str:
    return str(error).removesuffix(f". {error.advice}") if error.advice else str(error)


def _fell_back(generation: int, newest: Newest) -> VerificationError:
    return VerificationError(
        "the aggregator names an older federation key",
        field="generation",
        expected=f"at least {generation}",
        got=f"{newest.generation}",
        advice="Ask the coordinator whether an old backup was restored",
    )


def another_key(newest: Newest) -> VerificationError:
    """Return the desk names another key than the one here, and nobody but a person can tell why."""
    return VerificationError(
        "the aggregator names another federation key than the one here",
        field=f"key id of generation {newest.generation}",
        expected="the id of the key here",
        got=f"{newest.key_id}",
        advice="Compare key ids with the other sites; if ours was brought by hand and is wrong, "
        "remove worker/federation.key",
    )
