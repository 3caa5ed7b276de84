"""A slide smoothed a few rows at a time is the whole slide smoothed, however it is cut."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputDataError
from common.keys.pixel_bands import BandCodec
from common.keys.pixel_projection import PixelProjection
from common.keys.pixels import PixelCodec
from common.keys.smoothing import MOST, smooth
from site_client.pixels.counting import keys_of
from site_client.pixels.slides import open_slide
from site_client.pixels.smoothing import smoothed
from site_client.pixels.statistics import component_ranges, survey

NAMES = ("r", "g", "b")


def whole(source):
    return np.concatenate(list(source.chunks())).reshape(source.shape)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 24),
    st.integers(1, 9),
    st.integers(1, 60),
    st.integers(1, MOST),
    st.sampled_from([np.uint8, np.uint16]),
    st.integers(0, 2**32),
)
def test_strips_of_any_size_give_the_whole_slide_smoothed(
    memory_slide, rows, columns, piece, smoothing, dtype, seed
):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, np.iinfo(dtype).max, (rows, columns, 3), dtype, endpoint=True)
    slide = memory_slide(image, NAMES, piece)
    np.testing.assert_array_equal(whole(smoothed(slide, smoothing, 1)), smooth(image, smoothing))


def test_no_smoothing_is_the_slide_itself_bit_for_bit(memory_slide, fitted, tissue):
    codec, _ = fitted
    slide = memory_slide(tissue(np.random.default_rng(1)))
    assert smoothed(slide, 0, 1) is slide
    projection = codec.projection
    named = PixelProjection(projection.bands, 1, projection.weights, projection.floor, smoothing=0)
    assert named.identity == projection.identity
    again = PixelCodec(named, codec.low, codec.high, codec.bins)
    assert again.identity == codec.identity
    for (ours, _), (theirs, _) in zip(keys_of(slide, codec), keys_of(slide, again), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    plain, spelt = survey(slide), survey(slide, smoothing=0)
    np.testing.assert_array_equal(plain.gram, spelt.gram)


def test_slides_of_floats_are_rounded_to_the_plans_integers_before_they_are_smoothed(memory_slide):
    rng = np.random.default_rng(2)
    image = rng.integers(0, 4000, (20, 15, 3)).astype(np.uint16)
    floats = memory_slide((image / 16).astype(np.float32), NAMES)
    ours = whole(smoothed(floats, 1200, 16))
    np.testing.assert_array_equal(ours, (smooth(image, 1200).astype(np.float64) / 16).astype("f4"))


def test_every_pass_over_a_slide_smooths_as_the_codec_says(memory_slide, tissue):
    """Summing, ranging and counting a slide is doing so with the image smoothed beforehand."""
    image = tissue(np.random.default_rng(4), rows=40, columns=30).astype(np.uint16)
    slide, before = memory_slide(image), memory_slide(smooth(image, 2000))
    ours, theirs = survey(slide, 16, smoothing=2000), survey(before, 16)
    np.testing.assert_array_equal(ours.gram, theirs.gram)
    np.testing.assert_array_equal(ours.histogram, theirs.histogram)
    projection = PixelProjection.fit(ours, 4, floor=16 * 16 * 100)
    unsmoothed = PixelProjection.fit(theirs, 4, floor=16 * 16 * 100)
    ranges, same = component_ranges(slide, projection), component_ranges(before, unsmoothed)
    np.testing.assert_array_equal(ranges.histogram, same.histogram)
    codecs = (
        (PixelCodec.fit(projection, ranges, 9), PixelCodec.fit(unsmoothed, same, 9)),
        (BandCodec.fit(ours, 3, 25600), BandCodec.fit(theirs, 3, 25600)),
    )
    for codec, other in codecs:
        pairs = [
            [np.concatenate(parts) for parts in zip(*keys_of(s, c), strict=True)]
            for s, c in ((slide, codec), (before, other))
        ]
        np.testing.assert_array_equal(pairs[0][0], pairs[1][0])
        np.testing.assert_array_equal(pairs[0][1], pairs[1][1])
        assert codec.identity != other.identity


def test_sites_smooth_alike_in_whatever_order_they_are_added(memory_slide, tissue):
    sites = [memory_slide(tissue(np.random.default_rng(n), rows=30)) for n in range(3)]
    first, second, third = (survey(slide, 16, smoothing=1500) for slide in sites)
    one, other = first + second + third, third + first + second
    np.testing.assert_array_equal(one.gram, other.gram)
    np.testing.assert_array_equal(one.histogram, other.histogram)


def test_a_file_is_smoothed_in_bounded_memory(tmp_path):
    height, width = 3000, 64
    np.save(tmp_path / "s.npy", np.ones((height, width, 3), np.uint8))
    slide = open_slide(tmp_path / "s.npy", NAMES)
    rows = iter(smoothed(slide, 2000, 1).chunks())
    next(rows)  # kernels are compiled
    tracemalloc.start()
    for chunk in smoothed(slide, 2000, 1).chunks():
        assert (chunk == 1).all()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < height * width * 3 * 4, "less than the smoothed slide"


def test_a_slide_cut_short_is_refused(memory_slide):
    class Short(memory_slide):
        shape = (20, 10, 3)

    slide = Short(np.ones((12, 10, 3), np.uint8), NAMES)
    with pytest.raises(InputDataError, match="another size than its header says"):
        list(smoothed(slide, 1000, 1).chunks())
