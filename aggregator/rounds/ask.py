"""What the work of a run wants asked of the sites in a step, before it is written as an order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from common.wire.envelope import Array


@dataclass(frozen=True)
class Ask:
    """What an order holds beside run, round, phase and plan.

    Attributes:
        weights: of the model.
        sketch: merged experience table.
        sketch_total: keys behind it.
        codec: canonical JSON of the codec of pixels.
        tables: merged tables of pixels.
        beside: documents that travel beside the order in its parcel.
    """

    weights: Mapping[str, Array] = field(default_factory=dict)
    sketch: Array | None = None
    sketch_total: int = 0
    codec: str | None = None
    tables: Mapping[str, Array] = field(default_factory=dict)
    beside: Mapping[str, bytes] = field(default_factory=dict)
