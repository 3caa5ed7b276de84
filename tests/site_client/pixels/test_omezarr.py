"""OME-Zarr as other programs write it: the same pixels, whatever the chunks; refused by name."""

import builtins
import json
import tracemalloc

import numpy as np
import pytest

from common.errors import InputDataError
from site_client.pixels import omezarr
from site_client.pixels.digests import digest_of
from site_client.pixels.slides import open_every_band, open_slide
from site_client.worker.slide_folder import find_slides

NAMES = ("dna", "keratin", "cd3")
AXES = [{"name": "c", "type": "channel"}, {"name": "y", "type": "space"}, {"name": "x"}]


@pytest.fixture
def zarr():
    return pytest.importorskip("zarr", reason="the extra 'zarr' is not installed")


@pytest.fixture
def image():
    return np.random.default_rng(1).integers(0, 60_000, (37, 29, 3)).astype(np.uint16)


@pytest.fixture
def written(zarr, image, tmp_path):
    """Write the image as other programs do: planes of bands, chunked; 0.4 or 0.5."""

    def write(version=3, chunks=(1, 16, 10), axes=AXES, names=NAMES, planes=None, **more):
        planes = np.moveaxis(image, -1, 0) if planes is None else planes
        path = tmp_path / f"slide-{len(list(tmp_path.iterdir()))}.zarr"
        group = zarr.open_group(str(path), mode="w", zarr_format=version)
        array = group.create_array("0", shape=planes.shape, chunks=chunks, dtype=planes.dtype)
        array[...] = planes
        ome = {"multiscales": [{"axes": list(axes), "datasets": [{"path": "0"}]}], **more}
        if names:
            ome["omero"] = {"channels": [{"label": name} for name in names]}
        group.attrs.update({"ome": ome} if version == 3 else ome)
        return path

    return write


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("chunks", [(1, 16, 10), (3, 37, 29), (2, 5, 29)])
def test_pixels_are_those_of_the_image_in_the_order_that_was_asked(written, image, version, chunks):
    path = written(version, chunks)
    slide = open_slide(path, ("cd3", "dna"))
    assert (slide.shape, slide.dtype) == ((37, 29, 2), np.uint16)
    found = np.concatenate(list(slide.chunks(100)))
    assert np.array_equal(found, image[..., [2, 0]].reshape(-1, 2))
    assert find_slides(path.parent) == [path]
    assert len(digest_of(bytes(16), path)) == 64


def test_further_axes_of_length_one_and_exchanged_ones_are_read(written, image):
    planes = np.moveaxis(image, -1, 0)[None].swapaxes(2, 3)
    axes = [{"name": name} for name in "tcxy"]
    slide = open_every_band(written(planes=planes, chunks=(1, 1, 8, 8), axes=axes, names=()))
    assert slide.bands == ("band 1", "band 2", "band 3")
    assert np.array_equal(np.concatenate(list(slide.chunks())), image.reshape(-1, 3))


def test_what_is_no_such_image_is_refused(written, image, tmp_path, zarr):
    stack = np.stack([np.moveaxis(image, -1, 0)] * 2)
    axes = [{"name": name} for name in "zcyx"]
    with pytest.raises(InputDataError, match="axes c, y, x"):
        open_every_band(written(planes=stack, chunks=(1, 1, 8, 8), axes=axes))
    zarr.open_group(str(tmp_path / "empty.zarr"), mode="w")
    with pytest.raises(InputDataError, match="multiscales"):
        open_every_band(tmp_path / "empty.zarr")
    with pytest.raises(InputDataError, match="bands are missing"):
        open_slide(written(), ("dna", "cd20"))
    with pytest.raises(InputDataError, match="3 names"):
        open_slide(written(names=NAMES[:2]), NAMES[:2])
    broken = written()
    (broken / "zarr.json").write_text("{")
    with pytest.raises(InputDataError, match="a Zarr group"):
        open_every_band(broken)


def test_a_damaged_chunk_is_refused_and_not_taken_for_background(written):
    path = written()
    slide = open_slide(path, NAMES)
    for chunk in [file for file in (path / "0" / "c").rglob("*") if file.is_file()]:
        chunk.write_bytes(b"no chunk")
    with pytest.raises(InputDataError, match="can be decoded"):
        list(slide.chunks())


def test_memory_does_not_grow_with_the_height_of_chunks(written, monkeypatch):
    planes = np.zeros((3, 2000, 500), np.uint16)
    path = written(planes=planes, chunks=(1, 2000, 100))
    monkeypatch.setattr(omezarr, "HELD", 1 << 17)
    slide = open_slide(path, NAMES)
    rows = list(slide.chunks(3000))
    assert sum(map(len, rows)) == 1_000_000
    del rows
    tracemalloc.start()
    pixels = sum(len(chunk) for chunk in slide.chunks(3000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pixels == 1_000_000
    assert peak < 4_000_000 < planes.nbytes  # a plane's chunks, and little more


def test_without_the_extra_the_refusal_says_what_to_install(tmp_path, monkeypatch):
    folder = tmp_path / "slide.zarr"
    folder.mkdir()
    (folder / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group"}))
    honest = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "zarr":
            raise ModuleNotFoundError("No module named 'zarr'", name="zarr")
        return honest(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        InputDataError, match=r"extra 'zarr'.*no module zarr.*Install it: .*\[zarr\]"
    ):
        open_every_band(folder)
