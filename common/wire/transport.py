"""Names under which a parcel lies in a Flower message; both ends must agree.

An order and a reply are one uint8 array each. A courier that has no reply
sends one integer (``common.wire.codes``) instead, and nothing else.
"""

MESSAGE_TYPE = "train"
RECORD = "cairn"
PARCEL = "parcel"
CODE = "code"

ORDER = "order"
SIGNATURE = "signature"
RECEIPT = "receipt"
CODEBOOK = "codebook"
START = "start"
TURN = "turn"
"""Parts of an order's parcel; the receipt is present once the site has a cosigned checkpoint,
the codebook and the start model where the order's plan names one. The turn says whose run's
it is, and whether the run is over (``common.wire.turn``)."""
ROTATION_PREFIX = "rotation-"
"""Before a number, six digits: an exchange of the aggregator's key, the oldest first."""
SUM_PREFIX = "sum-"
"""Before the number of a round, six digits: the sum that it came to."""


def sum_part(round_: int) -> str:
    """Name of the part that holds a round's sum."""
    return f"{SUM_PREFIX}{round_:06d}"


def rotation_part(number: int) -> str:
    """Name of the part that holds an exchange of the aggregator's key."""
    return f"{ROTATION_PREFIX}{number:06d}"


ENVELOPE_SUFFIX = ".envelope"
PROOF_SUFFIX = ".proof"
"""Parts of a reply's parcel, after the record type's name."""
