"""What the parties of a pixels plan must agree on, and how the numbers become a codec.

Before there is a codec, sites agree on its family: bands, components, bins and the
way pixels are summed. From the summed statistics everybody would fit the same
projection and freeze the same ranges; the aggregator does it, and the codec then
travels as canonical JSON whose SHA-256 is the domain of every sketch. No pixel is
read here, and nothing is counted.
"""

from __future__ import annotations

from typing import Final

from common.canonical import canonical_json, parse_canonical_json, sha256_hex
from common.errors import InputDataError
from common.keys.pixel_statistics import (
    INTENSITY_BINS,
    RANGE_BINS,
    RANGE_UNITS,
    ComponentRanges,
    PixelSurvey,
)
from common.keys.pixels import VERSION, PixelCodec, PixelProjection
from common.plan import FederationPlan, Pixels

MAX_CODEC_BYTES: Final = 1 << 19


def family(plan: FederationPlan) -> str:
    """Digest of how pixels will become keys; a site of another release has another one."""
    asked = plan.pixels
    return sha256_hex(
        canonical_json(
            {
                "bands": list(asked.bands),
                "bins": asked.bins,
                "codec": asked.codec,
                "components": asked.components,
                "intensity_bins": INTENSITY_BINS,
                "kind": "pixel-family",
                "range_bins": RANGE_BINS,
                "scale": asked.value_scale,
                "version": VERSION,
            }
        )
    )


def fit_widest(asked: Pixels, survey: PixelSurvey) -> PixelCodec:
    """The codec before its ranges are known: components as planned, ranges as wide as they get.

    Args:
        asked: the plan's.
        survey: of all sites together.

    Raises:
        InputDataError: fewer independent bands than components, or no tissue found.
    """
    projection = PixelProjection.fit(survey, asked.components, asked.floor or None)
    ends = (RANGE_UNITS,) * asked.components
    return PixelCodec(projection, tuple(-end for end in ends), ends, asked.bins)


def fit_ranges(asked: Pixels, widest: PixelCodec, ranges: ComponentRanges) -> PixelCodec:
    """The codec with its ranges frozen.

    Raises:
        InputDataError: ranges of another projection, or of no pixels.
    """
    return PixelCodec.fit(widest.projection, ranges, asked.bins, asked.tail)


def codec_text(codec: PixelCodec) -> str:
    """The codec as it travels: canonical JSON, whose SHA-256 is ``codec.identity``."""
    return canonical_json(codec.as_dict()).decode("utf-8")


def read_codec(text: str) -> PixelCodec:
    """Read what ``codec_text`` wrote.

    Raises:
        InputDataError: not a codec.
        VerificationError: not canonical JSON.
    """
    data = text.encode("utf-8")
    if len(data) > MAX_CODEC_BYTES:
        raise InputDataError(
            "not a codec of pixels",
            field="codec",
            expected=f"at most {MAX_CODEC_BYTES} bytes",
            got=f"{len(data)} bytes",
        )
    return PixelCodec.from_dict(parse_canonical_json(data, "codec"))


def require_planned(codec: PixelCodec, asked: Pixels) -> None:
    """Refuse a codec that is not of the plan's form.

    Raises:
        InputDataError: other bands, scale, components or bins.
    """
    found = (codec.projection.bands, codec.projection.scale, len(codec.low), codec.bins)
    if found != (asked.bands, asked.value_scale, asked.components, asked.bins):
        raise InputDataError(
            "not the codec of this plan",
            field="bands, value_scale, components, bins",
            expected="the plan's",
            got="others",
        )
