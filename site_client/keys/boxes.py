"""One key, one receiver: making the box that goes out, opening the one that came.

Nothing is opened before its signature holds and its label says what was asked for.
Decides neither who may be given the key nor when; touches no file.
"""

from __future__ import annotations

from collections.abc import Mapping

from common.crypto.exchange import OpeningKey, SealingKey
from common.crypto.identity import SigningKey
from common.crypto.keyed import FederationKey
from common.crypto.sealing import Label, check_box, open_box, seal, sign_box
from common.errors import VerificationError
from common.wire.sealed_keys import SealedBox
from site_client.keys.news import Newest, SealedNews
from site_client.keys.ring import Held
from site_client.keys.trust import Me, Peer


def make_box(
    shared: Held, peer: Peer, sealing: SealingKey, me: Me, ledger: SigningKey
) -> SealedBox:
    """Return a key of a generation, sealed to ``peer`` and signed for it with our ledger key."""
    label = Label(
        federation=me.federation,
        generation=shared.generation,
        key_id=shared.key.key_id,
        from_site=me.site,
        for_site=peer.site,
        for_ledger_key=peer.ledger.fingerprint,
    )
    box = seal(shared.key, sealing, label)
    return SealedBox(label, box, sign_box(box, label, ledger))


def open_news(
    sealed: SealedNews, newest: Newest, me: Me, allowed: Mapping[str, Peer], opening: OpeningKey
) -> tuple[FederationKey, Peer]:
    """Return the key in a box that came, and who sealed it.

    Raises:
        VerificationError: not ours, not the newest key, from a site that is not allowed,
            or bent.
    """
    if sealed.for_site != me.site:
        raise _not_ours("for_site", "this site", "another")
    if (sealed.generation, sealed.key_id) != (newest.generation, newest.key_id):
        raise _not_ours("generation", f"{newest.generation}", f"{sealed.generation}")
    sender = allowed.get(sealed.from_site)
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
    box = bytes.fromhex(sealed.box)
    check_box(box, bytes.fromhex(sealed.signature), label, sender.ledger)
    return open_box(box, opening, label), sender


def _not_ours(field: str, expected: str, got: str) -> VerificationError:
    return VerificationError(
        "a sealed federation key is not what was asked for",
        field=field,
        expected=expected,
        got=got,
    )
