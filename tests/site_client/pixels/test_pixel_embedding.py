"""Slides as maps of groups, and four of them as a state."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputDataError
from common.keys.codebook import Codebook
from site_client.pixels.embed import FourSliceState, embed, write_map
from site_client.pixels.slides import open_slide


@pytest.fixture(scope="module")
def book(fitted):
    codec, slides = fitted
    keys = np.unique(codec.encode(slides[0].image.reshape(-1, 12))[0])[::3]
    clusters = np.arange(keys.size) % 4
    names = {0: "tumour", 1: "immune", 2: "other", 3: "other"}
    return Codebook.make(codec.digits, keys, clusters, codec.identity).label(names)


def test_a_map_holds_the_group_of_every_pixel_and_0_for_background(fitted, book, tmp_path, bands):
    codec, slides = fitted
    np.save(tmp_path / "slide.npy", slides[1].image)
    told = []
    slide = open_slide(tmp_path / "slide.npy", bands)
    labels = embed(slide, codec, book, progress=told.append)
    keys, foreground = codec.encode(slides[1].image.reshape(-1, 12))
    assert labels.shape == slides[1].image.shape[:2]
    assert np.array_equal(labels.ravel() > 0, foreground)
    assert np.array_equal(labels.ravel()[foreground], book.groups(keys) + 1)
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    assert told[-1] == labels.size


def test_a_codebook_of_another_codec_or_without_names_is_refused(fitted, book):
    codec, slides = fitted
    other = codec.from_dict(codec.as_dict() | {"low": [end - 1 for end in codec.low]})
    with pytest.raises(InputDataError, match="codec"):
        embed(slides[0], other, book)
    unnamed = Codebook.make(codec.digits, book.keys, book.clusters, codec.identity)
    with pytest.raises(InputDataError, match="group_names"):
        embed(slides[0], codec, unnamed)


@pytest.mark.parametrize("name", ["map.mha", "map.nii.gz"])
def test_a_map_can_be_read_by_others(tmp_path, name):
    labels = np.arange(48, dtype=np.uint8).reshape(6, 8)
    write_map(tmp_path / name, labels, spacing_mm=0.5)
    image = sitk.ReadImage(str(tmp_path / name))
    assert np.array_equal(sitk.GetArrayFromImage(image), labels)
    assert image.GetSpacing() == (0.5, 0.5)


def test_what_is_no_map_is_not_written(tmp_path):
    labels = np.zeros((6, 8), np.uint8)
    for path, array in (
        (tmp_path / "map.png", labels),
        (tmp_path / "map.mha", labels.astype(np.int32)),
        (tmp_path / "map.mha", labels[0]),
        (tmp_path / "absent" / "map.mha", labels),
    ):
        with pytest.raises(InputDataError):
            write_map(path, array)


def test_four_maps_are_four_channels_in_their_order():
    maps = [np.full((5, 7), i, np.uint8) for i in (1, 2, 1, 0)]
    state = FourSliceState.from_maps(maps)
    assert state.channels.shape == (4, 5, 7)
    assert state.channels[:, 2, 3].tolist() == [1, 2, 1, 0]
    binary = FourSliceState.from_maps(maps, label=1)
    assert binary.channels[:, 0, 0].tolist() == [1, 0, 1, 0]
    with pytest.raises(ValueError, match="read-only"):
        state.channels[0, 0, 0] = 9
    maps[0][:] = 77
    assert state.channels[0].max() == 1


@settings(deadline=None)
@given(st.integers(0, 8), st.integers(0, 10), st.sampled_from([1, 3, 9, 45]))
def test_a_crop_is_the_square_around_a_position_and_0_beyond_the_slide(row, column, size):
    image = np.random.default_rng(1).integers(1, 9, (4, 9, 11)).astype(np.uint8)
    crop = FourSliceState(image).crop(row, column, size)
    half = size // 2
    padded = np.pad(image, ((0, 0), (half, half), (half, half)))
    assert np.array_equal(crop, padded[:, row : row + size, column : column + size])


@pytest.mark.parametrize(
    "act",
    [
        lambda: FourSliceState(np.zeros((3, 5, 5), np.uint8)),
        lambda: FourSliceState(np.zeros((4, 5, 5), np.float32)),
        lambda: FourSliceState(np.zeros((4, 0, 5), np.uint8)),
        lambda: FourSliceState.from_maps([np.zeros((5, 5), np.uint8)] * 3),
        lambda: FourSliceState.from_maps([np.zeros((5, i), np.uint8) for i in (5, 5, 5, 6)]),
        lambda: FourSliceState(np.zeros((4, 5, 5), np.uint8)).crop(0, 0, 4),
        lambda: FourSliceState(np.zeros((4, 5, 5), np.uint8)).crop(5, 0, 3),
        lambda: FourSliceState(np.zeros((4, 5, 5), np.uint8)).crop(0, -1, 3),
    ],
)
def test_what_is_no_state_is_refused(act):
    with pytest.raises(InputDataError):
        act()
