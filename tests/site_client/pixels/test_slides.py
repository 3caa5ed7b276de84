"""Slides of every kind: the same pixels, the right bands, a few rows at a time."""

import tracemalloc

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile

from common.errors import ExitCode, InputDataError
from site_client.pixels.slides import open_slide

NAMES = ("CD3", "CD8", "pS6", "DNA 1")
DTYPES = (np.uint8, np.uint16, np.float32)


def picture(dtype=np.uint16, rows=37, columns=29, bands=4):
    rng = np.random.default_rng(1)
    return rng.integers(0, 200, (rows, columns, bands)).astype(dtype)


def write_npy(folder, image):
    np.save(folder / "slide.npy", image)
    (folder / "slide.bands.txt").write_text("\n".join(NAMES) + "\n")
    return folder / "slide.npy"


def write_ome(folder, image, **options):
    path = folder / "slide.ome.tif"
    meta = {"axes": "CYX", "Channel": {"Name": list(NAMES)}}
    tifffile.imwrite(path, np.moveaxis(image, 2, 0), ome=True, metadata=meta, **options)
    return path


def write_tiles(folder, image):
    predictor = image.dtype.kind == "u"  # of floats tifffile alone cannot write
    return write_ome(folder, image, tile=(16, 16), compression="zlib", predictor=predictor)


def write_strips(folder, image):
    return write_ome(folder, image, rowsperstrip=5, compression="zlib")


def write_big_endian(folder, image):
    return write_ome(folder, image, byteorder=">")


def write_named_pages(folder, image):
    path = folder / "slide.tiff"
    with tifffile.TiffWriter(path) as writer:
        for name, band in zip(NAMES, np.moveaxis(image, 2, 0), strict=True):
            tags = [(285, "s", 0, name, False)]
            writer.write(band, extratags=tags, metadata=None, contiguous=False)
    return path


def write_interleaved(folder, image):
    (folder / "bands.txt").write_text("")
    path = folder / "slide.tif"
    tifffile.imwrite(path, image, photometric="minisblack", planarconfig="contig", metadata=None)
    return path


def write_separate(folder, image):
    path = folder / "slide.tif"
    planes = np.moveaxis(image, 2, 0)
    options = {"planarconfig": "separate", "rowsperstrip": 7, "compression": "zlib"}
    tifffile.imwrite(path, planes, photometric="minisblack", metadata=None, **options)
    return path


def write_folder(folder, image):
    inside = folder / "slide"
    inside.mkdir()
    for name, band in zip(NAMES, np.moveaxis(image, 2, 0), strict=True):
        tifffile.imwrite(inside / f"{name}.tif", band, rowsperstrip=16, compression="zlib")
    (inside / "notes.txt").write_text("not a band")
    return inside


def write_itk(folder, image):
    (folder / "bands.txt").write_text("\n".join(NAMES))
    path = folder / "slide.mha"
    sitk.WriteImage(sitk.GetImageFromArray(image, isVector=True), str(path))
    return path


NAMED = (
    write_npy,
    write_ome,
    write_tiles,
    write_strips,
    write_big_endian,
    write_named_pages,
    write_folder,
    write_itk,
)
UNNAMED = (write_interleaved, write_separate)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("write", [*NAMED, *UNNAMED])
def test_every_format_gives_the_same_pixels_in_chunks(tmp_path, write, dtype):
    image = picture(dtype)
    slide = open_slide(write(tmp_path, image), NAMES)
    assert slide.shape == image.shape
    assert slide.dtype == dtype
    chunks = list(slide.chunks(100))
    assert max(len(chunk) for chunk in chunks) == 87  # three rows of 29
    assert all(chunk.dtype == dtype and chunk.flags.c_contiguous for chunk in chunks)
    assert np.array_equal(np.concatenate(chunks).reshape(image.shape), image)


@pytest.mark.parametrize("write", NAMED)
def test_bands_are_found_by_name_in_the_order_asked_for(tmp_path, write):
    image = picture()
    slide = open_slide(write(tmp_path, image), ["pS6", "CD3"])
    assert slide.bands == ("pS6", "CD3")
    whole = np.concatenate(list(slide.chunks())).reshape(slide.shape)
    assert np.array_equal(whole, image[..., [2, 0]])


@pytest.mark.parametrize("write", NAMED)
def test_missing_bands_are_named(tmp_path, write):
    path = write(tmp_path, picture())
    with pytest.raises(InputDataError, match=r"missing.*HER2, Ki67") as refusal:
        open_slide(path, ["CD3", "HER2", "Ki67"])
    assert refusal.value.exit_code == ExitCode.BAD_INPUT


@pytest.mark.parametrize("write", UNNAMED)
def test_without_names_the_number_of_bands_must_fit(tmp_path, write):
    path = write(tmp_path, picture())
    with pytest.raises(InputDataError, match="must be 3 bands, got 4"):
        open_slide(path, NAMES[:3])


def test_a_band_that_stands_twice_is_named_wherever_it_stands(tmp_path):
    path = write_npy(tmp_path, picture())
    with pytest.raises(InputDataError, match="'CD8' twice"):
        open_slide(path, ["CD3", "CD8", "CD8"])
    (tmp_path / "slide.bands.txt").write_text("CD3\nCD8\nCD3\npS6\n")
    with pytest.raises(InputDataError, match=r"twice.*CD3"):
        open_slide(path, ["CD8", "CD3"])
    assert open_slide(path, ["CD8"]).shape == (37, 29, 1)


def test_a_wrong_number_of_names_is_refused(tmp_path):
    path = write_npy(tmp_path, picture())
    (tmp_path / "slide.bands.txt").write_text("CD3\nCD8\n")
    with pytest.raises(InputDataError, match="must be 4 names, got 2"):
        open_slide(path, ["CD3"])


def test_bands_of_another_size_or_type_are_named(tmp_path):
    folder = write_folder(tmp_path, picture())
    tifffile.imwrite(folder / "odd.tif", picture(rows=12)[..., 0])
    tifffile.imwrite(folder / "strange.tif", picture(np.uint8)[..., 0])
    with pytest.raises(InputDataError, match="odd, strange"):
        open_slide(folder, NAMES)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda f: f / "absent.npy", "no such file"),
        (lambda f: _touch(f / "slide.png"), "another suffix"),
        (lambda f: _touch(f / "slide.npy"), "a .npy file"),
        (lambda f: _touch(f / "slide.tif"), "a TIFF file"),
        (lambda f: _touch(f / "slide.mha"), "does not open"),
        (lambda f: f, "must be TIFF files"),
        (lambda f: _save(f, np.zeros((3, 4))), "2 dimensions"),
        (lambda f: _save(f, np.zeros((3, 4, 4))), "float64"),
        (lambda f: _save(f, np.zeros((3, 4, 4), np.uint8, order="F")), "Fortran"),
        (lambda f: _save(f, np.zeros((0, 4, 4), np.uint8)), "none at all"),
        (lambda f: _save(f, np.array([[[{}]]])), "C order"),
    ],
)
def test_what_is_no_slide_is_refused(tmp_path, make, problem):
    with pytest.raises(InputDataError, match=problem):
        open_slide(make(tmp_path), NAMES)


def _touch(path):
    path.write_bytes(b"nothing that anyone can read")
    return path


def _save(folder, array):
    np.save(folder / "slide.npy", array)
    return folder / "slide.npy"


def test_stacks_of_slides_are_refused(tmp_path):
    stack = np.zeros((3, 4, 9, 9), np.uint8)
    tifffile.imwrite(tmp_path / "s.ome.tif", stack, ome=True, metadata={"axes": "ZCYX"})
    with pytest.raises(InputDataError, match="one plane per band"):
        open_slide(tmp_path / "s.ome.tif", NAMES)
    volume = sitk.Image([5, 5, 3], sitk.sitkVectorUInt8, 4)
    sitk.WriteImage(volume, str(tmp_path / "v.mha"))
    with pytest.raises(InputDataError, match="two-dimensional"):
        open_slide(tmp_path / "v.mha", NAMES)


def test_a_file_that_ends_early_is_noticed(tmp_path):
    path = write_npy(tmp_path, picture())
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputDataError, match="as many pixels"):
        list(open_slide(path, NAMES).chunks())
    (tmp_path / "t").mkdir()
    path = write_separate(tmp_path / "t", picture())
    slide = open_slide(path, NAMES)
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[0].dataoffsets[-1]
    damaged = bytearray(path.read_bytes())
    damaged[offset : offset + 20] = b"x" * 20
    path.write_bytes(bytes(damaged))
    with pytest.raises(InputDataError, match="readable segments"):
        list(slide.chunks())


@pytest.mark.parametrize("kind", ["npy", "tiles", "raw pages", "mha"])
def test_a_slide_is_never_in_memory_as_a_whole(tmp_path, kind):
    image = np.zeros((1600, 700, 8), np.uint16)  # 18 MB
    image[::7, ::5] = 77
    names = tuple("abcdefgh")
    path = tmp_path / {"npy": "s.npy", "mha": "s.mha"}.get(kind, "s.tif")
    if kind == "npy":
        np.save(path, image)
    elif kind == "mha":
        sitk.WriteImage(sitk.GetImageFromArray(image, isVector=True), str(path))
    else:
        how = {"tile": (64, 64), "compression": "zlib"} if kind == "tiles" else {}
        tifffile.imwrite(path, np.moveaxis(image, 2, 0), photometric="minisblack", **how)
    total = int(image.sum())
    del image
    slide = open_slide(path, names)
    assert sum(int(chunk.sum()) for chunk in slide.chunks(5000)) == total  # and warms up
    tracemalloc.start()
    try:
        assert sum(int(chunk.sum()) for chunk in slide.chunks(5000)) == total
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000


def test_a_slide_says_nothing_of_where_it_lies(tmp_path):
    slide = open_slide(write_npy(tmp_path, picture()), NAMES)
    assert str(tmp_path) not in repr(slide)
    assert "slide.npy" not in repr(slide)
