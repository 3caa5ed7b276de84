"""Opening what the courier brought: nothing is acted upon before its signature holds.

The courier is trusted with carrying and no more. An order that the aggregator's
witness key has not signed is not decoded into anything but the names with which
its refusal is reported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from common.canonical import sha256_hex
from common.crypto.identity import PublicKey
from common.errors import CairnError, VerificationError
from common.wire.orders import SIGNATURE_CONTEXT, Order, decode_order
from common.wire.parcel import unwrap
from common.wire.transport import CODEBOOK, ORDER, RECEIPT, SIGNATURE, START, SUM_PREFIX, TURN
from common.wire.turn import TurnNote, open_turn
from site_client.egress.question import Question
from site_client.worker.failures import BadOrderError

_PARTS = frozenset({ORDER, SIGNATURE, RECEIPT, CODEBOOK, START, TURN})
_SUM = re.compile(SUM_PREFIX + r"([0-9]{6})")


@dataclass(frozen=True)
class Opened:
    """An order that decodes.

    Attributes:
        question: names its answer and its reply.
        order: what is asked.
        receipt: cosigned checkpoint that came with it, not yet verified.
        turn: whose turn it is, by the aggregator's word beside it; turn 0 without one.
        stop: that word's bytes, where it ends the run.
        fault: what is wrong with a signature or the codebook, or None if all hold.
    """

    question: Question
    order: Order
    receipt: bytes | None
    turn: TurnNote
    stop: bytes | None
    fault: CairnError | None


def open_order(parcel: bytes, witness: PublicKey) -> Opened:
    """Take a parcel apart and verify it.

    Raises:
        BadOrderError: nothing that could even be refused by name.
    """
    try:
        parts = unwrap(parcel)
        if not {ORDER, SIGNATURE} <= parts.keys() or not all(map(_is_known, parts)):
            raise VerificationError("not an order", expected="order and signature", got="others")
        body = parts[ORDER]
        order = decode_order(body)
    except CairnError as error:
        raise BadOrderError(str(error)) from error
    fault: CairnError | None = None
    try:
        witness.verify(parts[SIGNATURE], SIGNATURE_CONTEXT + body)
    except VerificationError as error:
        fault = error
    turn, word = TurnNote(run=order.header.run, turn=0), parts.get(TURN)
    try:
        if word is not None:
            turn = open_turn(word, order.header.run, witness)
    except VerificationError as error:
        fault = fault or error
    fault = fault or _wrong_codebook(order, parts.get(CODEBOOK))
    order = replace(
        order,
        sums={int(match[1]): parts[name] for name in parts if (match := _SUM.fullmatch(name))},
        start=parts.get(START),
        codebook=parts.get(CODEBOOK),
    )
    question = Question(
        order_sha256=sha256_hex(body),
        parcel_sha256=sha256_hex(parcel),
        order=body,
        signature=parts[SIGNATURE],
    )
    return Opened(question, order, parts.get(RECEIPT), turn, word if turn.stop else None, fault)


def _is_known(name: str) -> bool:
    return name in _PARTS or _SUM.fullmatch(name) is not None


def _wrong_codebook(order: Order, attached: bytes | None) -> CairnError | None:
    """Check the codebook that lies beside the order; the signed plan says which one it must be."""
    planned = order.plan.embed.codebook if order.header.phase == "embed" else None
    if (None if attached is None else sha256_hex(attached)) == planned:
        return None
    return VerificationError(
        "not the codebook that the plan names",
        field="codebook",
        expected="none" if planned is None else f"digest {planned[:12]}",
        got="another, or none",
    )
