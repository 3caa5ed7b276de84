"""The form that a sum over some sites has by its plan: names and shapes, and the most it can be.

A sum's tags say whether it is what the sites sent; only holders of the federation key can
read them. What anybody can see is whether some sites could have sent it at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from common.errors import InternalError
from common.keys.pixel_statistics import INTENSITY_BINS, RANGE_BINS
from common.model import shared_shapes
from common.plan import FederationPlan
from common.plan.experience import MOST_ERROR
from common.schedule import Phase
from common.sums.addition import LARGEST, MOST_COUNTED
from common.wire.bounds import MAX_PIXELS, most_replays, most_transitions
from common.wire.labels import LABELS
from common.wire.pixel_rules import MAX_GRAM, MAX_SLIDES
from common.wire.records import (
    ErrorTables,
    ModelUpdate,
    PixelSketches,
    PixelStatistics,
    Record,
    SketchTable,
)
from common.wire.rules import summed_of

_INT32: Final = 2**31


@dataclass(frozen=True)
class Form:
    """The bounds of a sum of records of one type.

    Attributes:
        shapes: of the arrays, by name.
        counts: the most that each count can be.
        reach: what no coordinate of an array can exceed.
    """

    shapes: Mapping[str, tuple[int, ...]]
    counts: Mapping[str, int]
    reach: int


def forms_of(plan: FederationPlan, phase: Phase, samples: int, sites: int) -> dict[str, Form]:
    """Return the form of every group of a sum.

    Args:
        plan: of the run.
        phase: of the order.
        samples: that the sites may count as, all together.
        sites: how many there are.
    """
    return {
        kind.__name__: _form(kind, plan, phase, samples, sites) for kind in summed_of(plan, phase)
    }


def _form(kind: type[Record], plan: FederationPlan, phase: Phase, samples: int, sites: int) -> Form:
    shapes: dict[str, tuple[int, ...]]
    cells = (plan.experience.rows, plan.experience.columns)
    if kind is ModelUpdate:
        shapes = dict(shared_shapes(plan))
        if plan.tells_labels:
            shapes[LABELS] = (len(plan.space.labels),)
        return _bounded(shapes, {"samples": samples}, samples * _INT32)
    if kind is SketchTable:
        total = sites * most_transitions(plan, phase)
        return _bounded({"table": cells}, {"total": total}, total)
    if kind is ErrorTables:
        total = sites * most_replays(plan, phase)
        counts = {"total": total, "errors": MOST_ERROR * total}
        return _bounded({"replays": cells, "errors": cells}, counts, MOST_ERROR * total)
    counts = {"slides": sites * MAX_SLIDES, "pixels": sites * MAX_PIXELS}
    section = plan.pixels
    if kind is PixelStatistics:
        bands, histogram = len(section.bands), (INTENSITY_BINS,)
        if phase == "survey":
            shapes = {"histogram": histogram, "gram": (bands, bands)}
            return _bounded(shapes, counts, sites * MAX_GRAM)
        return _bounded({"histogram": (section.components, RANGE_BINS)}, counts, counts["pixels"])
    if kind is PixelSketches:
        tables = dict.fromkeys(section.tables, (section.rows, section.columns))
        shapes = {**tables, "prefix_counts": (section.prefixes,)}
        return _bounded(shapes, counts, counts["pixels"])
    raise InternalError("a record type that is summed and has no form", got=kind.__name__)


def _bounded(shapes: Mapping[str, tuple[int, ...]], counts: Mapping[str, int], reach: int) -> Form:
    most = {name: min(count, MOST_COUNTED - 1) for name, count in counts.items()}
    return Form(shapes, most, min(reach, LARGEST - 1))
