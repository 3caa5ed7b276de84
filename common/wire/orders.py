"""The aggregator's order to a site: one a round, signed, words only.

An order says run, round, phase and plan, which sites may take part, and names by its
digest the sum that the last round came to. It carries no weights: a site computes those
itself, from sums that it verifies. Sums, a start model and a codebook travel beside the
order in the parcel. An order is signed by the aggregator's witness key, because the
courier that hands it to the worker is not trusted with more than carrying, and because
the site's ledger keeps it: it shows what was asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.canonical import canonical_json, parse_canonical_json, sha256_hex
from common.errors import InputDataError, RefusedError, VerificationError
from common.keys.pixel_agreement import read_codec, require_planned
from common.plan import FederationPlan, parse_plan
from common.schedule import Phase, schedule
from common.settings import describe_validation
from common.wire.records import Count, Digest, RunName, SiteName

SIGNATURE_CONTEXT = b"cairn/order/v2\n"
MAX_ORDER_BYTES = 1 << 20
MOST_SITES = 1000


class _Words(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class RosterEntry(_Words):
    """One site that may take part in a run.

    Attributes:
        site: its name.
        ledger_key: fingerprint of the key that signs its ledger.
        samples: most samples that it may count as in an average.
    """

    site: SiteName
    ledger_key: Digest
    samples: Annotated[int, Field(ge=1, le=1_000_000)] = 1


class OrderHeader(_Words):
    """The words of an order.

    Attributes:
        phase: ``begin`` asks what the site starts from; ``train`` for an evaluation of the
            weights that the run has come to and a round of training; ``evaluate`` for the
            evaluation alone; the other phases are those of ``common.schedule``.
        round: 0 for ``begin``.
        plan: canonical JSON of the plan.
        deadline_s: seconds after which the aggregator stops waiting.
        roster: the sites that may take part, in order of name; the same in every order.
        sum: digest of what the round before came to, where that was a sum.
        codec: canonical JSON of the codec of pixels, once there is one.
    """

    v: Literal[2] = 2
    message: Literal["Order"] = "Order"
    run: RunName
    round: Count
    phase: Phase
    plan: str
    deadline_s: Annotated[int, Field(ge=1, le=86_400)]
    roster: Annotated[
        tuple[RosterEntry, ...], Field(min_length=1, max_length=MOST_SITES, strict=False)
    ]
    sum: Digest | None = None
    codec: str | None = None

    @model_validator(mode="after")
    def _every_site_once(self) -> Self:
        names = [entry.site for entry in self.roster]
        if names != sorted(set(names)):
            raise ValueError("a roster in order of name, each site once")
        return self

    @cached_property
    def roster_sha256(self) -> str:
        """Digest of the roster, by which a site knows that it is still the same."""
        return sha256_hex(canonical_json([entry.model_dump() for entry in self.roster]))


class MisplacedOrderError(VerificationError):
    """An order that is out of its place in its plan."""


@dataclass(frozen=True)
class Order:
    """A decoded order, with what came beside it.

    Attributes:
        sums: bytes of sums by round, the order's own and those that the site missed;
            nothing of them is verified yet.
        start: bytes of a start model, digest not compared yet; None without any.
        codebook: its bytes, digest checked; None without any.
    """

    header: OrderHeader
    plan: FederationPlan
    sums: Mapping[int, bytes] = field(default_factory=dict)
    start: bytes | None = None
    codebook: bytes | None = None

    @property
    def name(self) -> str:
        """Name for people: run, round and phase."""
        return f"{self.header.run}, round {self.header.round} ({self.header.phase})"

    @cached_property
    def roster(self) -> dict[str, RosterEntry]:
        """The sites that may take part, by name."""
        return {entry.site: entry for entry in self.header.roster}

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Of the ledger key of every site that may take part, by name."""
        return {entry.site: entry.ledger_key for entry in self.header.roster}

    def samples_of(self, site: str) -> int:
        """Return the most samples that a site may count as; 1 for a site that is not asked."""
        entry = self.roster.get(site)
        return 1 if entry is None else entry.samples


def encode_order(header: OrderHeader) -> bytes:
    """Order bytes; the same for every site of a round."""
    return canonical_json(header.model_dump(mode="json", exclude_none=True))


@lru_cache(maxsize=2)
def decode_order(data: bytes) -> Order:
    """Read an order whose signature has been checked.

    The same order is read when it is looked at and again when it is answered, and its roster
    may be a thousand sites long: what was read of the last ones is kept. It cannot change.

    Raises:
        RefusedError: not an order, unknown field, or more bytes than an order has.
        VerificationError: not canonical JSON.
        InputDataError: the plan inside is not valid.
    """
    if len(data) > MAX_ORDER_BYTES:
        raise RefusedError(
            "an order is not valid", expected=f"at most {MAX_ORDER_BYTES} bytes", got="more"
        )
    try:
        header = OrderHeader.model_validate(parse_canonical_json(data, "order"))
    except ValidationError as error:
        name, expected, got = describe_validation(error)
        raise RefusedError("an order is not valid", field=name, expected=expected, got=got) from (
            error
        )
    plan = parse_plan(parse_canonical_json(header.plan.encode("utf-8"), "order.plan"))
    return Order(header, plan)


def check_order(order: Order) -> None:
    """Refuse an order that is out of its place, or whose codec is not its plan's.

    Raises:
        MisplacedOrderError: says what does not fit.
    """
    phase, phases = order.header.phase, schedule(order.plan)
    if order.header.round >= len(phases) or phases[order.header.round] != phase:
        raise MisplacedOrderError("the plan's schedule has no such phase in this round")
    if (order.header.codec is not None) != (phase in ("range", "sketch", "recover", "embed")):
        raise MisplacedOrderError("a codec comes with the phases that need one, and with no other")
    try:
        if order.header.codec is not None:
            _check_codec(order, order.header.codec)
    except (InputDataError, VerificationError) as error:
        raise MisplacedOrderError(str(error)) from error


def _check_codec(order: Order, text: str) -> None:
    codec = read_codec(text)
    if order.header.phase == "embed":
        if codec.identity != order.plan.embed.codec:
            raise VerificationError("the codec is not the one that the plan names")
    else:
        require_planned(codec, order.plan.pixels)
