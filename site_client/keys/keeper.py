"""The worker's half: verify what was heard, open or seal, and give it to the door.

The desk settles who was first: a key that this site made is only proposed until
the desk names it as the newest of its generation, and forgotten if it names
another. What this site has learnt it never unlearns: an older generation, or
another key of one it has, is refused and recorded.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from common.crypto.exchange import OpeningKey, SealingKey, read_opening_key
from common.crypto.identity import SigningKey
from common.crypto.keyed import FederationKey
from common.crypto.sealing import Label, check_box, open_box, seal, sign_box
from common.errors import CairnError, VerificationError
from common.ledger.durable import StorageError
from common.wire.sealed_keys import SealedBox, encode_sealed
from site_client.egress.keys import KeyContext, KeyDoor
from site_client.egress.policy import Policy, read_policy
from site_client.files import write_atomically
from site_client.keys.news import KeyNews, Newest, SealedNews
from site_client.keys.ring import Held, KeyRing
from site_client.keys.trust import Acquaintances, Me, Peer, verify_peers
from site_client.site import SiteFolder
from site_client.spool import Spool

PATIENCE_S = 60.0
"""How much longer each next holder, in order of name, waits for those before it to seal."""
AGAIN_S = 120.0
"""When what was sealed and did not arrive is sealed again."""
RENEW_PAUSE_S = 60.0
"""Least time between two keys that this site makes, whatever the desk asks for."""
LOG = logging.getLogger("cairn.keys")


@dataclass(frozen=True)
class KeyState:
    """Where the federation key stands, for ``check`` and ``status``; written beside the keys.

    Attributes:
        generation: of the newest key here; 0: none, or one brought by hand.
        key_id: its public id; empty without one.
        peers: newest generation that each admitted site has, as the desk says.
        fingerprints: of the ledger keys of those sites, by site.
        waiting: what is waited for, in our own words; empty when nothing is.
        trouble: what was refused last, in our own words; empty when nothing is wrong.
    """

    generation: int = 0
    key_id: str = ""
    peers: Mapping[str, int] | None = None
    fingerprints: Mapping[str, str] | None = None
    waiting: str = ""
    trouble: str = ""

    @property
    def says(self) -> str:
        """The key, and who has it, in a line."""
        number = f"generation {self.generation}" if self.generation else "brought by hand"
        has = [name for name, at in (self.peers or {}).items() if at and at >= self.generation]
        lacks = [name for name in self.peers or {} if name not in has]
        parts = [f"id {self.key_id}, {number}"] if self.key_id else ["not here"]
        parts += [f"at {', '.join(has)}"] if has and self.generation else []
        parts += [f"not yet at {', '.join(lacks)}"] if lacks and self.generation else []
        parts += [f"waits for {self.waiting}"] if self.waiting else []
        return "; ".join(parts)


class KeyKeeper:
    """Keeps a site's federation key in step with the others'.

    Args:
        site: the site's folder.
        ledger_key: signs what is sealed.
        door: what it may leave through.
        clock: seconds; for patience.
    """

    def __init__(
        self,
        site: SiteFolder,
        ledger_key: SigningKey,
        door: KeyDoor,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._site, self._door, self._clock = site, door, clock
        self._ledger_key = ledger_key
        self._spool = Spool(site.spool)
        self._ring = KeyRing(site)
        self._friends = Acquaintances(site.key_ring / "sites.json")
        self._read: tuple[int, int] | None = None
        self._given: dict[tuple[str, int, str], float] = {}
        self._since: dict[tuple[str, int], float] = {}
        self._told: set[str] = set()
        self._made: float | None = None

    def turn(self) -> KeyState | None:
        """Do what the newest news ask for; None when there are none since the last turn.

        Raises:
            StorageError: the ledger could not record.
            InputDataError: the site's policy or one of its own keys cannot be read.
        """
        try:
            status = self._spool.key_news.stat()
        except OSError:
            return None
        seen = (status.st_mtime_ns, status.st_ino)
        if seen == self._read or not self._site.sealing_key.exists():
            return None
        self._read = seen
        policy = read_policy(self._site.policy_file)
        opening = read_opening_key(self._site.sealing_key)
        try:
            state = self._consider(KeyNews.read(self._spool.key_news.read_bytes()), opening, policy)
        except StorageError:
            raise
        except CairnError as error:
            self._refuse(error, policy)
            state = self._state({}, trouble=_short(error))
        self._note(state)
        return state

    def _consider(self, news: KeyNews, opening: OpeningKey, policy: Policy) -> KeyState:
        settings = self._site.settings()
        me = Me(settings.federation, settings.site, self._ledger_key.public, opening.public)
        verified, faults = verify_peers(news.peers, me, self._friends.known())
        for fault in faults:
            self._refuse(fault, policy)
        trouble = _short(faults[-1]) if faults else ""
        if policy.sharing.share == "never":
            waiting = (
                "" if self._ring.newest() else "a key brought by hand: policy.toml shares none"
            )
            return self._state(verified, waiting, trouble)
        allowed = {
            name: peer
            for name, peer in verified.items()
            if peer.sealing is not None
            and (name == me.site or policy.sharing.allows(name, peer.ledger.fingerprint))
        }
        if me.site not in allowed:
            return self._state(verified, "admission by the coordinator", trouble)
        work = _Turn(news, opening, policy, me, allowed)
        try:
            waiting = self._settle(work)
        except StorageError:
            raise
        except CairnError as error:
            self._refuse(error, policy)
            waiting, trouble = "", _short(error)
        return self._state(verified, waiting, trouble)

    def _settle(self, turn: _Turn) -> str:
        """Take or make the newest key, then see that others get it; returns what is waited for."""
        newest = turn.news.newest
        self._settle_proposal(newest)
        held = self._ring.newest()
        if newest.generation == 0:
            if held is not None and held.generation > 0:
                raise _fell_back(held.generation, newest)
            key = self._ring.propose(1) if held is None else held.key
            self._give(turn, Held(1, key), turn.allowed.values())
            return "the desk, to say that our key is the federation's"
        if held is None or held.generation == 0:
            held = self._adopt(turn, held)
        elif held.generation < newest.generation:
            held = self._take(turn) or held
        if held is None or held.generation < newest.generation:
            if newest.renew and all(
                p.generation < newest.generation for p in turn.allowed.values()
            ):
                # Whoever had it was revoked: there is nobody left to wait for.
                return self._renew(turn, newest.generation)
            return f"another site, to seal generation {newest.generation} to us"
        if held.generation > newest.generation:
            raise _fell_back(held.generation, newest)
        if held.key.key_id != newest.key_id:
            raise _another_key(newest)
        return self._serve(turn, held)

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

    def _adopt(self, turn: _Turn, by_hand: Held | None) -> Held | None:
        """The first key that the desk names: opened, or recognised as the one brought by hand."""
        newest = turn.news.newest
        if by_hand is None:
            return self._take(turn)
        if by_hand.key.key_id != newest.key_id:
            raise _another_key(newest)
        self._ring.add(newest.generation, by_hand.key)
        return self._ring.newest()

    def _take(self, turn: _Turn) -> Held | None:
        """Open what was sealed to us, if it is what the desk says; None while there is nothing."""
        sealed = turn.news.sealed
        if sealed is None:
            return None
        label, sender = self._label_of(turn, sealed)
        box = bytes.fromhex(sealed.box)
        check_box(box, bytes.fromhex(sealed.signature), label, sender.ledger)
        key = open_box(box, turn.opening, label)
        self._friends.meet([sender])
        self._ring.add(label.generation, key)
        LOG.info("generation %d came, sealed by %s", label.generation, sender.site)
        return self._ring.newest()

    def _label_of(self, turn: _Turn, sealed: SealedNews) -> tuple[Label, Peer]:
        newest, me = turn.news.newest, turn.me
        if sealed.for_site != me.site:
            raise _not_ours("for_site", "this site", "another")
        if (sealed.generation, sealed.key_id) != (newest.generation, newest.key_id):
            raise _not_ours("generation", f"{newest.generation}", f"{sealed.generation}")
        sender = turn.allowed.get(sealed.from_site)
        if sender is None:
            raise _not_ours("from_site", "a verified site that policy.toml allows", "another")
        label = Label(
            federation=me.federation,
            generation=sealed.generation,
            key_id=sealed.key_id,
            from_site=sealed.from_site,
            for_site=me.site,
            for_ledger_key=me.ledger.fingerprint,
        )
        return label, sender

    def _serve(self, turn: _Turn, held: Held) -> str:
        """As a holder: make the next generation if one is wanted, else seal to who lacks this."""
        if turn.news.newest.renew:
            return self._renew(turn, held.generation)
        lacking = [peer for peer in turn.allowed.values() if peer.generation < held.generation]
        if not lacking:
            self._since.clear()
            return ""
        if self._is_our_turn("serve", turn, held.generation):
            self._give(turn, held, lacking)
        return ""

    def _renew(self, turn: _Turn, generation: int) -> str:
        """Make the generation after this one, for a site was revoked."""
        following, now = generation + 1, self._clock()
        known = self._ring.proposal()
        again = known is not None and known.generation == following
        rested = self._made is None or now - self._made >= RENEW_PAUSE_S
        if self._is_our_turn("renew", turn, generation) and (again or rested):
            self._made = self._made if again else now
            self._give(turn, Held(following, self._ring.propose(following)), turn.allowed.values())
        return f"generation {following}, for a site was revoked"

    def _is_our_turn(self, what: str, turn: _Turn, generation: int) -> bool:
        """The first holder by name acts at once; each next one waits for it a while longer."""
        before = sum(
            peer.generation >= generation and name < turn.me.site
            for name, peer in turn.allowed.items()
        )
        since = self._since.setdefault((what, generation), self._clock())
        return self._clock() - since >= before * PATIENCE_S

    def _give(self, turn: _Turn, held: Held, receivers: Iterable[Peer]) -> None:
        """Seal a key to those that were not given it lately, and put it through the door."""
        now, me, boxes = self._clock(), turn.me, []
        key_id = held.key.key_id
        given = []
        for peer in receivers:
            name = (peer.site, held.generation, key_id)
            if peer.sealing is None or now - self._given.get(name, now - AGAIN_S) < AGAIN_S:
                continue
            boxes.append(self._sealed(held.key, peer, peer.sealing, held.generation, me))
            given.append(peer)
        if not boxes:
            return
        context = KeyContext(
            federation=me.federation,
            site=me.site,
            ledger_key=me.ledger,
            generation=held.generation,
            key_id=key_id,
            receivers={peer.site: peer.ledger.fingerprint for peer in turn.allowed.values()},
            policy=turn.policy,
        )
        self._door.release(encode_sealed(boxes), context)
        self._friends.meet(given)
        self._given |= {(peer.site, held.generation, key_id): now for peer in given}
        names = ", ".join(peer.site for peer in given)
        LOG.info("generation %d sealed to %s", held.generation, names)

    def _sealed(
        self, key: FederationKey, peer: Peer, sealing: SealingKey, generation: int, me: Me
    ) -> SealedBox:
        label = Label(
            federation=me.federation,
            generation=generation,
            key_id=key.key_id,
            from_site=me.site,
            for_site=peer.site,
            for_ledger_key=peer.ledger.fingerprint,
        )
        box = seal(key, sealing, label)
        return SealedBox(label, box, sign_box(box, label, self._ledger_key))

    def _refuse(self, error: CairnError, policy: Policy) -> None:
        """Record what does not hold, once: the same lie every half minute is one record."""
        if str(error) not in self._told:
            self._told.add(str(error))
            self._door.refuse(error, policy)

    def _state(self, peers: Mapping[str, Peer], waiting: str = "", trouble: str = "") -> KeyState:
        held = self._ring.newest()
        return KeyState(
            generation=0 if held is None else held.generation,
            key_id="" if held is None else held.key.key_id,
            peers={name: peer.generation for name, peer in sorted(peers.items())},
            fingerprints={name: p.ledger.fingerprint for name, p in sorted(peers.items())},
            waiting=waiting,
            trouble=trouble,
        )

    def _note(self, state: KeyState) -> None:
        self._site.key_ring.mkdir(mode=0o700, exist_ok=True)
        text = json.dumps(vars(state), sort_keys=True)
        path = self._site.key_ring / "status.json"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_atomically(path, text.encode())


@dataclass(frozen=True)
class _Turn:
    """What one turn goes by."""

    news: KeyNews
    opening: OpeningKey
    policy: Policy
    me: Me
    allowed: Mapping[str, Peer]


def read_key_state(site: SiteFolder) -> KeyState | None:
    """What the worker noted last, or None when it noted nothing yet."""
    try:
        value = json.loads((site.key_ring / "status.json").read_text(encoding="utf-8"))
        return KeyState(**value)
    except (OSError, ValueError, TypeError):
        return None


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


def _another_key(newest: Newest) -> VerificationError:
    return VerificationError(
        "the aggregator names another federation key than the one here",
        field=f"key id of generation {newest.generation}",
        expected="the id of the key here",
        got=f"{newest.key_id}",
        advice="Compare key ids with the other sites; if ours was brought by hand and is wrong, "
        "remove worker/federation.key",
    )


def _not_ours(field: str, expected: str, got: str) -> VerificationError:
    return VerificationError(
        "a sealed federation key is not what was asked for",
        field=field,
        expected=expected,
        got=got,
    )
