"""Rules of records about pixels under a plan, for the door and again for intake.

Pure, like ``rules``, which calls these. Sums must be sums: a histogram that adds up,
a Gram matrix that some pixels of that many and that bright could have. Keys must be
of the codec, in order, and frequent enough to be named.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.keys.pixel_statistics import INTENSITY_BINS, RANGE_BINS, intensity_edges
from common.plan import Pixels
from common.wire.bounds import MAX_PIXELS, most_pixels, most_present
from common.wire.envelope import Array
from common.wire.expected import (
    Expected,
    exact_sum,
    require,
    require_array,
    require_filled,
    require_names,
    require_table,
    require_within,
)
from common.wire.records import GroupCounts, HeavyHitters, PixelSketches, PixelStatistics

MAX_SLIDES: Final = 10**6
MAX_GRAM: Final = 2**60
"""So that eight sites can be added below 2**63; 2**28 saturated pixels of 16 bits."""

I64 = NDArray[np.int64]


def check_statistics(
    record: PixelStatistics, arrays: Mapping[str, Array], expected: Expected
) -> None:
    """Require sums over enough slides and pixels, of the plan's shape, that pixels could have."""
    section = expected.plan.pixels
    subject = {"survey": "survey", "range": "ranges"}[expected.phase]
    require(record.subject == subject, "subject", subject, "another")
    _check_behind(record, expected)
    _check_codec(record.codec, expected)
    if subject == "ranges":
        require_names(arrays, "histogram")
        rows = _counts(arrays, "histogram", (section.components, RANGE_BINS))
        for row in rows:
            require(
                exact_sum(row) == record.pixels, "histogram", "each pixel once a row", "another sum"
            )
        return
    require_names(arrays, "gram", "histogram")
    histogram = _counts(arrays, "histogram", (INTENSITY_BINS,))
    require(exact_sum(histogram) == record.pixels, "histogram", "each pixel once", "another sum")
    gram = _counts(arrays, "gram", (len(section.bands), len(section.bands)))
    _check_gram(gram, histogram, record.pixels)


def check_sketches(record: PixelSketches, arrays: Mapping[str, Array], expected: Expected) -> None:
    """All views of one stream of enough keys, under the federation's key and codec."""
    section, limits = expected.plan.pixels, expected.plan.limits
    shape = (section.rows, section.columns)
    require((record.rows, record.columns) == shape, "rows, columns", "the plan's", "not")
    _check_behind(record, expected)
    _check_key(record.key_id, expected)
    _check_codec(record.codec, expected)
    require_names(arrays, *section.tables, "prefix_counts")
    for name in ("full", *section.prefix_tables):
        require_table(np.asarray(arrays[name]), name, shape, record.pixels)
    most = most_present(section, record.pixels)
    require_table(np.asarray(arrays["presence"]), "presence", shape, most)
    fill, cells = expected.floors.sketch_fill, limits.max_cells_per_input
    require_filled(np.asarray(arrays["full"]), "full", record.pixels, fill, cells)
    counts = _counts(arrays, "prefix_counts", (section.prefixes,))
    total = exact_sum(counts)
    require(total == record.pixels, "prefix_counts", "each pixel once", "another sum")


def check_hitters(record: HeavyHitters, arrays: Mapping[str, Array], expected: Expected) -> None:
    """Keys of the codec, each once and in order, none rarer than the plan lets be named."""
    section = expected.plan.pixels
    _check_key(record.key_id, expected)
    _check_codec(record.codec, expected)
    require_within(record.threshold, "threshold", section.key_pixels, MAX_PIXELS)
    require_names(arrays, "keys", "counts")
    size = arrays["keys"].size
    require(size <= section.top, "keys", f"at most {section.top}", "more")
    for name in ("keys", "counts"):
        require_array(arrays[name], name, "int64", (size,))
    keys = np.asarray(arrays["keys"]).view(np.uint64)
    require(bool((keys[1:] > keys[:-1]).all()), "keys", "ascending, each once", "another order")
    if size:
        in_range = int(keys[-1]) < section.keys
        require(in_range, "keys", "keys of the codec", "a larger one")
        counts = np.asarray(arrays["counts"])
        require_within(int(counts.min()), "counts", record.threshold, MAX_PIXELS)
        require_within(int(counts.max()), "counts", record.threshold, MAX_PIXELS)


def check_groups(record: GroupCounts, arrays: Mapping[str, Array], expected: Expected) -> None:
    """One count per group of the plan's codebook, none of a few pixels."""
    section = expected.plan.embed
    _check_behind(record, expected)
    _check_codec(record.codec, expected)
    require(record.codebook == section.codebook, "codebook", "the plan's", "another")
    require_names(arrays, "counts")
    counts = _counts(arrays, "counts", (1 + len(section.groups),))
    total, least = exact_sum(counts), expected.floors.group_pixels
    require(total <= record.pixels, "counts", "at most each pixel once", "more")
    large_enough = bool(((counts == 0) | (counts >= least)).all())
    require(large_enough, "counts", f"0 or at least {least} each", "a smaller count")


def _check_behind(
    record: PixelStatistics | PixelSketches | GroupCounts, expected: Expected
) -> None:
    require_within(record.slides, "slides", expected.floors.slides, MAX_SLIDES)
    require_within(record.pixels, "pixels", expected.floors.pixels, most_pixels(record.slides))


def _check_codec(codec: str, expected: Expected) -> None:
    agrees = expected.codec is None or codec == expected.codec
    require(agrees, "codec", "that of the order", "another")


def _check_key(key_id: str, expected: Expected) -> None:
    agrees = expected.key_id is None or key_id == expected.key_id
    require(agrees, "key_id", "that of the federation", "another")


def _counts(arrays: Mapping[str, Array], name: str, shape: tuple[int, ...]) -> I64:
    """Return an array of counts: of the right shape, none negative."""
    require_array(arrays[name], name, "int64", shape)
    counts: I64 = np.asarray(arrays[name])
    require(bool((counts >= 0).all()), name, "not negative", "a negative number")
    return counts


def _check_gram(gram: I64, histogram: I64, pixels: int) -> None:
    """Check a sum of outer products of that many 16-bit pixels, as bright as the histogram says."""
    require(np.array_equal(gram, gram.T), "gram", "symmetric", "not so")
    diagonal = [int(value) for value in gram.diagonal()]
    most = min(pixels * 65535**2, MAX_GRAM)
    require(max(diagonal) <= most, "gram", "at most pixels times the largest squared", "more")
    # Cauchy-Schwarz, in whole numbers of any size.
    rows = gram.astype(object)
    bound = np.outer(np.array(diagonal, object), np.array(diagonal, object))
    require(bool((rows * rows <= bound).all()), "gram", "inner products of bands", "more")
    low, high = (edges.astype(object) for edges in intensity_edges())
    used, trace = histogram.astype(object), sum(diagonal)
    agrees = int((used * low).sum()) <= trace <= int((used * high).sum())
    require(agrees, "gram", "as bright as the histogram", "another brightness")


def most_bytes(section: Pixels) -> int:
    """Array bytes of the largest record that the plan asks for."""
    sketches = 8 * (len(section.tables) * section.rows * section.columns + section.prefixes)
    statistics = 8 * (INTENSITY_BINS + len(section.bands) ** 2 + section.components * RANGE_BINS)
    return max(sketches, statistics, 16 * section.top)
