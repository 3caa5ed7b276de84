"""What the aggregator asks of a site: one signed order per round.

An order carries the whole plan as data, the current weights and the merged
experience sketch. It is signed by the aggregator's witness key, because the
courier that hands it to the worker is not trusted with more than carrying.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.canonical import parse_canonical_json
from common.errors import RefusedError
from common.plan import FederationPlan, describe_validation, parse_plan
from common.wire.envelope import Array, pack, unpack
from common.wire.records import Count, RunName

SIGNATURE_CONTEXT = b"cairn/order/v1\n"
WEIGHT_PREFIX = "weight/"
SKETCH_NAME = "experience/table"


class OrderHeader(BaseModel):
    """The words of an order.

    Attributes:
        phase: ``begin`` asks for the digest of the initial weights; ``train`` for an
            evaluation of the given weights and a round of training; ``evaluate`` for the
            evaluation alone.
        round: 0 for ``begin``.
        plan: canonical JSON of the plan.
        deadline_s: seconds after which the aggregator stops waiting.
        sketch_total: keys behind the merged experience table.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    v: Literal[1] = 1
    message: Literal["Order"] = "Order"
    run: RunName
    round: Count
    phase: Literal["begin", "train", "evaluate"]
    plan: str
    deadline_s: Annotated[int, Field(ge=1, le=86_400)]
    sketch_total: Count = 0


@dataclass(frozen=True)
class Order:
    """A decoded order.

    Attributes:
        weights: float32 arrays of the global model by name; empty in phase ``begin``.
        sketch: merged experience table int64[rows, columns], or None before the first.
    """

    header: OrderHeader
    plan: FederationPlan
    weights: Mapping[str, Array]
    sketch: Array | None


def encode_order(header: OrderHeader, weights: Mapping[str, Array], sketch: Array | None) -> bytes:
    """Order bytes; the same for every site of a round."""
    arrays = {WEIGHT_PREFIX + name: array for name, array in weights.items()}
    if sketch is not None:
        arrays[SKETCH_NAME] = sketch
    return pack(header.model_dump(mode="json"), arrays)


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
    strangers = [name for name in arrays if not name.startswith(WEIGHT_PREFIX)]
    if strangers:
        raise RefusedError(
            "an order carries an unknown array",
            expected=f"{WEIGHT_PREFIX}… or {SKETCH_NAME}",
            got=f"{len(strangers)} other names",
        )
    weights = {name.removeprefix(WEIGHT_PREFIX): array for name, array in arrays.items()}
    return Order(header, plan, weights, sketch)
