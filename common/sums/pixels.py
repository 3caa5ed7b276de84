"""The codec of pixels that follows from the sites' sums, and the check of one that came.

The aggregator fits a codec and every site checks it against the sums that it verified
itself. Principal directions come out of an eigenvalue solver, whose last bits depend on
the processor; so a site does not ask for its own bits but for the same directions to a
millionth, and for the very same numbers in everything else.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from common.errors import RefusedError
from common.keys.pixel_agreement import AnyCodec, codec_text, fit_ranges, fit_survey
from common.keys.pixel_projection import UNIT
from common.keys.pixel_statistics import ComponentRanges, PixelSurvey
from common.keys.pixels import PixelCodec
from common.plan import Pixels
from common.sums.summand import Summand

TOLERANCE: Final = UNIT // 10**6
"""Of a direction's entries, in units of the projection's fixed point."""


def survey_of(section: Pixels, total: Summand) -> PixelSurvey:
    """Return the survey that a sum of ``PixelStatistics`` is.

    Raises:
        InputDataError: numbers that contradict each other.
    """
    arrays = total.arrays
    return PixelSurvey(
        section.bands,
        section.value_scale,
        total.counts["pixels"],
        arrays["histogram"],
        arrays["gram"],
        section.smoothing_thousandths,
    )


def ranges_of(codec: PixelCodec, total: Summand) -> ComponentRanges:
    """Return the ranges that a sum of ``PixelStatistics`` is.

    Raises:
        InputDataError: numbers that contradict each other.
    """
    identity = codec.projection.identity
    return ComponentRanges(identity, total.counts["pixels"], total.arrays["histogram"])


def require_fitted(
    codec: AnyCodec, section: Pixels, survey: Summand, ranges: Summand | None
) -> None:
    """Refuse a codec that does not follow from the sums.

    Args:
        codec: as it came with an order.
        section: the plan's.
        survey: verified sum of the survey.
        ranges: verified sum of the ranges, once there is one.

    Raises:
        RefusedError: another codec.
        InputDataError: sums from which none follows.
    """
    widest = fit_survey(section, survey_of(section, survey))
    if not isinstance(widest, PixelCodec) or not isinstance(codec, PixelCodec):
        _require(codec_text(widest) == codec_text(codec), "codec", "what follows from the survey")
        return
    theirs, ours = codec.projection, widest.projection
    fixed = (theirs.bands, theirs.scale, theirs.smoothing, theirs.floor, theirs.weights.shape)
    _require(
        fixed == (ours.bands, ours.scale, ours.smoothing, ours.floor, ours.weights.shape),
        "codec.projection",
        "bands, scale, smoothing and floor that follow from the survey",
    )
    apart = np.abs(theirs.weights.astype(np.int64) - ours.weights).max(initial=0)
    _require(int(apart) <= TOLERANCE, "codec.weights", "the survey's principal directions")
    expected = widest if ranges is None else fit_ranges(section, codec, ranges_of(codec, ranges))
    ends = (expected.low, expected.high, expected.bins)
    _require((codec.low, codec.high, codec.bins) == ends, "codec.low, codec.high", "the ranges'")


def _require(holds: bool, field: str, expected: str) -> None:
    if not holds:
        raise RefusedError(
            "a codec does not follow from what the sites sent",
            field=field,
            expected=expected,
            got="another",
        )
