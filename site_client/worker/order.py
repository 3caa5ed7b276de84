"""Opening what the courier brought: nothing is decoded before its signature holds.

The courier is trusted with carrying and no more, and whoever can write into the inbox with
less. Of an order that the aggregator's witness key has not signed nothing but its length
and its parts' digests is looked at: it names no run, so that its refusal is told to nobody.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from common.canonical import sha256_hex
from common.crypto.identity import SIGNATURE_BYTES, PublicKey
from common.errors import CairnError, VerificationError
from common.ledger.rotation import MAX_ROTATION_BYTES, follow
from common.wire.orders import MAX_ORDER_BYTES, SIGNATURE_CONTEXT, Order, decode_order
from common.wire.parcel import views
from common.wire.transport import (
    CODEBOOK,
    ORDER,
    RECEIPT,
    ROTATION_PREFIX,
    SIGNATURE,
    START,
    SUM_PREFIX,
    TURN,
)
from common.wire.turn import TurnNote, open_turn
from site_client.egress.question import Question
from site_client.worker.failures import BadOrderError

_PARTS = frozenset({ORDER, SIGNATURE, RECEIPT, CODEBOOK, START, TURN})
_ROTATION = re.compile(ROTATION_PREFIX + r"([0-9]{6})")
_SUM = re.compile(SUM_PREFIX + r"([0-9]{6})")


@dataclass(frozen=True)
class Opened:
    """An order of the aggregator's.

    Attributes:
        question: names its answer and its reply.
        order: what is asked.
        receipt: cosigned checkpoint that came with it, not yet verified.
        turn: whose turn it is, by the aggregator's word beside it; turn 0 without one.
        stop: that word's bytes, where it ends the run.
        rotations: exchanges of the aggregator's key that lead from the one that counts here to
            the one that signed this order; not yet recorded.
        fault: what is wrong with the word beside it or with its codebook, or None.
    """

    question: Question
    order: Order
    receipt: bytes | None
    turn: TurnNote
    stop: bytes | None
    rotations: tuple[bytes, ...]
    fault: CairnError | None


def open_order(parcel: bytes, witness: PublicKey) -> Opened:
    """Take a parcel apart, verify its order, and only then decode it.

    Args:
        parcel: as it came.
        witness: the aggregator's key that counts here.

    Raises:
        BadOrderError: not signed by the witness key, or signed and yet no order.
    """
    try:
        parts = views(parcel)
        if not {ORDER, SIGNATURE} <= parts.keys() or not all(map(_is_known, parts)):
            raise VerificationError("not an order", expected="order and signature", got="others")
        notes = (
            bytes(part)
            for name, part in parts.items()
            if _ROTATION.fullmatch(name) and len(part) <= MAX_ROTATION_BYTES
        )
        exchanged = follow(witness, notes)
        witness = exchanged[-1].new if exchanged else witness
        body, signature = _signed(parts, witness)
        order = decode_order(body)
    except CairnError as error:
        raise BadOrderError(str(error)) from error
    attached = {name: bytes(part) for name, part in parts.items() if name not in (ORDER, SIGNATURE)}
    turn, word = TurnNote(run=order.header.run, turn=0), attached.get(TURN)
    fault: CairnError | None = None
    try:
        if word is not None:
            turn = open_turn(word, order.header.run, witness)
    except CairnError as error:
        fault = error
    order = replace(
        order,
        sums={
            int(match[1]): attached[name] for name in attached if (match := _SUM.fullmatch(name))
        },
        start=attached.get(START),
        codebook=attached.get(CODEBOOK),
    )
    question = Question(
        order_sha256=sha256_hex(body),
        parcel_sha256=sha256_hex(parcel),
        order=body,
        signature=signature,
    )
    return Opened(
        question,
        order,
        attached.get(RECEIPT),
        turn,
        word if turn.stop else None,
        tuple(rotation.data for rotation in exchanged),
        fault or _wrong_codebook(order),
    )


def _signed(parts: dict[str, memoryview], witness: PublicKey) -> tuple[bytes, bytes]:
    """Return an order's bytes and their signature, which holds.

    Raises:
        VerificationError: other parts, other sizes, or another key's signature.
    """
    if len(parts[ORDER]) > MAX_ORDER_BYTES or len(parts[SIGNATURE]) != SIGNATURE_BYTES:
        raise VerificationError(
            "not an order",
            expected=f"at most {MAX_ORDER_BYTES} bytes and a signature of {SIGNATURE_BYTES}",
            got=f"{len(parts[ORDER])} and {len(parts[SIGNATURE])} bytes",
        )
    body, signature = bytes(parts[ORDER]), bytes(parts[SIGNATURE])
    witness.verify(signature, SIGNATURE_CONTEXT + body)
    return body, signature


def _is_known(name: str) -> bool:
    return name in _PARTS or any(form.fullmatch(name) for form in (_SUM, _ROTATION))


def _wrong_codebook(order: Order) -> CairnError | None:
    """Check the codebook that lies beside the order; the signed plan says which one it must be."""
    planned, attached = None, order.codebook
    if order.header.phase == "embed" and order.plan.kind == "embed":
        planned = order.plan.embed.codebook
    if (None if attached is None else sha256_hex(attached)) == planned:
        return None
    return VerificationError(
        "not the codebook that the plan names",
        field="codebook",
        expected="none" if planned is None else f"digest {planned[:12]}",
        got="another, or none",
    )
