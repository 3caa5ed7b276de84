"""The origin of a model: run, plan, sites and the sum of every round, signed by the aggregator.

Everything in it can be verified by others: sums are named by the digests that the orders in
the sites' own ledgers name, and they lead from the first weights to these, bit for bit.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.canonical import canonical_json, parse_canonical_json
from common.crypto.identity import PublicKey, SigningKey
from common.errors import VerificationError
from common.settings import describe_validation
from common.wire.orders import MOST_SITES, RosterEntry
from common.wire.records import Count, Digest, RunName, SiteName

SIGNATURE_CONTEXT: Final = b"cairn/model/v1\n"
MOST_ROUNDS: Final = 100_000
MAX_BYTES: Final = 64 << 20

FileName = Annotated[str, Field(pattern=r"^[a-z]{1,32}\.(json|md|safetensors)$")]


class Words(BaseModel):
    """Words of a released model: closed, frozen, and of exactly their types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class RoundSum(Words):
    """One round that moved the weights.

    Attributes:
        round: its number, from 1.
        sites: those whose updates are in the sum, in order of name.
        samples: that the updates count as, together.
        sum_sha256: digest of the sum, as the next round's orders name it.
    """

    round: Count
    sites: Annotated[tuple[SiteName, ...], Field(min_length=1, strict=False)]
    samples: Count
    sum_sha256: Digest


class Provenance(Words):
    """The origin of a model.

    Attributes:
        federation, run: whose, and which.
        verdict: how the run ended.
        finished: when, UTC.
        plan: fingerprint of its plan.
        start: digest of the weights it began with: from the plan's seed, or of its start model.
        weights: digest of what it came to.
        server_momentum: of the averaging; 0 for none.
        roster: the sites that might take part, with the keys that sign their ledgers.
        rounds: the rounds that moved the weights, in order.
        link: of the chain of sums after the last of them.
        files: SHA-256 of every other file of the folder, without the sums.
    """

    v: Literal[1] = 1
    message: Literal["Model"] = "Model"
    federation: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    run: RunName
    verdict: Literal["COMPLETED", "DEGRADED"]
    finished: Annotated[
        str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$")
    ]
    plan: Digest
    start: Digest
    weights: Digest
    server_momentum: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.0
    roster: Annotated[
        tuple[RosterEntry, ...], Field(min_length=1, max_length=MOST_SITES, strict=False)
    ]
    rounds: Annotated[tuple[RoundSum, ...], Field(max_length=MOST_ROUNDS, strict=False)]
    link: Digest
    files: dict[FileName, Digest]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if [each.round for each in self.rounds] != list(range(1, len(self.rounds) + 1)):
            raise ValueError("rounds in order, from 1, each once")
        return self

    def encode(self) -> bytes:
        """Return canonical JSON: the bytes that are signed."""
        return canonical_json(self.model_dump(mode="json"))


def decode_provenance(data: bytes) -> Provenance:
    """Read what ``encode`` made; nothing in it is believed yet.

    Raises:
        VerificationError: not canonical JSON, an unknown field, or one that is wrong.
    """
    if len(data) > MAX_BYTES:
        raise VerificationError(
            "not a model's provenance", expected=f"at most {MAX_BYTES} bytes", got="more"
        )
    try:
        return Provenance.model_validate(parse_canonical_json(data, "provenance"))
    except ValidationError as error:
        field, expected, got = describe_validation(error)
        raise VerificationError(
            "not a model's provenance", field=field, expected=expected, got=got
        ) from error


def sign_provenance(data: bytes, key: SigningKey) -> bytes:
    """Return the aggregator's signature over a provenance: 128 hex digits and a line end."""
    return key.sign(SIGNATURE_CONTEXT + data).hex().encode("ascii") + b"\n"


def verify_provenance(data: bytes, signature: bytes, key: PublicKey) -> None:
    """Return only if the aggregator with this key signed the provenance.

    Raises:
        VerificationError: it did not.
    """
    try:
        raw = bytes.fromhex(signature.decode("ascii").strip())
    except (UnicodeDecodeError, ValueError) as error:
        raise VerificationError(
            "a signature cannot be read", expected="128 hex digits", got="other bytes"
        ) from error
    key.verify(raw, SIGNATURE_CONTEXT + data)
