"""The door for checkpoints: what a third witness is asked holds nothing but the ledger's shape.

A request is computed here, from the ledger and two sizes: an old size, hashes of the
tree, and the newest checkpoint as the ledger signed it. Whoever has the ledger computes
the same bytes again. It is no release and has no record, because a record would be one
more that nobody has witnessed; the courier's journal has every request.
"""

from __future__ import annotations

from common.ledger.log import Ledger
from common.witness.wire import AddCheckpoint
from site_client.egress.outbox import put_checkpoint
from site_client.spool import Spool


class CheckpointDoor:
    """Hands the courier checkpoints to be cosigned, and nothing else.

    Args:
        ledger: of this site, open.
        spool: where the courier looks.
    """

    def __init__(self, ledger: Ledger, spool: Spool) -> None:
        self._ledger = ledger
        self._spool = spool

    def ask(self, witness: str, old: int) -> bytes:
        """Ask a witness to cosign the newest checkpoint; returns the request.

        Args:
            witness: its mark, of ``marks.mark_of``.
            old: size that it has cosigned last; 0 if it never did.

        Raises:
            InputDataError: ``old`` is beyond the ledger.
        """
        proof = self._ledger.proof(self._ledger.size - 1, old)
        request = AddCheckpoint(old, proof.consistency, proof.checkpoint).to_bytes()
        put_checkpoint(self._spool, witness, request)
        return request
