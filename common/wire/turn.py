"""The aggregator's signed word on whose turn it is: one run at a time, and when one is over.

A turn is a number that only grows, given to a run each time it is begun or gone on with. It
travels beside an order and not in it, so that the order of a run that is resumed is the very
order that was answered before. A site that has heard of a later turn answers no order of an
earlier one: two runs that get in each other's way cost the earlier one its sites, and nobody
is accused.

Source: fencing tokens, Kleppmann, Designing Data-Intensive Applications, 2017, chapter 8.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import ValidationError

from common.canonical import canonical_json, parse_canonical_json
from common.crypto.identity import SIGNATURE_BYTES, PublicKey, SigningKey
from common.errors import VerificationError
from common.settings import Frozen, describe_validation
from common.wire.records import Count, RunName

SIGNATURE_CONTEXT: Final = b"cairn/turn/v1\n"
MAX_TURN_BYTES: Final = 1024


class TurnNote(Frozen):
    """One run's turn.

    Attributes:
        run: whose.
        turn: the larger, the later; 0 only where no note came.
        stop: whether the run is over for good, and nothing more is asked for it.
    """

    v: Literal[1] = 1
    message: Literal["Turn"] = "Turn"
    run: RunName
    turn: Count
    stop: bool = False


def sign_turn(note: TurnNote, key: SigningKey) -> bytes:
    """Return the note as it travels: the aggregator's 64-byte signature, then canonical JSON."""
    body = canonical_json(note.model_dump(mode="json"))
    return key.sign(SIGNATURE_CONTEXT + body) + body


def open_turn(data: bytes, run: str, aggregator: PublicKey) -> TurnNote:
    """Read a note whose signature holds, and which is about this run.

    Raises:
        VerificationError: not signed by the aggregator, of another run, or malformed.
    """
    if len(data) > MAX_TURN_BYTES:
        raise VerificationError(
            "a turn is not valid", expected=f"at most {MAX_TURN_BYTES} bytes", got="more"
        )
    signature, body = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
    aggregator.verify(signature, SIGNATURE_CONTEXT + body)
    try:
        note = TurnNote.model_validate(parse_canonical_json(body, "turn"))
    except ValidationError as error:
        field, expected, got = describe_validation(error)
        raise VerificationError(
            "a turn is not valid", field=field, expected=expected, got=got
        ) from error
    if note.run != run:
        raise VerificationError(
            "a turn is of another run", field="run", expected=run, got="another run's"
        )
    return note
