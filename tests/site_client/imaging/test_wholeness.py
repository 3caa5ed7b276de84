"""A file that ends early is refused by name, and is never filled up with zeros and trained on."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from common.errors import InputDataError
from common.settings import TaskSettings
from site_client.imaging.contents import content_of
from site_client.imaging.dataset import load_cases
from site_client.imaging.faults import CutShortError, EmptyImageError, UnusableCasesError
from site_client.imaging.label_images import labels_in
from site_client.imaging.multiband import open_bands
from site_client.imaging.planar import read_picture
from site_client.imaging.volumes import read_volume
from site_client.imaging.wholeness import require_whole
from tests.conftest import write_case

NOISE = np.random.default_rng(1).integers(1, 200, (12, 14, 16)).astype(np.int16)
VOLUMES = ["a.nii.gz", "a.nii", "a.mha", "packed.mha", "a.nrrd", "packed.nrrd"]
PICTURES = ["a.png", "a.jpg", "a.tif"]
TASK = TaskSettings(landmarks=("A", "B"), spacing_mm=1.0)


def write(path: Path) -> Path:
    flat = path.suffix in (".png", ".jpg")
    image = sitk.GetImageFromArray(NOISE[0].astype(np.uint8) if flat else NOISE)
    packed = path.name.startswith("packed") or path.suffix == ".gz"
    sitk.WriteImage(image, str(path), useCompression=packed)
    return path


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: max(1, int(len(data) * share))])


@pytest.mark.parametrize("name", VOLUMES + PICTURES)
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_whole_file_passes_and_a_shortened_one_is_refused(tmp_path, name, share):
    path = write(tmp_path / name)
    require_whole(path)
    cut(path, share)
    with pytest.raises(CutShortError, match=rf"{name}.*Copy it again"):
        require_whole(path)


@pytest.mark.parametrize("name", VOLUMES)
def test_no_reader_of_volumes_opens_a_shortened_file(tmp_path, name):
    path = write(tmp_path / name)
    read_volume(path, 1.0)
    cut(path, 0.6)
    with pytest.raises(CutShortError):
        read_volume(path, 1.0)
    with pytest.raises(CutShortError):
        labels_in(path, 3)


def test_no_reader_of_pictures_or_slides_opens_a_shortened_file(tmp_path):
    picture, slide = write(tmp_path / "a.jpg"), tmp_path / "s.nii"
    sitk.WriteImage(sitk.GetImageFromArray(NOISE[:1].astype(np.uint8)), str(slide))
    for path in (picture, slide):
        cut(path, 0.8)
    with pytest.raises(CutShortError):
        read_picture(picture, 1.0, 1.0)
    with pytest.raises(CutShortError):
        open_bands(slide)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8000))
def test_a_compressed_scan_passes_only_with_its_last_byte(tmp_path_factory, missing):
    path = write(tmp_path_factory.mktemp("cut") / "a.nii.gz")
    data = path.read_bytes()
    path.write_bytes(data[: max(20, len(data) - missing)])
    with pytest.raises(InputDataError):
        require_whole(path)


@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"tile": (16, 16)}, {"byteorder": ">"}])
def test_a_tiff_without_its_last_pages_is_refused(tmp_path, options):
    path = tmp_path / "pages.tif"
    tifffile.imwrite(path, NOISE.astype(np.uint16), **options)
    require_whole(path)
    cut(path, 0.7)
    with pytest.raises(CutShortError):
        require_whole(path)


def test_the_preview_inside_a_photograph_does_not_end_it(tmp_path):
    path = tmp_path / "p.jpg"
    Image.fromarray(np.tile(NOISE[0].astype(np.uint8), (8, 8))).save(path, progressive=True)
    data = path.read_bytes()
    inner = data[:2] + b"\xff\xe1\x00\x06\xff\xd8\xff\xd9" + data[2:]
    path.write_bytes(inner)
    require_whole(path)
    path.write_bytes(inner[: len(inner) // 2])
    with pytest.raises(CutShortError):
        require_whole(path)


def test_a_header_that_promises_more_than_was_packed_is_refused(tmp_path):
    plain, packed = write(tmp_path / "a.nii"), tmp_path / "b.nii.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()[:-100]))
    with pytest.raises(CutShortError, match="bytes after decompression"):
        require_whole(packed)


def test_damaged_bytes_are_told_from_missing_ones(tmp_path):
    path = write(tmp_path / "a.nii.gz")
    data = bytearray(path.read_bytes())
    data[-6] ^= 0xFF  # of the checksum
    path.write_bytes(bytes(data))
    with pytest.raises(InputDataError, match="damaged") as caught:
        require_whole(path)
    assert not isinstance(caught.value, CutShortError)


def test_padding_behind_a_complete_image_is_no_fault(tmp_path):
    path = write(tmp_path / "a.nii.gz")
    path.write_bytes(path.read_bytes() + b"padding of an archive")
    require_whole(path)


@given(st.integers(100, 5000))
@settings(max_examples=20, deadline=None)
def test_a_file_packed_in_many_pieces_is_read_through_all_of_them(tmp_path_factory, size):
    folder = tmp_path_factory.mktemp("pieces")
    data = write(folder / "a.nii").read_bytes()
    pieces = [gzip.compress(data[k : k + size]) for k in range(0, len(data), size)]
    path = folder / "b.nii.gz"
    path.write_bytes(b"".join(pieces))
    require_whole(path)
    path.write_bytes(b"".join(pieces[:-1]))
    with pytest.raises(InputDataError):
        require_whole(path)


def test_a_file_of_no_bytes_is_empty(tmp_path):
    path = tmp_path / "a.nii.gz"
    path.touch()
    with pytest.raises(EmptyImageError, match="0 bytes"):
        read_volume(path, 1.0)


def test_a_slice_that_lost_its_header_is_missed_even_at_the_end_of_a_stack(write_blob, write_dicom):
    folder = write_dicom("series", write_blob("a.nii.gz", (2.0, -10.0, 28.0)))
    read_volume(folder, 1.0)
    (folder / "000.dcm").write_bytes((folder / "000.dcm").read_bytes()[:100])
    with pytest.raises(CutShortError, match=r"000\.dcm.*31 of 32"):
        read_volume(folder, 1.0)


def test_training_refuses_every_shortened_case_by_name_and_says_all_of_them(tmp_path):
    for number in range(4):
        write_case(tmp_path, f"case-{number}", number)
    assert len(load_cases(tmp_path, TASK)) == 4
    cut(tmp_path / "case-1.nii.gz", 0.02)
    with pytest.raises(CutShortError, match=r"case-1\.nii\.gz"):
        load_cases(tmp_path, TASK)
    cut(tmp_path / "case-3.nii.gz", 0.5)
    with pytest.raises(UnusableCasesError, match=r"2 cases .*case-1.*case-3") as caught:
        load_cases(tmp_path, TASK)
    assert len(caught.value.each) == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.nii.gz", "gzipped NIfTI"), ("a.nii", "NIfTI"), ("a.mha", "MetaImage"), ("a.nrrd", "NRRD"),
     ("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.tif", "TIFF")],
)  # fmt: skip
def test_a_file_is_known_by_its_beginning_whatever_it_is_called(tmp_path, name, content):
    path = write(tmp_path / name).rename(tmp_path / "nameless")
    assert content_of(path) == content
    (tmp_path / "letter").write_text("Dear colleague")
    assert content_of(tmp_path / "letter") is None


def test_every_file_of_the_real_data_is_whole():
    folder = Path(__file__).parents[4] / "shared" / "data"
    files = [p for p in folder.rglob("*") if p.is_file()] if folder.is_dir() else []
    if not files:
        pytest.skip("no real data beside this checkout")
    for path in files:
        require_whole(path)
