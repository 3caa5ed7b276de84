"""Laws of smoothing, by its definition on whole images; and how codecs carry it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from common.errors import InputDataError
from common.keys.pixel_agreement import (
    codec_of,
    codec_text,
    family,
    fit_survey,
    read_codec,
    require_planned,
)
from common.keys.pixel_projection import PixelProjection
from common.keys.pixel_statistics import INTENSITY_BINS, PixelSurvey, intensity_bins
from common.keys.smoothing import MOST, UNIT, smooth, weights_of
from common.plan import parse_plan

BANDS = ("a", "b", "c", "d")
ANY = st.integers(1, MOST)


@given(ANY)
def test_weights_fall_outwards_and_both_sides_add_up_to_one_exactly(smoothing):
    inner, *outer = weights_of(smoothing)
    assert inner + 2 * sum(outer) == UNIT
    # Roundings of the outer weights gather in the inner one.
    falling = [inner + len(outer), *outer]
    assert falling == sorted(falling, reverse=True)
    assert min(falling) >= 0


@given(ANY, st.integers(0, 65535), st.integers(1, 9), st.integers(1, 9))
def test_a_constant_image_stays_as_it_is_up_to_its_edges(smoothing, value, rows, columns):
    image = np.full((rows, columns, 2), value, np.uint16)
    np.testing.assert_array_equal(smooth(image, smoothing), image)


@given(ANY, st.integers(0, 2**32))
def test_the_smoothed_sum_of_two_images_is_the_sum_of_the_smoothed(smoothing, seed):
    rng = np.random.default_rng(seed)
    one, other = rng.integers(0, 2**15, (2, 7, 6, 3)).astype(np.uint16)
    both = smooth(one, smoothing).astype(np.float64) + smooth(other, smoothing)
    np.testing.assert_allclose(smooth(one + other, smoothing), both, rtol=3e-7)


def test_it_is_the_gaussian_that_everybody_knows():
    image = np.random.default_rng(3).integers(0, 256, (40, 31, 2)).astype(np.uint8)
    known = gaussian_filter(image.astype(np.float64), (2.0, 2.0, 0.0))
    np.testing.assert_allclose(smooth(image, 2000), known, atol=0.02)


def test_it_is_what_the_benchmarks_of_tissue_blurred_by_but_for_roundings():
    counts = np.random.default_rng(4).poisson(0.7, (120, 90)).astype(np.uint8)
    theirs = np.rint(16 * gaussian_filter(counts.astype(np.float32), 2.0))
    ours = np.rint(16 * smooth(counts[..., None], 2000)[..., 0].astype(np.float64))
    assert np.abs(ours - theirs).max() <= 1
    assert (ours != theirs).mean() < 1e-3


@pytest.mark.parametrize("smoothing", [0, -1, MOST + 1, True, 2.0])
def test_no_other_number_is_a_smoothing(smoothing):
    with pytest.raises(InputDataError, match="smoothing"):
        weights_of(smoothing)


def plan_of(**change):
    section = {"bands": BANDS, "components": 3, "bins": 5, **change}
    return parse_plan({"name": "p", "kind": "pixels", "seed": 1, "pixels": section})


def survey_of(smoothing):
    pixels = np.random.default_rng(5).integers(0, 200, (500, 4)).astype(np.int64)
    histogram = np.bincount(
        intensity_bins(np.square(pixels).sum(1).astype(np.float64)), minlength=INTENSITY_BINS
    )
    return PixelSurvey(BANDS, 1, 500, histogram.astype(np.int64), pixels.T @ pixels, smoothing)


@pytest.mark.parametrize("kind", [{}, {"codec": "all-bands"}])
def test_a_codec_carries_its_smoothing_and_says_nothing_of_none(kind):
    section = {"floor": 100, **(kind or {"components": 3})}
    plans = [parse_plan(_plan(section | {"smoothing": s})) for s in (0.0, 1.5)]
    plain, smoothed = (
        fit_survey(plan.pixels, survey_of(plan.pixels.smoothing_thousandths)) for plan in plans
    )
    assert (plain.smoothing, smoothed.smoothing) == (0, 1500)
    assert "smoothing" not in codec_text(plain)
    assert plain.identity != smoothed.identity
    assert family(plans[0]) != family(plans[1])
    assert read_codec(codec_text(smoothed)).identity == smoothed.identity
    require_planned(smoothed, plans[1].pixels)
    for codec, plan in ((plain, plans[1]), (smoothed, plans[0])):
        with pytest.raises(InputDataError, match="not the codec of this plan"):
            require_planned(codec, plan.pixels)


def _plan(section):
    return {"name": "p", "kind": "pixels", "seed": 1, "pixels": {"bands": BANDS, **section}}


@pytest.mark.parametrize("kind", [{}, {"codec": "all-bands"}])
def test_a_codec_that_spells_out_no_smoothing_is_no_codec(kind):
    plan = parse_plan(_plan({"floor": 100, **(kind or {"components": 3})}))
    codec = fit_survey(plan.pixels, survey_of(0))
    spelt = codec.as_dict()
    inner = spelt if kind else spelt["projection"]
    for wrong in (0, False, -5, 2.5, MOST + 1):
        inner["smoothing"] = wrong
        with pytest.raises(InputDataError):
            codec_of(spelt)


def test_surveys_of_two_smoothings_are_not_added_and_ranges_know_theirs():
    with pytest.raises(InputDataError, match="smoothing"):
        survey_of(0) + survey_of(1000)
    plain, smoothed = (PixelProjection.fit(survey_of(s), 3, 100) for s in (0, 1000))
    assert plain.identity != smoothed.identity


def test_a_plan_smooths_by_thousandths_of_a_pixel_up_to_five_and_by_default_not_at_all():
    assert plan_of().pixels.smoothing_thousandths == 0
    assert "smoothing" not in plan_of().model_dump()["pixels"]
    assert plan_of(smoothing=0.0).fingerprint == plan_of().fingerprint
    assert plan_of(smoothing=2.0).fingerprint != plan_of().fingerprint
    assert plan_of(smoothing=0.07).pixels.smoothing_thousandths == 70
    for wrong in (-0.1, 5.1, 1.0005):
        with pytest.raises(InputDataError):
            plan_of(smoothing=wrong)
