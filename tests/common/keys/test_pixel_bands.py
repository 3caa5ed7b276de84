"""All bands in a few levels: one key per combination, and back."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.canonical import canonical_json
from common.errors import InputDataError
from common.keys.pixel_bands import BandCodec
from common.keys.pixel_statistics import PixelSurvey, intensity_bins

UNTIMED = settings(deadline=None)
CODEC = BandCodec(
    tuple(f"b{i}" for i in range(35)), 1, 9, tuple((2 + i, 40 + i) for i in range(35))
)
pixels_of_35_bands = hnp.arrays(
    np.uint16,
    st.tuples(st.integers(0, 20), st.just(35)),
    elements=st.one_of(st.integers(0, 80), st.integers(0, 65535)),
)


@UNTIMED
@given(st.lists(st.integers(0, 3**35 - 1)))
def test_a_key_comes_back_from_its_levels(keys):
    array = np.array(keys, np.uint64)
    assert np.array_equal(CODEC.encode_levels(CODEC.decode(array)), array)


@UNTIMED
@given(pixels_of_35_bands)
def test_a_level_counts_the_edges_that_a_band_reaches(pixels):
    keys, foreground = CODEC.encode(pixels)
    bright = (pixels.astype(object) ** 2).sum(axis=1) >= 9
    assert np.array_equal(foreground, bright.astype(bool))
    for row, levels in zip(pixels[foreground].tolist(), CODEC.decode(keys).tolist(), strict=True):
        for value, level, edges in zip(row, levels, CODEC.edges, strict=True):
            assert level == sum(value >= edge for edge in edges)


def survey(pixels, bands):
    x = pixels.astype(np.int64)
    histogram = np.bincount(intensity_bins((x * x).sum(axis=1).astype(np.float64)), minlength=321)
    return PixelSurvey(bands, 1, len(x), histogram.astype(np.int64), x.T @ x)


def test_levels_begin_at_a_bands_root_mean_square():
    pixels = np.repeat(np.array([[0, 3, 100]], np.uint16), 5, axis=0)
    codec = BandCodec.fit(survey(pixels, ("a", "b", "c")), levels=4, floor=1)
    assert codec.edges == ((1, 3, 9), (3, 9, 27), (100, 300, 900))
    with pytest.raises(InputDataError, match="levels"):
        BandCodec.fit(survey(pixels, ("a", "b", "c")), levels=1, floor=1)
    with pytest.raises(InputDataError, match="levels"):
        BandCodec.fit(PixelSurvey.empty(("a",)), floor=1)


def test_a_codec_survives_json_and_its_identity_never_changes():
    again = BandCodec.from_dict(json.loads(canonical_json(CODEC.as_dict())))
    assert (
        again.identity
        == CODEC.identity
        == ("60c330a8748165f33f48c7d5c80d4dbf272fcf77e3a7bcb8c6bf576e335094c1")
    )
    assert again.digits.size == 3**35


@pytest.mark.parametrize(
    "change",
    [
        {"edges": [[2, 40]] * 34},
        {"edges": [[40, 2]] * 35},
        {"edges": [[2, 2]] * 35},
        {"edges": [[0, 2]] * 35},
        {"edges": [[]] * 35},
        {"edges": [[1.5]] * 35},
        {"edges": "abc"},
        {"edges": [[1, 2, 3]] * 35},
        {"bands": ["a"] * 35},
        {"bands": [1] * 35},
        {"floor": -1},
        {"scale": 0},
        {"kind": "pixel-components"},
        {"version": 2},
        {"more": 1},
    ],
)
def test_a_codec_that_makes_no_sense_is_refused(change):
    with pytest.raises(InputDataError):
        BandCodec.from_dict(CODEC.as_dict() | change)
