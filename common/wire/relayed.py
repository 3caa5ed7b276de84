"""Errands and answers between the aggregator and a relay: errands down, heads and partial sums up.

An errand is a parcel with a note that the aggregator signed, and beside it, unchanged, what
the sites are sent. *Gather* has a relay put an order to its sites; its answer is one *head* a
site: of the site's reply everything but the records that are added, and the relay's word on
those. *Add* has it add the records of the sites that the aggregator has decided on. What
comes up is bounded and strict, and nothing in it is believed that a site has not proved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator

from common.canonical import canonical_json, parse_canonical_json
from common.crypto.identity import SIGNATURE_BYTES, PublicKey, SigningKey
from common.errors import RefusedError
from common.settings import Frozen, describe_validation
from common.wire.codes import ReplyCode
from common.wire.orders import MOST_SITES
from common.wire.parcel import MAX_PARCEL_BYTES, views
from common.wire.records import Count, Digest, KeyId, RunName, SiteName

SIGNATURE_CONTEXT: Final = b"cairn/relay/v1\n"
NOTE, HEADS, SUM, REFUSAL = "note", "heads", "sum", "refusal"
"""Parts: of an errand; of the answer to gather; to add; of a relay that does neither."""
HEAD_PREFIX: Final = "head."
"""Before a site's name: the parcel of what its reply holds beside the records that are added."""
MOST_SAID_BYTES: Final = 4 * 2**20
"""What a note or the words beside heads may have: a thousand sites, each with its receipt."""
MOST_REASON: Final = 1000
MOST_RECEIPT: Final = 3000
"""Characters of a checkpoint that two have signed; a few hundred are usual."""

COURIERS_OWN: Final = frozenset(
    {
        ReplyCode.NO_ANSWER,
        ReplyCode.BAD_ORDER,
        ReplyCode.INTERNAL,
        ReplyCode.UNAPPROVED_APP,
        ReplyCode.REFUSED_AT_DOOR,
    }
)
"""Numbers that a relay may tell of a site. All others, above all that a sum is refused, are a
worker's words, and travel in a report that its ledger proves."""

RecordType = Annotated[str, Field(pattern=r"^[A-Za-z]{1,32}$")]
Reason = Annotated[str, Field(max_length=MOST_REASON, pattern=r"^[^\x00-\x1f\x7f]*$")]
ModelT = TypeVar("ModelT", bound=BaseModel)


class RelayedSite(Frozen):
    """A site that a relay puts an order to.

    Attributes:
        ledger_key: its public key, as text.
        receipt: the newest checkpoint that the aggregator has cosigned; None before the first.
        since: the sums of this round and of later ones lie beside its order.
    """

    site: SiteName
    ledger_key: Annotated[str, Field(max_length=128)]
    receipt: Annotated[str, Field(max_length=MOST_RECEIPT)] | None = None
    since: Count


class GatherNote(Frozen):
    """Put an order to some sites and tell what came back.

    Attributes:
        order: digest of the order that lies beside.
        deadline_s: how long the sites have.
        key_id, codec: what the sites' records must name; None before round 0 has settled it.
        sites: in order of name, each once.
    """

    v: Literal[1] = 1
    message: Literal["RelayGather"] = "RelayGather"
    relay: SiteName
    run: RunName
    round: Count
    order: Digest
    deadline_s: Annotated[int, Field(ge=1, le=86_400)]
    key_id: KeyId | None = None
    codec: Digest | None = None
    sites: Annotated[
        tuple[RelayedSite, ...], Field(min_length=1, max_length=MOST_SITES, strict=False)
    ]

    @model_validator(mode="after")
    def _every_site_once(self) -> Self:
        _require_in_order(entry.site for entry in self.sites)
        return self


class AddNote(Frozen):
    """Add the records of some sites.

    Attributes:
        answers: digests of the envelopes, by site and record type, as the heads told them.
    """

    v: Literal[1] = 1
    message: Literal["RelayAdd"] = "RelayAdd"
    relay: SiteName
    run: RunName
    round: Count
    answers: Annotated[
        dict[SiteName, Annotated[dict[RecordType, Digest], Field(min_length=1, max_length=8)]],
        Field(min_length=1, max_length=MOST_SITES),
    ]


class SummedRecord(Frozen):
    """A relay's word on one record that it keeps.

    Attributes:
        sha256: of its envelope.
    """

    bytes: Count
    sha256: Digest


class Answered(Frozen):
    """A site answered; its head lies beside.

    Attributes:
        ms: from its order to its answer.
        norm: L2 norm of its update, in fixed-point units; None where there is none.
        kept: records that are added, by type.
    """

    said: Literal["answered"] = "answered"
    site: SiteName
    ms: Count
    norm: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    kept: Annotated[dict[RecordType, SummedRecord], Field(max_length=8, default_factory=dict)]


class Numbered(Frozen):
    """A site's courier sent a number, one of ``COURIERS_OWN``."""

    said: Literal["number"] = "number"
    site: SiteName
    ms: Count
    code: Annotated[ReplyCode, Field(strict=False)]

    @model_validator(mode="after")
    def _a_courier_says_it(self) -> Self:
        if self.code not in COURIERS_OWN:
            raise ValueError("a number that a courier says by itself")
        return self


class TurnedAway(Frozen):
    """A site's reply did not hold.

    Attributes:
        stale: whether it was only older than the site's newest receipt.
        bytes: what had arrived of it.
    """

    said: Literal["turned-away"] = "turned-away"
    site: SiteName
    stale: bool = False
    reason: Reason
    bytes: Count


SiteSaid = Annotated[Answered | Numbered | TurnedAway, Field(discriminator="said")]


class Heads(Frozen):
    """A relay's word on an order: who answered, and how.

    Attributes:
        sites: in order of name; who is not there has not answered.
    """

    v: Literal[1] = 1
    message: Literal["RelayHeads"] = "RelayHeads"
    relay: SiteName
    run: RunName
    round: Count
    sites: Annotated[tuple[SiteSaid, ...], Field(max_length=MOST_SITES, strict=False)]

    @model_validator(mode="after")
    def _every_site_once(self) -> Self:
        _require_in_order(said.site for said in self.sites)
        return self


class RelayRefusal(Frozen):
    """A relay does not do its errand, and why."""

    v: Literal[1] = 1
    message: Literal["RelayRefusal"] = "RelayRefusal"
    reason: Reason


Note = GatherNote | AddNote
_NOTES: TypeAdapter[Note] = TypeAdapter(Annotated[Note, Field(discriminator="message")])


def sign_note(note: Note, key: SigningKey) -> bytes:
    """Return an errand's note as it travels: the aggregator's signature, then canonical JSON."""
    body = said_bytes(note)
    return key.sign(SIGNATURE_CONTEXT + body) + body


def open_note(data: bytes, aggregator: PublicKey) -> Note:
    """Read a note whose signature holds.

    Raises:
        VerificationError: not signed by the aggregator, or not canonical JSON.
        RefusedError: no note, or more bytes than one has.
    """
    _require_short(data, "an errand's note")
    signature, body = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
    aggregator.verify(signature, SIGNATURE_CONTEXT + body)
    try:
        return _NOTES.validate_python(parse_canonical_json(body, "errand"))
    except ValidationError as error:
        raise _invalid("an errand", error) from error


def said_bytes(words: BaseModel) -> bytes:
    """Return a note, heads or a refusal as canonical JSON."""
    return canonical_json(words.model_dump(mode="json", exclude_none=True))


def read_heads(data: bytes, most: int = MAX_PARCEL_BYTES) -> tuple[Heads, Mapping[str, memoryview]]:
    """Read the answer to a gather errand; no site's proof in it is looked at yet.

    Args:
        data: as it arrived.
        most: bytes that it may have.

    Returns:
        The relay's words, and the head of each site that answered, by name.

    Raises:
        RefusedError: the relay refused, another form, or heads of other sites than it names.
        VerificationError: words that are not canonical JSON.
    """
    parts = _parts(data, HEADS, most)
    words = _read(bytes(parts.pop(HEADS)), Heads, "a relay's heads")
    heads = {name.removeprefix(HEAD_PREFIX): part for name, part in parts.items()}
    answered = {said.site for said in words.sites if isinstance(said, Answered)}
    if set(parts) != {HEAD_PREFIX + site for site in answered}:
        raise RefusedError(
            "a relay's heads are not those of the sites that it names",
            field="heads",
            expected=f"{len(answered)}, one for each site that answered",
            got=f"{len(parts)} others",
        )
    return words, heads


def read_partial(data: bytes, most: int = MAX_PARCEL_BYTES) -> bytes:
    """Read the answer to an add errand; returns the sum's bytes, which are not decoded yet.

    Raises:
        RefusedError: the relay refused, or another form.
        VerificationError: words that are not canonical JSON.
    """
    parts = _parts(data, SUM, most)
    if set(parts) != {SUM}:
        raise RefusedError("a relay's sum", expected="one part", got=f"{len(parts)} parts")
    return bytes(parts[SUM])


def writable(text: str) -> str:
    """Return words of a failure as a ``Reason`` may hold them."""
    return "".join(c if c.isprintable() else " " for c in text)[:MOST_REASON]


def _parts(data: bytes, expected: str, most: int) -> dict[str, memoryview]:
    """Return an answer's parts.

    Raises:
        RefusedError: without the one that is wanted; in the relay's own words if it has any.
    """
    parts = views(data, most)
    if set(parts) == {REFUSAL}:
        refusal = _read(bytes(parts[REFUSAL]), RelayRefusal, "a relay's refusal")
        raise RefusedError("a relay does not do its errand", field="errand", got=refusal.reason)
    if expected not in parts:
        raise RefusedError("not a relay's answer", field=expected, expected="a part", got="none")
    return parts


def _read(data: bytes, form: type[ModelT], what: str) -> ModelT:
    _require_short(data, what)
    try:
        return form.model_validate(parse_canonical_json(data, what))
    except ValidationError as error:
        raise _invalid(what, error) from error


def _require_short(data: bytes, what: str) -> None:
    if len(data) > MOST_SAID_BYTES:
        raise RefusedError(
            f"{what} is too long", expected=f"at most {MOST_SAID_BYTES} bytes", got=f"{len(data)}"
        )


def _require_in_order(sites: Iterable[str]) -> None:
    names = list(sites)
    if names != sorted(set(names)):
        raise ValueError("sites in order of name, each once")


def _invalid(what: str, error: ValidationError) -> RefusedError:
    field, expected, got = describe_validation(error)
    return RefusedError(f"{what} is not valid", field=field, expected=expected, got=got)
