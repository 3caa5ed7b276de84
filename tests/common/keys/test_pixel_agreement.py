"""From everybody's sums to one codec that travels as text."""

import json

import numpy as np
import pytest

from common.errors import CairnError, InputDataError
from common.keys.pixel_agreement import (
    MAX_CODEC_BYTES,
    codec_text,
    family,
    fit_ranges,
    fit_widest,
    read_codec,
    require_planned,
)
from common.keys.pixel_statistics import (
    INTENSITY_BINS,
    RANGE_BINS,
    RANGE_UNITS,
    ComponentRanges,
    PixelSurvey,
    intensity_bins,
)
from common.plan import parse_plan

BANDS = ("a", "b", "c", "d")


def plan_of(**changes):
    section = {"bands": BANDS, "components": 3, "bins": 6, "floor": 1000} | changes
    return parse_plan({"name": "p", "seed": 1, "kind": "pixels", "pixels": section})


@pytest.fixture
def survey():
    pixels = np.random.default_rng(3).integers(20, 5000, (500, 4)).astype(np.int64)
    squared = np.square(pixels).sum(axis=1).astype(np.float64)
    histogram = np.bincount(intensity_bins(squared), minlength=INTENSITY_BINS)
    return PixelSurvey(BANDS, 1, 500, histogram, pixels.T @ pixels)


@pytest.fixture
def widest(survey):
    return fit_widest(plan_of().pixels, survey)


def test_before_ranges_are_known_they_are_as_wide_as_they_get(widest):
    assert widest.low == (-RANGE_UNITS,) * 3
    assert widest.high == (RANGE_UNITS,) * 3
    assert (widest.bins, widest.projection.floor) == (6, 1000)


def test_a_codec_is_read_back_as_it_was_written_and_is_named_by_its_digest(widest):
    from common.canonical import sha256_hex

    text = codec_text(widest)
    assert codec_text(read_codec(text)) == text
    assert sha256_hex(text.encode()) == widest.identity == read_codec(text).identity


def test_ranges_of_all_sites_freeze_the_codec(widest):
    histogram = np.zeros((3, RANGE_BINS), np.int64)
    histogram[:, 2000:3000] = 1
    ranges = ComponentRanges(widest.projection.identity, 1000, histogram)
    codec = fit_ranges(plan_of().pixels, widest, ranges)
    assert codec.projection.identity == widest.projection.identity
    assert (codec.low[0], codec.high[0]) == (2000 - RANGE_UNITS, 3000 - RANGE_UNITS)
    assert codec.identity != widest.identity
    narrow = fit_ranges(plan_of(tail=0.1).pixels, widest, ranges)
    assert narrow.high[0] - narrow.low[0] < codec.high[0] - codec.low[0]


def test_the_floor_is_found_when_the_plan_gives_none(survey):
    rng = np.random.default_rng(4)
    dim = rng.integers(3, 7, (5000, 4)).astype(np.int64)
    squared = np.square(dim).sum(axis=1).astype(np.float64)
    histogram = survey.histogram + np.bincount(intensity_bins(squared), minlength=INTENSITY_BINS)
    both = PixelSurvey(BANDS, 1, 5500, histogram, survey.gram + dim.T @ dim)
    floor = fit_widest(plan_of(floor=0).pixels, both).projection.floor
    assert squared.max() < floor < 1_000_000


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"kind": "pixel-components"}', "x" * 9])
def test_a_text_that_is_no_codec_is_refused(text):
    with pytest.raises(CairnError):
        read_codec(text)


def test_a_codec_that_is_far_too_long_is_not_even_parsed():
    with pytest.raises(InputDataError, match="at most"):
        read_codec("[" * (MAX_CODEC_BYTES + 1))


def test_another_spelling_of_a_codec_is_refused(widest):
    loose = json.dumps(json.loads(codec_text(widest)))
    with pytest.raises(CairnError):
        read_codec(loose)


@pytest.mark.parametrize(
    "change", [{"bins": 7}, {"components": 4}, {"value_scale": 2}, {"bands": (*BANDS[:3], "e")}]
)
def test_a_codec_that_is_not_of_the_plans_form_is_refused(widest, change):
    require_planned(widest, plan_of().pixels)
    with pytest.raises(InputDataError, match="not the codec of this plan"):
        require_planned(widest, plan_of(**change).pixels)


@pytest.mark.parametrize(
    "change", [{"bins": 7}, {"components": 4}, {"value_scale": 2}, {"bands": BANDS[::-1]}]
)
def test_what_must_be_equal_before_sums_are_added_is_in_the_family(change):
    assert family(plan_of()) != family(plan_of(**change))
    assert family(plan_of()) == family(plan_of(key_pixels=99))
