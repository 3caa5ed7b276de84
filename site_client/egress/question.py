"""The order that is being answered, in the words that every record about it carries.

An answer is decided once and noted before it is recorded; the note holds what its
records say, so that an answer that a crash cut short is completed with the same words.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self, TypedDict

from pydantic import Field

from common.canonical import sha256_hex
from common.errors import InternalError
from common.ledger.records import Name
from common.settings import Frozen
from common.wire.records import Digest
from site_client.egress.gate import SiteExpected

MOST_INTENT_BYTES = 32 << 20
"""Of a note of intent: the proofs of all records of an answer."""
_SIGNATURE_BYTES = 64

MOST_INTENT_BYTES = 32 << 20
"""Of a note of intent: the proofs of all records of an answer."""


@dataclass(frozen=True)
class Question:
    """The order that is being answered.

    Attributes:
        order_sha256: of the order's own bytes; stands in every record about it. It names
            the answer, too: the same order that comes again in another parcel, with a
            newer receipt, gets the same answer.
        parcel_sha256: of the parcel it came in; names the reply in the outbox.
        order: its own bytes, for the ledger's archive.
        signature: the aggregator's over them, as it came; it may not hold.
        asks_again: whether the same order may be answered otherwise in another parcel, or
            when a person has decided.
    """

    order_sha256: str
    parcel_sha256: str
    order: bytes = b""
    signature: bytes = b""
    asks_again: Literal["never", "in another parcel", "once decided"] = "never"

    @property
    def name(self) -> str:
        """Under which the answer is noted."""
        match self.asks_again:
            case "never":
                return self.order_sha256
            case "in another parcel":
                return self.parcel_sha256
            case "once decided":
                return f"{self.order_sha256}-waits"

    @property
    def of_parcel(self) -> Question:
        """For a failure, which answers the parcel that brought the order, not the order for ever.

        The same order comes again when a run is resumed: in another parcel, for the failure's
        receipt comes with it. Nor can the refusal of a forged copy answer the genuine order.
        """
        return replace(self, asks_again="in another parcel")

    @property
    def while_waiting(self) -> Question:
        """For the number of a plan that waits for a person: one answer, however often it is asked.

        Each parcel with the order gets it, without another record; ask for it only while the
        plan waits.
        """
        return replace(self, asks_again="once decided")

    def require_own_bytes(self) -> None:
        """Refuse to archive another order under this one's name.

        Raises:
            InternalError: the bytes do not have this digest.
        """
        if self.order and sha256_hex(self.order) != self.order_sha256:
            raise InternalError(
                "an order's bytes are not those that were named",
                field="order",
                expected="bytes with its digest",
                got="others",
            )


class OrderFields(TypedDict):
    """A ledger record's fields of what was asked and what was in force."""

    phase: str
    order_sha256: str
    order_signature: str | None
    plan_fingerprint: str
    policy_sha256: str


def order_fields(question: Question, expected: SiteExpected) -> OrderFields:
    """Return the words of every record about this order."""
    signed = len(question.signature) == _SIGNATURE_BYTES
    return OrderFields(
        phase=expected.phase,
        order_sha256=question.order_sha256,
        order_signature=question.signature.hex() if signed else None,
        plan_fingerprint=expected.plan.fingerprint,
        policy_sha256=expected.policy.sha256,
    )


class Intent(Frozen):
    """The decision of what leaves; ``proofs`` once every record is committed.

    Attributes:
        payloads: digests of the envelopes, which lie in the ledger's archive.
        phase, order_sha256, order_signature, plan_fingerprint, policy_sha256: see ``OrderFields``.
        proofs: one of every payload's record.
    """

    v: Literal[2] = 2
    payloads: Annotated[tuple[Digest, ...], Field(min_length=1, max_length=8, strict=False)]
    phase: Name
    order_sha256: Digest
    order_signature: str | None = None
    plan_fingerprint: Digest
    policy_sha256: Digest
    proofs: Annotated[tuple[str, ...], Field(max_length=8, strict=False)] = ()

    @classmethod
    def to_send(cls, payloads: tuple[str, ...], words: OrderFields) -> Self:
        """Return the intent before anything is recorded."""
        return cls(payloads=payloads, **words)

    @property
    def order_fields(self) -> OrderFields:
        """The words of every record of this answer."""
        return OrderFields(
            phase=self.phase,
            order_sha256=self.order_sha256,
            order_signature=self.order_signature,
            plan_fingerprint=self.plan_fingerprint,
            policy_sha256=self.policy_sha256,
        )
