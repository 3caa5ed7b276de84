"""Records that a plan has a site send: which, how often, and how large at most.

Sizes follow from the plan alone. They bound whole envelopes, header included, and
none can exceed the plan's own ``limits.max_envelope_bytes``: the door refuses more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from common.cli import counted
from common.keys.pixel_statistics import INTENSITY_BINS, RANGE_BINS
from common.model import shared_shapes, weight_shapes
from common.plan import FederationPlan
from common.schedule import Phase, schedule
from common.wire.records import PARTS
from common.wire.rules import answers_of
from common.words.kind import words_of

WEIGHT_BYTES: Final = 4
_HEADER_BYTES: Final = 2048
_BYTES_PER_ARRAY: Final = 256
_BYTES_PER_ERROR: Final = 380
"""Generous shares of an envelope's header; the longest landmark name is 64 characters."""

_HOLDS: Final[Mapping[str, str]] = {
    "ModelUpdate": "what training changed in {weights} weights, and how many "
    "images, transitions and updates stand behind it{labels}",
    "SketchTable": "counts of the situations met, by their {by}, in {rows} x {columns} hashed "
    "cells, and how many were counted",
    "ErrorTables": "counts of the situations replayed, by their {by}, in {rows} x {columns} hashed "
    "cells, and how wrong the network was there",
    "PixelStatistics": "sums over all pixels: how bright they are, how bands go together, how "
    "far components reach",
    "PixelSketches": "counts of quantised pixels in {tables} sketches of {rows} x {columns} "
    "hashed cells, and of short prefixes",
    "HeavyHitters": "at most {top:,} frequent quantised pixels of the whole federation, with "
    "their counts",
    "GroupCounts": "pixels per group of the codebook",
}


@dataclass(frozen=True)
class Leaving:
    """One type of record that a plan has a site send.

    Attributes:
        record: its type.
        holds: what is in it, one clause.
        phases: in which it leaves, in the order of the plan.
        times: in how many rounds.
        array_bytes: of the largest one's arrays.
        most_bytes: of the largest whole envelope.
    """

    record: str
    holds: str
    phases: tuple[Phase, ...]
    times: int
    array_bytes: int
    most_bytes: int

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return asdict(self)


def leavings(plan: FederationPlan) -> tuple[Leaving, ...]:
    """Every type of record that a run of ``plan`` asks of a site, first to leave first."""
    rounds = schedule(plan)
    types = dict.fromkeys(kind.__name__ for phase in rounds for kind in answers_of(plan, phase))
    return tuple(_leaving(plan, name, rounds) for name in types)


def most_in_a_round(plan: FederationPlan) -> int:
    """Envelope bytes of the largest round."""
    records = leavings(plan)
    return max(
        sum(each.most_bytes for each in records if phase in each.phases) for phase in schedule(plan)
    )


def most_in_a_run(plan: FederationPlan) -> int:
    """Envelope bytes of all rounds together."""
    return sum(each.times * each.most_bytes for each in leavings(plan))


def weights_of(plan: FederationPlan) -> int:
    """Count the weights of the plan's network."""
    return sum(math.prod(shape) for shape in weight_shapes(plan).values())


def sent_weights_of(plan: FederationPlan) -> int:
    """Count the weights that sites add up; without heads that the plan keeps private."""
    return sum(math.prod(shape) for shape in shared_shapes(plan).values())


def weights_bytes(plan: FederationPlan) -> int:
    """Size of the weights that cross; 0 for a plan without a network."""
    return WEIGHT_BYTES * sent_weights_of(plan) if plan.trains else 0


def _leaving(plan: FederationPlan, name: str, rounds: tuple[Phase, ...]) -> Leaving:
    answers = [p for p in rounds if name in (k.__name__ for k in answers_of(plan, p))]
    arrays, count = _arrays(plan, name)
    errors = len(plan.space.labels) if plan.trains else 0
    header = _HEADER_BYTES + count * _BYTES_PER_ARRAY
    if name == "RoundReport":
        header += len(PARTS) * errors * _BYTES_PER_ERROR
    return Leaving(
        record=name,
        holds=_holds(plan, name),
        phases=tuple(dict.fromkeys(answers)),
        times=len(answers),
        array_bytes=arrays,
        most_bytes=min(arrays + header, plan.limits.max_envelope_bytes),
    )


def _arrays(plan: FederationPlan, name: str) -> tuple[int, int]:
    """Bytes of a record's arrays at most, and how many arrays."""
    section = plan.pixels
    match name:
        case "ModelUpdate":
            labels = len(plan.space.labels) if plan.tells_labels else 0
            arrays = len(shared_shapes(plan)) + bool(labels)
            return WEIGHT_BYTES * (sent_weights_of(plan) + labels), arrays
        case "SketchTable":
            return plan.table_bytes, 1
        case "ErrorTables":
            return plan.table_bytes, 2
        case "PixelStatistics":
            survey = INTENSITY_BINS + len(section.bands) ** 2
            ranges = 0 if section.codec == "all-bands" else section.components * RANGE_BINS
            return 8 * max(survey, ranges), 2
        case "PixelSketches":
            cells = len(section.tables) * section.rows * section.columns + section.prefixes
            return 8 * cells, len(section.tables) + 1
        case "HeavyHitters":
            return 16 * section.top, 2
        case "GroupCounts":
            return 8 * (1 + len(plan.embed.groups)), 1
        case _:
            return 0, 0


def _sent(plan: FederationPlan) -> str:
    """Say which weights an update is about."""
    if not plan.network.private_heads:
        return f"the network's {weights_of(plan):,}"
    return f"the {sent_weights_of(plan):,} shared ones of the network's {weights_of(plan):,}"


def _holds(plan: FederationPlan, name: str) -> str:
    match name:
        case "ModelUpdate":
            labels = ""
            if plan.tells_labels:
                labels = f"; which of {counted(len(plan.space.labels), 'label')} the site trained"
            return _HOLDS[name].format(weights=_sent(plan), labels=labels)
        case "SketchTable" | "ErrorTables":
            cells = plan.experience
            by = "way from the target" if cells.key == "offset" else "place in the image"
            return _HOLDS[name].format(rows=cells.rows, columns=cells.columns, by=by)
        case "PixelSketches":
            section = plan.pixels
            return _HOLDS[name].format(
                tables=len(section.tables), rows=section.rows, columns=section.columns
            )
        case "HeavyHitters":
            return _HOLDS[name].format(top=plan.pixels.top)
        case "RoundReport":
            return words_of(plan).report
        case _:
            return _HOLDS[name]
