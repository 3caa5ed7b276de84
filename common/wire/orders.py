"""What the aggregator asks of a site: one signed order per round.

An order carries the whole plan as data and what the round starts from: the
current weights and the merged experience sketch, or the codec of pixels and the
merged tables. A codebook travels beside it in the parcel and is named by its
digest in the plan. An order is signed by the aggregator's witness key, because
the courier that hands it to the worker is not trusted with more than carrying.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.canonical import parse_canonical_json
from common.errors import RefusedError
from common.plan import FederationPlan, describe_validation, parse_plan
from common.schedule import Phase
from common.wire.envelope import Array, pack, unpack
from common.wire.records import Count, RunName

SIGNATURE_CONTEXT = b"cairn/order/v1\n"
WEIGHT_PREFIX = "weight/"
SKETCH_NAME = "experience/table"
PIXEL_PREFIX = "pixels/"


class OrderHeader(BaseModel):
    """The words of an order.

    Attributes:
        phase: ``begin`` asks for the digest of the initial weights; ``train`` for an
            evaluation of the given weights and a round of training; ``evaluate`` for the
            evaluation alone; the other phases are those of ``common.schedule``.
        round: 0 for ``begin``.
        plan: canonical JSON of the plan.
        deadline_s: seconds after which the aggregator stops waiting.
        sketch_total: keys behind the merged experience table.
        codec: canonical JSON of the codec of pixels, once there is one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    v: Literal[1] = 1
    message: Literal["Order"] = "Order"
    run: RunName
    round: Count
    phase: Phase
    plan: str
    deadline_s: Annotated[int, Field(ge=1, le=86_400)]
    sketch_total: Count = 0
    codec: str | None = None


@dataclass(frozen=True)
class Order:
    """A decoded order.

    Attributes:
        weights: float32 arrays of the global model by name; empty in phase ``begin``.
        sketch: merged experience table int64[rows, columns], or None before the first.
        tables: merged tables of pixels by name; empty but in phase ``recover``.
        codebook: the bytes that came beside the order, digest checked; None without any.
    """

    header: OrderHeader
    plan: FederationPlan
    weights: Mapping[str, Array]
    sketch: Array | None
    tables: Mapping[str, Array] = field(default_factory=dict)
    codebook: bytes | None = None


def encode_order(
    header: OrderHeader,
    weights: Mapping[str, Array],
    sketch: Array | None,
    tables: Mapping[str, Array] | None = None,
) -> bytes:
    """Order bytes; the same for every site of a round."""
    arrays = {WEIGHT_PREFIX + name: array for name, array in weights.items()}
    arrays |= {PIXEL_PREFIX + name: array for name, array in (tables or {}).items()}
    if sketch is not None:
        arrays[SKETCH_NAME] = sketch
    return pack(header.model_dump(mode="json", exclude_none=True), arrays)


def decode_order(data: bytes) -> Order:
    """Read an order whose signature has been checked.

    Raises:
        RefusedError: not an order, unknown field, unknown array.
        InputDataError: the plan inside is not valid.
    """
    metadata, arrays = unpack(data)
    try:
        header = OrderHeader.model_validate(metadata)
    except ValidationError as error:
        field, expected, got = describe_validation(error)
        raise RefusedError("an order is not valid", field=field, expected=expected, got=got) from (
            error
        )
    plan = parse_plan(parse_canonical_json(header.plan.encode("utf-8"), "order.plan"))
    sketch = arrays.pop(SKETCH_NAME, None)
    weights = _below(WEIGHT_PREFIX, arrays)
    tables = _below(PIXEL_PREFIX, arrays)
    strangers = len(arrays) - len(weights) - len(tables)
    if strangers:
        raise RefusedError(
            "an order carries an unknown array",
            expected=f"{WEIGHT_PREFIX}…, {PIXEL_PREFIX}… or {SKETCH_NAME}",
            got=f"{strangers} other names",
        )
    return Order(header, plan, weights, sketch, tables)


def _below(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
