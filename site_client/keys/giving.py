"""Giving the key away: whose turn it is, to whom it went lately, and through the door.

All holders could seal; the first by name does at once and each next one waits a
while longer, so that one record is written and not one per site. Which key is the
newest, and who may have it, was decided before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from common.crypto.exchange import OpeningKey
from common.crypto.identity import SigningKey
from common.policy import Policy
from common.wire.sealed_keys import encode_sealed
from site_client.egress.keys import KeyContext, KeyDoor
from site_client.keys.boxes import make_box
from site_client.keys.news import KeyNews
from site_client.keys.ring import Held
from site_client.keys.trust import Acquaintances, Me, Peer

PATIENCE_S = 60.0
"""How much longer each next holder, in order of name, waits for those before it to seal."""
AGAIN_S = 120.0
"""When what was sealed and did not arrive is sealed again."""
RENEW_PAUSE_S = 60.0
"""Least time between two keys that this site makes, whatever the desk asks for."""
LOG = logging.getLogger("cairn.keys")


@dataclass(frozen=True)
class Turn:
    """Everything that one look at the news goes by.

    Attributes:
        confirmed: fingerprint by name, as people of this site confirmed them.
        verified: sites that are who they say, we ourselves among them.
        allowed: of those, the ones that policy.toml and our people let have the key, we
            ourselves among them.
    """

    news: KeyNews
    opening: OpeningKey
    policy: Policy
    me: Me
    confirmed: Mapping[str, str]
    verified: Mapping[str, Peer]
    allowed: Mapping[str, Peer]


class Giving:
    """This site's giving to others: what it has given, and may give next.

    Args:
        door: what it may leave through.
        friends: remembers the ledger keys of those it was given to.
        ledger_key: signs every box.
        clock: seconds; for patience.
    """

    def __init__(
        self,
        door: KeyDoor,
        friends: Acquaintances,
        ledger_key: SigningKey,
        clock: Callable[[], float],
    ) -> None:
        self._door, self._friends, self._ledger_key = door, friends, ledger_key
        self._clock = clock
        self._given: dict[tuple[str, int, str], float] = {}
        self._since: dict[tuple[str, int], float] = {}
        self._made: float | None = None

    def serve(self, turn: Turn, shared: Held) -> None:
        """Seal to whoever lacks what we have, when it is our turn to."""
        lacking = [peer for peer in turn.allowed.values() if peer.generation < shared.generation]
        if not lacking:
            self._since.clear()
        elif self._is_our_turn("serve", turn, shared.generation):
            self.give(turn, shared, lacking)

    def may_renew(self, turn: Turn, generation: int, *, again: bool) -> bool:
        """Tell whether we make the generation after this one now; one a minute at most.

        Args:
            turn: what is known.
            generation: that is the newest now.
            again: whether we have made it already and only give it again.
        """
        now = self._clock()
        rested = self._made is None or now - self._made >= RENEW_PAUSE_S
        if not self._is_our_turn("renew", turn, generation) or not (again or rested):
            return False
        self._made = self._made if again else now
        return True

    def give(self, turn: Turn, shared: Held, receivers: Iterable[Peer]) -> None:
        """Seal a key to those that were not given it lately, and put it through the door.

        Raises:
            CairnError: the door refused.
            StorageError: the ledger could not record.
        """
        now, me, boxes = self._clock(), turn.me, []
        key_id = shared.key.key_id
        receipts = []
        for peer in receivers:
            name = (peer.ledger.fingerprint, shared.generation, key_id)
            if peer.sealing is None or now - self._given.get(name, now - AGAIN_S) < AGAIN_S:
                continue
            boxes.append(make_box(shared, peer, peer.sealing, me, self._ledger_key))
            receipts.append(peer)
        if not boxes:
            return
        context = KeyContext(
            federation=me.federation,
            site=me.site,
            ledger_key=me.ledger,
            generation=shared.generation,
            key_id=key_id,
            receivers={peer.site: peer.ledger.fingerprint for peer in turn.allowed.values()},
            confirmed=turn.confirmed,
            policy=turn.policy,
        )
        self._door.release(encode_sealed(boxes), context)
        self._friends.meet(receipts)
        self._given |= {
            (peer.ledger.fingerprint, shared.generation, key_id): now for peer in receipts
        }
        names = ", ".join(peer.site for peer in receipts)
        LOG.info("generation %d sealed to %s", shared.generation, names)

    def _is_our_turn(self, what: str, turn: Turn, generation: int) -> bool:
        """Let the first holder by name act at once; each next one waits for it a while longer."""
        before = sum(
            peer.generation >= generation and name < turn.me.site
            for name, peer in turn.allowed.items()
        )
        since = self._since.setdefault((what, generation), self._clock())
        return self._clock() - since >= before * PATIENCE_S
