"""The agreement of a pixels plan's parties, and how its numbers become a codec.

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
from common.keys.pixel_bands import KIND as BAND_KIND
from common.keys.pixel_bands import BandCodec
from common.keys.pixel_projection import VERSION, PixelProjection
from common.keys.pixel_statistics import (
    INTENSITY_BINS,
    RANGE_BINS,
    RANGE_UNITS,
    ComponentRanges,
    PixelSurvey,
)
from common.keys.pixels import PixelCodec
from common.plan import FederationPlan, Pixels

MAX_CODEC_BYTES: Final = 1 << 19
AnyCodec = PixelCodec | BandCodec


def family(plan: FederationPlan) -> str:
    """Digest of how pixels will become keys; a site of another release has another one."""
    section = plan.pixels
    common = {
        "bands": list(section.bands),
        "codec": section.codec,
        "intensity_bins": INTENSITY_BINS,
        "kind": "pixel-family",
        "scale": section.value_scale,
        "version": VERSION,
    }
    if section.smoothing_thousandths:
        common["smoothing"] = section.smoothing_thousandths
    if section.codec == "all-bands":
        return sha256_hex(canonical_json(common | {"levels": section.levels}))
    reduced = {"bins": section.bins, "components": section.components, "range_bins": RANGE_BINS}
    return sha256_hex(canonical_json(common | reduced))


def fit_survey(section: Pixels, survey: PixelSurvey) -> AnyCodec:
    """Return the codec after the survey: final for all bands, to be narrowed for components.

    Raises:
        InputDataError: as ``fit_widest``.
    """
    if section.codec == "all-bands":
        return BandCodec.fit(survey, section.levels, section.floor or None)
    return fit_widest(section, survey)


def fit_widest(section: Pixels, survey: PixelSurvey) -> PixelCodec:
    """Fit the codec before its ranges are known: components as planned, ranges as wide as they get.

    Args:
        section: the plan's.
        survey: of all sites together.

    Raises:
        InputDataError: fewer independent bands than components, or no tissue found.
    """
    projection = PixelProjection.fit(survey, section.components, section.floor or None)
    ends = (RANGE_UNITS,) * section.components
    return PixelCodec(projection, tuple(-end for end in ends), ends, section.bins)


def fit_ranges(section: Pixels, widest: PixelCodec, ranges: ComponentRanges) -> PixelCodec:
    """Return the codec with its ranges frozen.

    Raises:
        InputDataError: ranges of another projection, or of no pixels.
    """
    return PixelCodec.fit(widest.projection, ranges, section.bins, section.tail)


def codec_text(codec: AnyCodec) -> str:
    """Return the codec as it travels: canonical JSON, whose SHA-256 is ``codec.identity``."""
    return canonical_json(codec.as_dict()).decode("utf-8")


def read_codec(text: str) -> AnyCodec:
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
    return codec_of(parse_canonical_json(data, "codec"))


def codec_of(value: object) -> AnyCodec:
    """Read what a codec's ``as_dict`` gave.

    Raises:
        InputDataError: not a codec.
    """
    if isinstance(value, dict) and value.get("kind") == BAND_KIND:
        return BandCodec.from_dict(value)
    return PixelCodec.from_dict(value)


def read_component_codec(text: str) -> PixelCodec:
    """Read what ``codec_text`` wrote of a codec of components.

    Raises:
        InputDataError: not a codec, or one of all bands.
        VerificationError: not canonical JSON.
    """
    codec = read_codec(text)
    if not isinstance(codec, PixelCodec):
        raise InputDataError(
            "not a codec with ranges", field="codec", expected="components", got="all bands"
        )
    return codec


def require_planned(codec: AnyCodec, section: Pixels) -> None:
    """Refuse a codec that is not of the plan's form.

    Raises:
        InputDataError: another kind, other bands, scale, smoothing, components, bins or levels.
    """
    if isinstance(codec, BandCodec):
        kind, digits = "all-bands", (len(codec.bands), codec.levels)
    else:
        kind, digits = "reduced", (len(codec.low), codec.bins)
    if (kind, codec.bands, codec.scale, codec.smoothing, digits) != (
        section.codec,
        section.bands,
        section.value_scale,
        section.smoothing_thousandths,
        section.digits,
    ):
        raise InputDataError(
            "not the codec of this plan",
            field="codec, bands, value_scale, smoothing, components, bins, levels",
            expected="the plan's",
            got="others",
        )
