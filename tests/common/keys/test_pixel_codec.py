"""Pixels as keys: statistics that add up, one key per pixel on every machine, and back."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.canonical import canonical_json
from common.errors import InputDataError
from common.keys.background import background_floor
from common.keys.pixel_projection import UNIT, PixelProjection
from common.keys.pixel_statistics import (
    INTENSITY_BINS,
    RANGE_BINS,
    RANGE_UNITS,
    ComponentRanges,
    PixelSurvey,
    as_integers,
    intensity_bins,
    intensity_edges,
)
from common.keys.pixels import PixelCodec

UNTIMED = settings(deadline=None)
BANDS = ("a", "b", "c", "d", "e")


def survey_of(pixels, bands=BANDS, scale=1):
    """By the definition, in Python's integers."""
    x = pixels.astype(object)
    gram = np.array((x.T @ x).tolist(), np.int64).reshape(len(bands), len(bands))
    bins = intensity_bins(np.array((x * x).sum(axis=1), np.float64))
    histogram = np.bincount(bins, minlength=INTENSITY_BINS).astype(np.int64)
    return PixelSurvey(bands, scale, len(pixels), histogram, gram)


def ranges_of(projection, pixels):
    components, _ = projection.components(pixels)
    place = np.clip(np.floor((components + 1) * RANGE_UNITS), 0, RANGE_BINS - 1).astype(int)
    histogram = np.stack([np.bincount(column, minlength=RANGE_BINS) for column in place.T])
    return ComponentRanges(projection.identity, len(components), histogram.astype(np.int64))


def tissue(rng, n=4000, bands=5, dtype=np.uint16):
    """A dim noisy background, and three kinds of brighter pixels."""
    kinds = rng.uniform(0.05, 1, (3, bands))
    bright = kinds[rng.integers(0, 3, n)] * rng.uniform(80, 200, (n, 1))
    dark = rng.lognormal(1.5, 0.15, (n, bands))
    pixels = np.where(rng.random((n, 1)) < 0.5, bright + rng.normal(0, 5, bright.shape), dark)
    return np.clip(np.rint(pixels), 0, 255).astype(dtype)


def codec_of(rng, components=3, bins=22, **options):
    pixels = tissue(rng)
    projection = PixelProjection.fit(survey_of(pixels), components)
    return PixelCodec.fit(projection, ranges_of(projection, pixels), bins, **options), pixels


@st.composite
def codecs(draw):
    """Codecs that no data made: any weights, any ranges."""
    bands, components = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    weights = rng.integers(-UNIT, UNIT + 1, (components, bands)).astype(np.int32)
    floor = draw(st.sampled_from([1, 5, 10_000]))
    projection = PixelProjection(tuple("abcdef"[:bands]), 1, weights, floor)
    low = rng.integers(-RANGE_UNITS, RANGE_UNITS, components)
    high = [int(rng.integers(edge + 1, RANGE_UNITS + 1)) for edge in low]
    return PixelCodec(projection, tuple(low.tolist()), tuple(high), draw(st.integers(2, 60)))


def pixel_arrays(bands):
    small = st.one_of(st.integers(0, 3), st.integers(0, 65535))
    return hnp.arrays(np.uint16, st.tuples(st.integers(0, 30), st.just(bands)), elements=small)


@UNTIMED
@given(codecs(), st.data())
def test_a_key_comes_back_from_the_centres_of_its_bins(codec, data):
    keys = np.array(data.draw(st.lists(st.integers(0, codec.digits.size - 1))), np.uint64)
    assert np.array_equal(codec.encode_components(codec.decode(keys)), keys)


@UNTIMED
@given(codecs(), st.data())
def test_a_pixel_lies_within_half_a_bin_of_what_its_key_says(codec, data):
    pixels = data.draw(pixel_arrays(len(codec.projection.bands)))
    keys, foreground = codec.encode(pixels)
    assert keys.size == np.count_nonzero(foreground)
    squared = (pixels.astype(object) ** 2).sum(axis=1)
    assert np.array_equal(foreground, (squared >= codec.projection.floor).astype(bool))
    weights = codec.projection.weights.astype(object)
    exact = (pixels[foreground].astype(object) @ weights.T).astype(np.float64)
    length = np.sqrt(squared[foreground].astype(np.float64))[:, None]
    components = exact / UNIT / np.where(length == 0, 1, length)
    low, step = codec.bin_steps()
    inside = np.clip(components, low, low + codec.bins / step)
    assert np.all(np.abs(codec.decode(keys) - inside) <= 0.5 / step + 1e-12)


@UNTIMED
@given(pixel_arrays(4), pixel_arrays(4))
def test_the_survey_of_two_sites_is_the_sum_of_their_surveys(ours, theirs):
    bands = tuple("abcd")
    both = survey_of(np.concatenate([ours, theirs]), bands)
    added = survey_of(ours, bands) + survey_of(theirs, bands)
    assert added.pixels == both.pixels
    assert np.array_equal(added.gram, both.gram)
    assert np.array_equal(added.histogram, both.histogram)


@UNTIMED
@given(st.integers(0, 2**32), st.integers(1, 30))
def test_the_ranges_of_two_sites_are_the_sum_of_their_ranges(seed, cut):
    codec, pixels = codec_of(np.random.default_rng(seed % 7))
    projection = codec.projection
    both = ranges_of(projection, pixels)
    added = ranges_of(projection, pixels[:cut]) + ranges_of(projection, pixels[cut:])
    assert np.array_equal(added.histogram, both.histogram)
    assert added.pixels == both.pixels


@UNTIMED
@given(st.one_of(st.integers(0, 300), st.integers(0, 2**40 - 1)))
def test_every_squared_intensity_lies_within_the_edges_of_its_bin(squared):
    index = int(intensity_bins(np.array([squared], np.float64))[0])
    low, high = intensity_edges()
    assert low[index] <= squared <= high[index]


def test_the_foreground_begins_above_the_background_peak():
    rng = np.random.default_rng(3)
    log = np.concatenate([rng.normal(4.0, 0.2, 200_000), rng.normal(6.5, 0.5, 60_000)])
    histogram = np.bincount(
        intensity_bins(np.rint(np.exp(2 * log))), minlength=INTENSITY_BINS
    ).astype(np.int64)
    half_width = 0.2 * np.sqrt(2 * np.log(2))
    assert np.log(background_floor(histogram)) / 2 == pytest.approx(4 + 3 * half_width, abs=0.08)


@pytest.mark.parametrize("peaks", [[], [0], [5]])
def test_a_histogram_without_anything_above_its_peak_is_refused(peaks):
    histogram = np.zeros(INTENSITY_BINS, np.int64)
    histogram[peaks] = 1000
    with pytest.raises(InputDataError, match="no background peak"):
        background_floor(histogram)


def test_components_are_the_eigenvectors_with_their_largest_entry_positive():
    codec, pixels = codec_of(np.random.default_rng(5))
    weights = codec.projection.weights / UNIT
    assert np.allclose(weights @ weights.T, np.eye(3), atol=1e-8)
    assert (weights.max(axis=1) >= -weights.min(axis=1)).all()
    x = pixels.astype(np.float64)
    energy = np.square(x @ weights.T).sum(axis=0)
    expected = np.linalg.eigvalsh(x.T @ x)[::-1][:3]
    assert np.allclose(energy, expected, rtol=1e-7)


def test_shared_ranges_hold_every_component_and_a_tail_cuts_both_ends():
    rng = np.random.default_rng(6)
    codec, pixels = codec_of(rng)
    components, _ = codec.projection.components(pixels)
    assert len(set(codec.low)) == len(set(codec.high)) == 1
    assert codec.low[0] / RANGE_UNITS <= components.min() < (codec.low[0] + 1) / RANGE_UNITS
    assert (codec.high[0] - 1) / RANGE_UNITS <= components.max() <= codec.high[0] / RANGE_UNITS
    apart = PixelCodec.fit(
        codec.projection, ranges_of(codec.projection, pixels), tail=0.01, shared=False
    )
    for column, low, high in zip(components.T, apart.low, apart.high, strict=True):
        assert (column < low / RANGE_UNITS).mean() <= 0.01
        assert (column >= high / RANGE_UNITS).mean() <= 0.01
        assert (column < (low + 1) / RANGE_UNITS).mean() > 0.01


@UNTIMED
@given(codecs())
def test_a_codec_survives_json_with_its_identity(codec):
    again = PixelCodec.from_dict(json.loads(canonical_json(codec.as_dict())))
    assert again.identity == codec.identity
    assert np.array_equal(again.projection.weights, codec.projection.weights)


def test_identities_differ_with_every_field():
    codec, _ = codec_of(np.random.default_rng(7))
    seen = {codec.identity}
    for change in (
        {"bins": 21},
        {"low": [codec.low[0] - 1, *codec.low[1:]]},
        {"high": [codec.high[0] - 1, *codec.high[1:]]},
        {"projection": codec.projection.as_dict() | {"floor": codec.projection.floor + 1}},
        {"projection": codec.projection.as_dict() | {"scale": 7}},
        {"projection": codec.projection.as_dict() | {"bands": ["x", "b", "c", "d", "e"]}},
        {
            "projection": codec.projection.as_dict()
            | {"weights": (-codec.projection.weights).tolist()}
        },
    ):
        seen.add(PixelCodec.from_dict(codec.as_dict() | change).identity)
    assert len(seen) == 8


def test_the_identity_and_keys_of_a_fixed_codec_never_change():
    weights = np.array([[UNIT // 2, UNIT // 2, 1 << 20], [-(1 << 29), 1 << 29, 77]], np.int32)
    projection = PixelProjection(("r", "g", "b"), 1, weights, 100)
    codec = PixelCodec(projection, (-900, -1024), (2000, 1024))
    pixels = np.array([[3, 4, 5], [10, 0, 0], [200, 300, 65535], [65535, 1, 9]], np.uint16)
    keys, foreground = codec.encode(pixels)
    assert foreground.tolist() == [False, True, True, True]
    assert keys.tolist() == [14, 248, 14]
    assert codec.identity == "60718c00ddb48e71f0b298156623d6d16ce7dfc757e45037981d686ba21e9912"


@pytest.mark.parametrize(
    "change",
    [
        {"bins": 1},
        {"bins": 2.0},
        {"bins": 2**17},
        {"kind": "experience"},
        {"version": 2},
        {"low": [0, 0]},
        {"low": [0.5, 0, 0]},
        {"low": "abc"},
        {"high": [-2048, -2048, -2048]},
        {"high": [4096, 4096, 4096]},
        {"more": 1},
        {"projection": {}},
        {"projection": {"weights": [[1.5] * 5] * 3}},
        {"projection": {"weights": [[2**31] * 5] * 3}},
        {"projection": {"weights": [["1"] * 5] * 3}},
        {"projection": {"weights": []}},
        {"projection": {"bands": ["a", "a", "c", "d", "e"]}},
        {"projection": {"bands": "abcde"}},
        {"projection": {"bands": [1, 2, 3, 4, 5]}},
        {"projection": {"floor": 0}},
        {"projection": {"scale": 0}},
        {"projection": {"scale": True}},
    ],
)
def test_a_codec_that_makes_no_sense_is_refused(change):
    codec, _ = codec_of(np.random.default_rng(7))
    data = codec.as_dict()
    if change.get("projection"):
        change = {"projection": codec.projection.as_dict() | change["projection"]}
    with pytest.raises(InputDataError):
        PixelCodec.from_dict(data | change)


def test_floats_count_in_steps_of_the_plans_scale():
    pixels = np.array([[0.0, -3.0, 0.26, 0.25, 65535 / 4]], np.float32)
    assert as_integers(pixels, 4).tolist() == [[0, 0, 1, 1, 65535]]
    assert as_integers(pixels, 4).dtype == np.uint16


@pytest.mark.parametrize(
    ("pixels", "scale", "field"),
    [
        (np.array([[np.nan]], np.float32), 1, "scale"),
        (np.array([[np.inf]], np.float32), 1, "scale"),
        (np.array([[70000]], np.float32), 1, "scale"),
        (np.array([[7]], np.uint8), 2, "scale"),
        (np.array([[7]], np.int32), 1, "dtype"),
        (np.array([[7]], np.float64), 1, "dtype"),
    ],
)
def test_pixels_that_do_not_fit_are_refused(pixels, scale, field):
    with pytest.raises(InputDataError) as refusal:
        as_integers(pixels, scale)
    assert refusal.value.field == field


def test_surveys_of_other_bands_scales_or_beyond_63_bits_are_not_added():
    survey = survey_of(np.full((3, 5), 9, np.uint16))
    with pytest.raises(InputDataError, match="bands"):
        survey + PixelSurvey.empty(tuple("abcdx"))
    with pytest.raises(InputDataError, match="scale"):
        survey + PixelSurvey.empty(BANDS, scale=10)
    full = PixelSurvey(BANDS, 1, 3, survey.histogram, np.full((5, 5), 2**62, np.int64))
    with pytest.raises(InputDataError, match="too many pixels"):
        full + full
    assert (full + PixelSurvey.empty(BANDS)).pixels == 3


def test_statistics_that_contradict_themselves_are_refused():
    survey = survey_of(np.full((3, 5), 9, np.uint16))
    lopsided = survey.gram.copy()
    lopsided[0, 1] += 1
    for pixels, histogram, gram in (
        (4, survey.histogram, survey.gram),
        (3, survey.histogram, lopsided),
        (3, survey.histogram, -survey.gram),
        (3, survey.histogram[:-1], survey.gram),
        (3, survey.histogram, survey.gram.astype(np.float64)),
    ):
        with pytest.raises(InputDataError):
            PixelSurvey(BANDS, 1, pixels, histogram, gram)
    with pytest.raises(InputDataError):
        ComponentRanges("x", 2, np.ones((3, RANGE_BINS), np.int64))
    with pytest.raises(InputDataError):
        ComponentRanges("x", 0, np.zeros((0, RANGE_BINS), np.int64))
    with pytest.raises(InputDataError, match="pixels"):
        ComponentRanges.empty("x", 3).limits(0, shared=True)


def test_ranges_of_another_projection_make_no_codec():
    codec, pixels = codec_of(np.random.default_rng(8))
    other = PixelProjection.fit(survey_of(pixels), 3, floor=4)
    with pytest.raises(InputDataError, match="projection"):
        PixelCodec.fit(other, ranges_of(codec.projection, pixels))
    with pytest.raises(InputDataError, match="projection"):
        ranges_of(codec.projection, pixels) + ranges_of(other, pixels)


def test_more_components_than_independent_bands_are_refused():
    flat = np.repeat(np.arange(1, 200, dtype=np.uint16)[:, None], 5, axis=1)
    with pytest.raises(InputDataError, match="components"):
        PixelProjection.fit(survey_of(flat), 2, floor=4)
    assert PixelProjection.fit(survey_of(flat), 1, floor=4).weights.shape == (1, 5)
