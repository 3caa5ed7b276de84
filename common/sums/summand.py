"""One record's part of the sum of its kind: a few counts and int64 arrays, in one order.

The counts are coordinates of the sum like all others, so that nobody can add a site's
table and leave out how many keys are behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.errors import InternalError, RefusedError
from common.wire.envelope import Envelope
from common.wire.records import (
    ErrorTables,
    ModelUpdate,
    PixelSketches,
    PixelStatistics,
    SketchTable,
)

I64 = NDArray[np.int64]
Summable = ModelUpdate | SketchTable | ErrorTables | PixelStatistics | PixelSketches

COUNTS: Final[Mapping[str, tuple[str, ...]]] = {
    ModelUpdate.__name__: ("samples",),
    SketchTable.__name__: ("total",),
    ErrorTables.__name__: ("total", "errors"),
    PixelStatistics.__name__: ("slides", "pixels"),
    PixelSketches.__name__: ("slides", "pixels"),
}
"""By record type: the fields of its header that are summed with its arrays."""


@dataclass(frozen=True, eq=False)
class Summand:
    """One vector of whole numbers, as counts and arrays.

    Attributes:
        counts: by name, in the order of ``COUNTS``.
        arrays: int64 of any shape, by name.
    """

    counts: Mapping[str, int]
    arrays: Mapping[str, I64]

    def pieces(self) -> Iterator[I64]:
        """Yield the vector: the counts first, then the arrays by name, each flat."""
        yield np.array(list(self.counts.values()), np.int64)
        for name in sorted(self.arrays):
            yield np.ascontiguousarray(self.arrays[name]).reshape(-1)


def is_summed(record_type: str) -> bool:
    """Tell whether records of this type are added up."""
    return record_type in COUNTS


def summand_of(envelope: Envelope) -> Summand:
    """Take from a record what it adds.

    A difference of weights counts as often as its samples: the sum is divided by the sum
    of the samples, and the mean is then weighted by them.

    Raises:
        InternalError: a record of a type that is not summed.
        RefusedError: an array that does not hold whole numbers, which alone add up exactly.
    """
    record = envelope.record
    if not isinstance(record, Summable):
        raise InternalError("not a record that is summed", got=record.record_type)
    for name, array in envelope.arrays.items():
        if array.dtype.kind not in "iu":
            raise RefusedError(
                "a record cannot be added",
                field=f"{record.record_type}/{name}",
                expected="whole numbers",
                got=str(array.dtype),
            )
    times = record.samples if isinstance(record, ModelUpdate) else 1
    return Summand(
        {name: int(getattr(record, name)) for name in COUNTS[record.record_type]},
        {
            name: times * np.asarray(array).astype(np.int64)
            for name, array in envelope.arrays.items()
        },
    )
