"""Planar images: whatever the file, one point in millimetres."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from common.errors import InputDataError
from site_client.imaging.datasets2d import load_pictures
from site_client.imaging.landmark_tables import read_landmark_table
from site_client.imaging.landmarks import write_landmarks
from site_client.imaging.listfiles import find_files
from site_client.imaging.planar import read_picture

SPACING = 0.5
AT = np.array([22.5, 14.0])  # mm from the first pixel


def blob(shape=(60, 80), spacing=(SPACING, SPACING), at=AT):
    y, x = np.mgrid[: shape[0], : shape[1]]
    distance2 = (x * spacing[0] - at[0]) ** 2 + (y * spacing[1] - at[1]) ** 2
    return np.rint(250 * np.exp(-distance2 / 18)).astype(np.uint8)


def write(path, pixels, spacing=None, origin=None):
    image = sitk.GetImageFromArray(pixels, isVector=pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if spacing is not None:
        image.SetSpacing(spacing)
    if origin is not None:
        image.SetOrigin(origin)
    sitk.WriteImage(image, str(path))
    return path


def brightest(picture):
    """The middle of what is brightest, which the normalisation makes a plateau."""
    y, x = np.nonzero(picture.pixels > 200)
    return np.array([x.mean(), y.mean()]) * picture.spacing_mm


@pytest.mark.parametrize(
    ("suffix", "colour"),
    [(s, False) for s in (".png", ".jpg", ".bmp", ".tif", ".mha", ".nrrd", ".nii.gz", ".dcm")]
    + [(s, True) for s in (".png", ".jpg", ".bmp", ".tif", ".mha")],
)
def test_every_format_shows_the_same_point(tmp_path, suffix, colour):
    pixels = blob()
    if colour:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    path = write(tmp_path / f"a{suffix}", pixels, (SPACING, SPACING))
    picture = read_picture(path, 1.0, SPACING)
    assert np.linalg.norm(brightest(picture) - AT) <= 1.0
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.max() == 255


@pytest.mark.parametrize("form", ["mrk.json LPS", "mrk.json RAS", "voxel lines", "mm", "pixels"])
def test_every_landmark_file_says_the_same_point(tmp_path, form):
    path = write(tmp_path / "a.png", blob())
    table = None
    if form.startswith("mrk"):
        write_landmarks(tmp_path / "a.mrk.json", {"tip": np.array([*AT, 0.0])}, form[-3:])
    elif form == "voxel lines":
        (tmp_path / "a.txt").write_text(f"{AT[0] / SPACING},{AT[1] / SPACING}\n")
    else:
        scale = 1.0 if form == "mm" else 1 / SPACING
        unit = "mm" if form == "mm" else "voxel"
        text = f"case,landmark,x_{unit},y_{unit}\na.png,tip,{AT[0] * scale},{AT[1] * scale}\n"
        (tmp_path / "t.csv").write_text(text)
        table = read_landmark_table(tmp_path / "t.csv")
    (case,) = load_pictures(
        find_files([path]), ["tip", "none"], 0.8, pixel_mm=SPACING, table=table, line_names=["tip"]
    )
    np.testing.assert_allclose(case.landmarks_mm[0], AT, atol=1e-9)
    assert np.isnan(case.landmarks_mm[1]).all()


def test_oblong_pixels_become_square_and_keep_their_place(tmp_path):
    spacing = (0.4, 0.8)
    path = write(tmp_path / "a.mha", blob((40, 90), spacing), spacing)
    picture = read_picture(path, 0.5)
    assert np.linalg.norm(brightest(picture) - AT) <= 0.6
    np.testing.assert_allclose(picture.from_pixels(np.array([10.0, 10.0])), [4.0, 8.0])


def test_a_slice_of_a_volume_knows_where_it_lies_in_the_patient(tmp_path):
    image = sitk.GetImageFromArray(blob()[None])
    image.SetSpacing((SPACING, SPACING, 3.0))
    image.SetOrigin((-20.0, 30.0, 12.0))
    image.SetDirection((1, 0, 0, 0, 0, 1, 0, -1, 0))  # y of the image runs towards the feet
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    picture = read_picture(tmp_path / "a.mha", 1.0)
    world = picture.to_world(AT)
    expected = image.TransformContinuousIndexToPhysicalPoint((*(AT / SPACING), 0.0))
    np.testing.assert_allclose(world, expected)
    np.testing.assert_allclose(picture.to_plane(world, "a"), AT)
    with pytest.raises(InputDataError, match="outside the plane"):
        picture.to_plane(world + np.array([0.0, 9.0, 0.0]), "a: tip")


def test_components_of_a_medical_file_are_channels_and_are_normalised_together(tmp_path):
    dim, bright = blob() / 2, blob()
    image = sitk.GetImageFromArray(np.stack([dim, bright], axis=-1), isVector=True)
    image.SetSpacing((SPACING, SPACING))
    sitk.WriteImage(image, str(tmp_path / "two.mha"))
    picture = read_picture(tmp_path / "two.mha", SPACING)
    assert picture.channels.shape == (2, *blob().shape)
    middling = (picture.channels[1] > 60) & (picture.channels[1] < 200)
    ratio = picture.channels[0][middling] / picture.channels[1][middling]
    assert middling.sum() > 20
    assert np.abs(ratio - 0.5).max() < 0.1  # each by itself would make it 1
    assert np.linalg.norm(brightest(picture) - AT) <= 1.0
    many = sitk.Image([8, 8], sitk.sitkVectorUInt8, 17)
    sitk.WriteImage(many, str(tmp_path / "many.mha"))
    with pytest.raises(InputDataError, match="at most 16 channels"):
        read_picture(tmp_path / "many.mha", SPACING)


def test_a_file_that_does_not_know_its_pixels_must_be_told(tmp_path):
    path = write(tmp_path / "a.png", blob(), (SPACING, SPACING))
    with pytest.raises(InputDataError, match="how large its pixels are"):
        read_picture(path, 1.0)


def test_a_negative_is_turned_so_that_bone_is_bright(tmp_path):
    path = write(tmp_path / "a.dcm", 255 - blob(), (SPACING, SPACING))
    header = path.read_bytes()
    assert header.count(b"MONOCHROME2") == 1
    path.write_bytes(header.replace(b"MONOCHROME2", b"MONOCHROME1"))
    assert np.linalg.norm(brightest(read_picture(path, 1.0)) - AT) <= 1.0


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (np.zeros((20, 20), np.uint8), "constant"),
        (np.zeros((3, 20, 20), np.uint8), "two-dimensional"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path, pixels, says):
    path = write(tmp_path / "a.mha", pixels)
    with pytest.raises(InputDataError, match=says):
        read_picture(path, 1.0)


def test_a_landmark_outside_is_refused_by_case_and_name_with_a_hint(tmp_path):
    write(tmp_path / "a.png", blob())
    (tmp_path / "t.csv").write_text("case,landmark,x_mm,y_mm\na,tip,70,50\n")
    table = read_landmark_table(tmp_path / "t.csv")
    with pytest.raises(InputDataError, match=r"a: tip .*is the unit 'voxel'"):
        load_pictures(find_files([tmp_path]), ["tip"], 1.0, pixel_mm=SPACING, table=table)
