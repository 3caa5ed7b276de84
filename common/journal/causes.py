"""The causes that a byte on the wire can have, and the room that each of them is given.

Rooms are what a courier of this release needs, and little more: what a party could hide in
them is told beside the balance.
"""

from __future__ import annotations

from common.journal.entries import Kind

FRAME_BYTES = 12_288
"""Room that Flower's messages around one answer have, and the desk's around sealed keys."""
HANDED_BYTES = 12
"""What stands before a parcel that a SuperNode is handed: a number and a length."""
HANDSHAKE_BYTES = 4_096
"""Room of the first, unencrypted words of a connection."""
DESK_CONNECTION_BYTES, DESK_CALL_BYTES = 2_048, 1_024
"""Room that HTTP/2 has around the desk's messages: of a connection, and of a call."""
RECORD_BYTES = 29
"""What TLS adds to at most 16,384 bytes: 22 in version 1.3, 29 in 1.2."""
LIMIT = 0.01
"""Share of the wire that may stay unexplained."""
PUSHES: frozenset[Kind] = frozenset({"push-messages", "push-object", "push-objects"})
DESK_KINDS: frozenset[Kind] = frozenset(
    {
        "greet",
        "Enrol",
        "EnrolStatus",
        "Renew",
        "ListPeers",
        "PutSealedKeys",
        "GetSealedKey",
        "AwaitOrders",
    }
)

RECORDS = "records that the ledger declares"
PROOFS = "their proofs from the ledger"
FRAMES = "Flower's messages around them"
POLLS = "control traffic, declared beforehand"
DESK = "the desk: enrolment, renewal, sealed keys"
WITNESS = "checkpoints to witnesses"
TLS = "TLS: handshakes and record headers"
RESENT = "sent again by the kernel"
HEADERS = "headers of IP and TCP"
ABORTED = "announced and not sent"
UNEXPLAINED = "unexplained"
ORDER = (RECORDS, PROOFS, FRAMES, POLLS, DESK, WITNESS, TLS, RESENT, HEADERS, ABORTED)
"""In which they are told; what is unexplained comes last."""
