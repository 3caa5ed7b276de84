"""A run's demands on the sites in a step, before they are written as an order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Ask:
    """The content of an order beside run, round, phase, plan, roster and the last sum.

    Attributes:
        codec: canonical JSON of the codec of pixels.
        beside: documents that travel beside the order in its parcel.
    """

    codec: str | None = None
    beside: Mapping[str, bytes] = field(default_factory=dict)
