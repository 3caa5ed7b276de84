"""The only writer of replies.

``release`` calls it, after the ledger has recorded every byte. An import
contract keeps every other module away from here.
"""

from __future__ import annotations

from site_client.spool import Spool, write_atomically


def put_reply(spool: Spool, order: str, reply: bytes) -> None:
    """Hand a released reply to the courier; the same reply twice is the same file.

    Args:
        spool: of the site.
        order: digest under which the order lies in the inbox.
        reply: the parcel; whole or absent, also after a crash.
    """
    write_atomically(spool.reply_path(order), reply)
