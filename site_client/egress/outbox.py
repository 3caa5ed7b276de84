"""The only writer of the outbox.

``release`` and ``keys`` call it, after the ledger has recorded every byte; ``checkpoints``
with what is computed from the ledger alone. An import contract keeps every other module
away from here.
"""

from __future__ import annotations

from site_client.files import write_atomically
from site_client.spool import Spool


def put_reply(spool: Spool, order: str, reply: bytes) -> None:
    """Hand a released reply to the courier; the same reply twice is the same file.

    Args:
        spool: of the site.
        order: digest under which the order lies in the inbox.
        reply: the parcel; whole or absent, also after a crash.
    """
    write_atomically(spool.reply_path(order), reply)


def put_keys(spool: Spool, digest: str, data: bytes) -> None:
    """Hand released sealed keys to the courier.

    Args:
        spool: of the site.
        digest: of the sealed keys, as the ledger has recorded it.
        data: their parcel, with the proof; whole or absent, also after a crash.
    """
    write_atomically(spool.keys_path(digest), data)


def put_checkpoint(spool: Spool, witness: str, request: bytes) -> None:
    """Hand the courier a checkpoint that a witness shall cosign, in place of an older one.

    Args:
        spool: of the site.
        witness: mark of the witness.
        request: whole or absent, also after a crash.
    """
    write_atomically(spool.checkpoint_path(witness), request)
