"""The fast way to keys against the definition, and statistics against Python's integers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.errors import InputDataError
from common.keys.pixel_agreement import codec_text, read_codec
from common.keys.pixel_projection import UNIT, PixelProjection
from common.keys.pixel_statistics import (
    INTENSITY_BINS,
    RANGE_BINS,
    RANGE_UNITS,
    PixelSurvey,
    intensity_edges,
)
from common.keys.pixels import PixelCodec
from site_client.pixels import kernels, statistics
from site_client.pixels.encode import BLOCK, PixelEncoder
from site_client.pixels.statistics import component_ranges, survey

UNTIMED = settings(deadline=None)


def any_codec(seed, bands, components, bins, floor=1, scale=1):
    """A codec that no data made."""
    rng = np.random.default_rng(seed)
    weights = rng.integers(-UNIT, UNIT + 1, (components, bands)).astype(np.int32)
    weights[rng.random(weights.shape) < 0.3] = 0
    projection = PixelProjection(tuple(f"b{i}" for i in range(bands)), scale, weights, floor)
    low = rng.integers(-RANGE_UNITS, RANGE_UNITS, components).tolist()
    high = [int(rng.integers(edge + 1, RANGE_UNITS + 1)) for edge in low]
    return PixelCodec(projection, tuple(low), tuple(high), bins)


@UNTIMED
@given(st.data())
def test_fast_keys_equal_the_definition_in_every_bit(data):
    bands, components = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 12))
    bins = data.draw(st.integers(2, 22 if components > 8 else 60))
    codec = any_codec(
        data.draw(st.integers(0, 2**32)),
        bands,
        components,
        bins,
        data.draw(st.sampled_from([1, 100, 2**33])),
    )
    dtype = data.draw(st.sampled_from([np.uint8, np.uint16]))
    top = np.iinfo(dtype).max
    values = st.one_of(st.integers(0, 2), st.integers(0, top), st.just(top))
    shape = st.tuples(st.integers(0, 40), st.just(bands))
    pixels = data.draw(hnp.arrays(dtype, shape, elements=values, fill=st.nothing()))
    keys, foreground = PixelEncoder(codec).encode(pixels)
    expected = codec.encode(pixels)
    assert np.array_equal(foreground, expected[1])
    assert np.array_equal(keys, expected[0])


def test_a_codec_that_was_read_uses_the_kernels_that_a_fitted_one_had_compiled(fitted):
    codec, slides = fitted
    read = read_codec(codec_text(codec))
    pixels = next(iter(slides[0].chunks()))
    keys = PixelEncoder(codec).encode(pixels)[0]
    compiled = [len(kernel.signatures) for kernel in (kernels.unit_vectors, kernels.keys_of)]
    assert np.array_equal(PixelEncoder(read).encode(pixels)[0], keys)
    assert compiled == [len(k.signatures) for k in (kernels.unit_vectors, kernels.keys_of)]


def test_fast_keys_equal_the_definition_over_many_blocks_and_few_are_in_doubt(fitted):
    codec, slides = fitted
    for slide in slides:
        pixels = np.tile(slide.image.reshape(-1, 12), (4, 1))
        assert len(pixels) > 5 * BLOCK
        encoder = PixelEncoder(codec)
        keys, foreground = encoder.encode(pixels)
        expected = codec.encode(pixels)
        assert np.array_equal(foreground, expected[1])
        assert np.array_equal(keys, expected[0])
        assert 0.3 < foreground.mean() < 0.9
        assert encoder.doubts < 0.01 * keys.size


def test_a_pixel_on_the_edge_of_a_bin_is_settled_in_whole_numbers():
    """Component 0.6 = 3/5, and edges at multiples of 0.1: exactly between two bins."""
    weights = np.array([[UNIT, 0], [0, UNIT]], np.int32)
    projection = PixelProjection(("a", "b"), 1, weights, 1)
    codec = PixelCodec(projection, (-2048, -2048), (2048, 2048), bins=20)
    k = np.arange(1, 5000, dtype=np.uint16)
    pixels = np.stack([3 * k, 4 * k], axis=1)
    encoder = PixelEncoder(codec)
    keys, _ = encoder.encode(pixels)
    assert encoder.doubts == len(pixels)
    assert np.array_equal(keys, codec.encode(pixels)[0])


def test_floats_and_strided_pixels_have_the_keys_of_their_integers(fitted):
    codec, slides = fitted
    pixels = slides[0].image.reshape(-1, 12)
    data = codec.as_dict()
    data["projection"]["scale"] = 4
    scaled = PixelCodec.from_dict(data)
    as_floats = (pixels / 4).astype(np.float32)
    assert np.array_equal(PixelEncoder(scaled).encode(as_floats)[0], codec.encode(pixels)[0])
    strided = np.repeat(pixels, 2, axis=0)[::2]
    assert np.array_equal(PixelEncoder(codec).encode(strided)[0], codec.encode(pixels)[0])


def test_pixels_of_another_shape_are_refused(fitted):
    encoder = PixelEncoder(fitted[0])
    for pixels in (np.zeros((3, 11), np.uint8), np.zeros(12, np.uint8), np.zeros((3, 12), np.int8)):
        with pytest.raises(InputDataError):
            encoder.encode(pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_survey_is_exact(memory_slide, dtype, monkeypatch):
    monkeypatch.setattr(statistics, "BLOCK", 64)
    top = 255 if dtype == np.uint8 else 65535
    rng = np.random.default_rng(2)
    integers = np.where(rng.random((23, 31, 5)) < 0.5, top, rng.integers(0, top + 1, (23, 31, 5)))
    integers[:3] = 0
    scale = 8 if dtype == np.float32 else 1
    slide = memory_slide((integers / scale).astype(dtype), tuple("abcde"), piece=100)
    seen = []
    found = survey(slide, scale, progress=seen.append)
    flat = integers.reshape(-1, 5).astype(object)
    assert found.gram.tolist() == (flat.T @ flat).tolist()
    assert found.pixels == seen[-1] == 23 * 31
    low, high = intensity_edges()
    squared = (flat * flat).sum(axis=1)
    assert found.histogram.size == INTENSITY_BINS
    for index in np.flatnonzero(found.histogram):
        inside = sum(low[index] <= value <= high[index] for value in squared)
        assert found.histogram[index] == inside


def test_surveys_and_ranges_do_not_depend_on_chunks_or_sites(fitted, memory_slide):
    codec, slides = fitted
    whole = memory_slide(np.concatenate([slide.image for slide in slides]), piece=7777)
    added = survey(slides[0]) + survey(slides[1]) + survey(slides[2])
    at_once = survey(whole)
    assert np.array_equal(added.gram, at_once.gram)
    assert np.array_equal(added.histogram, at_once.histogram)
    parts = [component_ranges(slide, codec.projection) for slide in slides]
    together = component_ranges(whole, codec.projection)
    assert np.array_equal((parts[0] + parts[1] + parts[2]).histogram, together.histogram)
    assert together.histogram.shape == (5, RANGE_BINS)
    assert PixelCodec.fit(codec.projection, together, bins=9).identity == codec.identity


def test_a_survey_that_would_overflow_says_so(memory_slide, monkeypatch):
    slide = memory_slide(np.full((4, 4, 2), 65535, np.uint16), ("a", "b"), piece=8)
    monkeypatch.setattr(statistics, "_LIMIT", 65535**2 * 12)
    with pytest.raises(InputDataError, match="too many pixels"):
        survey(slide)
    assert survey(slide.__class__(slide.image[:2], ("a", "b"))).pixels == 8
    assert isinstance(survey(slide.__class__(slide.image[:0], ("a", "b"))), PixelSurvey)


def test_ranges_of_other_bands_are_refused(fitted, memory_slide):
    codec, slides = fitted
    other = memory_slide(slides[0].image, tuple(reversed(slides[0].bands)))
    with pytest.raises(InputDataError, match="other bands"):
        component_ranges(other, codec.projection)
