"""Slides as maps of groups, and consecutive ones as the channels that an agent searches."""

import tracemalloc

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from click.testing import CliRunner
from safetensors.numpy import load_file

from common.errors import InputDataError
from common.keys.codebook import Codebook
from common.keys.pixel_agreement import codec_text, read_codec
from site_client.cli import cli
from site_client.imaging.label_maps import write_in_pieces
from site_client.imaging.landmarks import write_landmarks
from site_client.pixels.embed import (
    as_channels,
    embed,
    labels_of,
    write_map,
    write_slide_map,
)
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


def test_maps_of_one_size_are_channels_in_their_order():
    maps = [np.full((5, 7), i, np.uint8) for i in (1, 2, 1, 0)]
    assert as_channels(maps)[:, 2, 3].tolist() == [1, 2, 1, 0]
    assert as_channels(maps, label=1)[:, 0, 0].tolist() == [255, 0, 255, 0]
    assert as_channels(maps[:1]).shape == (1, 5, 7)
    for wrong in ([*maps, np.zeros((5, 8), np.uint8)], []):
        with pytest.raises(InputDataError, match="do not fit together"):
            as_channels(wrong)


@pytest.fixture
def consecutive(fitted, book, tmp_path):
    """Four slides on disk, with their codebook and codec; ``cairn-site embed`` of them."""
    codec, slides = fitted
    (tmp_path / "book.json").write_bytes(book.to_bytes())
    (tmp_path / "codec.json").write_text(codec_text(codec))
    paths = []
    for number, slide in enumerate((*slides, slides[0])):
        folder = tmp_path / f"slice{number}"
        folder.mkdir()
        np.save(folder / "slide.npy", slide.image)
        (folder / "bands.txt").write_text("\n".join(codec.bands) + "\n")
        paths.append(folder / "slide.npy")

    def embedded(output, *words, of=paths):
        files = ["--codebook", tmp_path / "book.json", "--codec", tmp_path / "codec.json"]
        done = CliRunner().invoke(
            cli, ["embed", *map(str, (*of, *files, "-o", output, *words))], catch_exceptions=False
        )
        assert done.exit_code == 0, done.output
        return output

    return embedded


def test_a_codec_file_reads_back_as_the_codec(fitted):
    assert read_codec(codec_text(fitted[0])).identity == fitted[0].identity


def test_four_slides_become_four_channels_of_one_image(consecutive, fitted, book, tmp_path):
    codec, slides = fitted
    image = sitk.ReadImage(str(consecutive(tmp_path / "all.mha", "--pixel-mm", "0.5")))
    assert (image.GetNumberOfComponentsPerPixel(), image.GetSpacing()) == (4, (0.5, 0.5))
    expected = [embed(slide, codec, book) for slide in (*slides, slides[0])]
    assert np.array_equal(np.moveaxis(sitk.GetArrayFromImage(image), -1, 0), expected)
    chosen = consecutive(tmp_path / "chosen.mha", "--group", "tumour")
    values = np.moveaxis(sitk.GetArrayFromImage(sitk.ReadImage(str(chosen))), -1, 0)
    tumour = 1 + book.group_names.index("tumour")
    assert np.array_equal(values, 255 * (np.stack(expected) == tumour))


def test_a_group_that_the_codebook_does_not_name_is_refused(consecutive, tmp_path):
    with pytest.raises(InputDataError, match=r"one of background, .*tumour"):
        consecutive(tmp_path / "map.mha", "--group", "tumor")
    assert not (tmp_path / "map.mha").exists()


def test_an_agent_is_trained_on_four_embedded_slices_as_its_four_channels(consecutive, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for case in ("one", "two"):
        consecutive(images / f"{case}.mha", "--group", "tumour", "--pixel-mm", "0.5")
        write_landmarks(images / f"{case}.mrk.json", {"centre": np.array([20.0, 22.0, 0.0])}, "LPS")
    small = ["task.roi=15", "task.zooms=[1.0]", "network.width=4", "learner.updates=4"]
    small += ["learner.warmup=64", "learner.batch=8", "data.validation_share=0"]
    words = [word for change in small for word in ("--set", change)]
    run = tmp_path / "run"
    done = CliRunner().invoke(
        cli,
        ["train", "--task", "landmark-2d", "--data", str(images), "-o", str(run), *words],
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.output
    weights = load_file(run / "latest" / "model.safetensors")
    assert any(value.ndim == 4 and value.shape[1] == 4 for value in weights.values())


def test_a_map_in_pieces_is_the_map_and_needs_no_memory_for_a_larger_slide(
    fitted, book, tmp_path, bands
):
    codec, slides = fitted
    peaks = []
    for repeats in (32, 128):
        whole = np.concatenate([slides[0].image] * repeats)
        np.save(tmp_path / "slide.npy", whole)
        (tmp_path / "bands.txt").write_text("\n".join(bands))
        slide = open_slide(tmp_path / "slide.npy", bands)
        for _ in range(2):  # the first compiles
            tracemalloc.start()
            pieces = labels_of(slide, codec, book)
            counts = write_slide_map(tmp_path / "map.mha", slide, pieces, len(book.group_names))
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        peaks.append(peak)
        found = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "map.mha")))
        expected = embed(slide, codec, book)
        assert np.array_equal(found, expected)
        assert np.array_equal(counts, np.bincount(expected.ravel(), minlength=counts.size))
    assert slide.pixels > 8 * (1 << 16)
    assert peaks[1] < 1.5 * peaks[0]


@pytest.mark.parametrize("pieces", [[5, 6], [40, 9], []])
def test_a_map_of_another_size_than_its_slide_is_not_left_behind(tmp_path, pieces):
    parts = [np.zeros(n, np.uint8) for n in pieces]
    with pytest.raises(InputDataError, match="48 labels"):
        write_in_pieces(tmp_path / "map.mha", (6, 8), parts)
    assert list(tmp_path.iterdir()) == []


def test_channels_in_pieces_stand_side_by_side(tmp_path):
    labels = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(48, 3)
    write_in_pieces(tmp_path / "map.mha", (6, 8), [labels[:10], labels[10:]], 0.25, channels=3)
    image = sitk.ReadImage(str(tmp_path / "map.mha"))
    assert image.GetSpacing() == (0.25, 0.25)
    assert np.array_equal(sitk.GetArrayFromImage(image), labels.reshape(6, 8, 3))
