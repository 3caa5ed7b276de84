"""Sums and sketches of different sites' pixels, added without being able to query them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from aggregator.merging.tables import add_tables
from common.errors import InternalError, RefusedError
from common.keys.pixel_statistics import ComponentRanges, PixelSurvey
from common.keys.pixels import PixelCodec
from common.plan import Pixels
from common.sketching import SketchSpec
from common.wire.envelope import Envelope
from common.wire.records import PixelStatistics


def add_surveys(asked: Pixels, envelopes: Sequence[Envelope]) -> PixelSurvey:
    """The survey of all sites' pixels.

    Raises:
        InputDataError: sums beyond 63 bits.
        InternalError: no surveys: intake should have refused.
    """
    bands, scale = asked.bands, asked.value_scale
    parts = [
        PixelSurvey(bands, scale, _pixels(e), _counts(e, "histogram"), _counts(e, "gram"))
        for e in envelopes
    ]
    return reduce(add, parts, PixelSurvey.empty(bands, scale))


def add_ranges(codec: PixelCodec, envelopes: Sequence[Envelope]) -> ComponentRanges:
    """The ranges of all sites' tissue.

    Raises:
        InternalError: no ranges: intake should have refused.
    """
    identity = codec.projection.identity
    parts = [ComponentRanges(identity, _pixels(e), _counts(e, "histogram")) for e in envelopes]
    return reduce(add, parts, ComponentRanges.empty(identity, len(codec.low)))


def add_pixel_tables(
    asked: Pixels, key_id: str, identity: str, envelopes: Sequence[Envelope]
) -> dict[str, NDArray[np.int64]]:
    """The views of all sites' pixels, by name.

    Args:
        asked: the plan's.
        key_id: public name of the sites' key, which is not known here.
        identity: of the codec.
        envelopes: of the sites.

    Raises:
        RefusedError: a sum would leave the range of int64.
    """
    rungs = zip(asked.prefix_tables, asked.ladder[1:], strict=True)
    domains = {
        "full": identity,
        **{name: f"{identity}/prefix-{digits}" for name, digits in rungs},
        "presence": f"{identity}/presence",
    }
    merged: dict[str, NDArray[np.int64]] = {}
    for name, domain in domains.items():
        spec = SketchSpec.public(asked.rows, asked.columns, key_id=key_id, domain=domain)
        merged[name] = add_tables(spec, None, [_counts(e, name) for e in envelopes])
    prefixes = [_counts(e, "prefix_counts") for e in envelopes]
    if sum(int(counts.max()) for counts in prefixes) >= 2**62:
        raise RefusedError("merged prefix counts would overflow", expected="sums below 2^62")
    merged["prefix_counts"] = np.sum(prefixes, axis=0, dtype=np.int64)
    return merged


def _counts(envelope: Envelope, name: str) -> NDArray[np.int64]:
    return np.asarray(envelope.arrays[name], dtype=np.int64)


def _pixels(envelope: Envelope) -> int:
    if not isinstance(envelope.record, PixelStatistics):
        raise InternalError("not statistics of pixels", got=envelope.record.record_type)
    return envelope.record.pixels
