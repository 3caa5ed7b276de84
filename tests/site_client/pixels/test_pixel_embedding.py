"""Slides as maps of groups, and four of them as a state."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputDataError
from common.keys.codebook import Codebook
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.landmark2d import Case2D, Landmark2D, build_cases_2d
from site_client.agent.tasks.points import Views
from site_client.pixels.embed import FourSliceState, embed, stack_of_maps, write_map
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


@pytest.fixture
def four_maps(tmp_path):
    """Maps of four slices, with a square of label 2 that moves by a pixel a slice."""
    paths, arrays = [], []
    for number in range(4):
        labels = np.ones((40, 50), np.uint8)
        labels[10 + number : 20 + number, 12:22] = 2
        labels[:5] = 0
        arrays.append(labels)
        paths.append(tmp_path / f"slice{number}.mha")
        write_map(paths[-1], labels, 0.5)
    return paths, np.stack(arrays)


def test_maps_of_four_slices_are_read_back_as_channels(four_maps):
    paths, arrays = four_maps
    stack = stack_of_maps(paths)
    assert (stack.dtype, stack.shape) == (np.uint8, (4, 40, 50))
    assert np.array_equal(stack, arrays)
    assert np.array_equal(stack_of_maps(paths, label=2), 255 * (arrays == 2))
    assert stack_of_maps(paths[:1]).shape == (1, 40, 50)


def test_an_agent_searches_four_embedded_slices_as_its_four_channels(four_maps):
    paths, _ = four_maps
    case = Case2D(
        "slides", stack_of_maps(paths, label=2), (0.5, 0.5), np.array([[8.0, 7.0]]), "breast"
    )
    cases = build_cases_2d([case], finest_mm=0.5)
    task = Landmark2D(cases, Ladder((0.5,), (1.0,)), Views.channels(roi=9))
    situations = task.draw(np.random.default_rng(2), 200)
    seen = task.observe(situations)
    assert (seen.dtype, seen.shape) == (np.uint8, (200, 4, 9, 9))
    unposed = task.starts(np.random.default_rng(2), 20, posed=False)
    middles = task.observe(unposed)[:, :, 4, 4]
    compared = 0
    for (x, y), values in zip(np.rint(task.positions_mm(unposed) / 0.5), middles, strict=True):
        around = case.image[:, int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2]
        same = (around == around[:, :1, :1]).all(axis=(1, 2)) & (around.shape[1:] == (3, 3))
        assert np.array_equal(values[same], around[same, 0, 0])
        compared += int(np.count_nonzero(same))
    assert compared > 20


def test_maps_that_do_not_fit_together_are_no_channels(four_maps, tmp_path):
    paths, _ = four_maps
    write_map(tmp_path / "other.mha", np.ones((40, 51), np.uint8))
    sitk.WriteImage(sitk.Image(50, 40, sitk.sitkUInt16), str(tmp_path / "deep.mha"))
    for wrong in ([*paths[:3], tmp_path / "other.mha"], [tmp_path / "deep.mha"], []):
        with pytest.raises(InputDataError, match="do not fit together"):
            stack_of_maps(wrong)
    with pytest.raises(InputDataError, match="cannot read"):
        stack_of_maps([tmp_path / "absent.mha"])


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
