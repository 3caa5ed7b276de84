from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import center_of_mass
from scipy.spatial.transform import Rotation

from common.errors import InputDataError
from site_client.imaging.folders import image_stem
from site_client.imaging.synthesis import Grid, RawImage, read_raw, write_raw
from site_client.imaging.volumes import Volume, read_volume

TRUTH = np.array([8.5, -9.0, 33.25])
FLIPS = {
    "LPS": np.eye(3),
    "RAS": np.diag([-1.0, -1.0, 1.0]),
    "PSR": np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
    "tilted": Rotation.from_euler("xyz", [12, -20, 33], degrees=True).as_matrix(),
    "tilted RAS": Rotation.from_euler("xyz", [5, 9, -14], degrees=True).as_matrix()
    @ np.diag([-1.0, -1.0, 1.0]),
}


def brightest_world_mm(volume):
    z, y, x = center_of_mass(volume.voxels.astype(float) ** 2)
    return volume.index_to_world(np.array([x, y, z]))


@pytest.mark.parametrize("direction", FLIPS.values(), ids=FLIPS)
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 1.1, 2.0)], ids=["iso", "aniso"])
@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_a_point_stays_where_it_is_in_every_orientation_spacing_and_format(
    write_blob, direction, spacing, suffix
):
    path = write_blob(f"blob{suffix}", TRUTH, direction=direction, spacing=spacing)
    volume = read_volume(path, 1.0)
    assert np.linalg.norm(brightest_world_mm(volume) - TRUTH) < 0.1
    np.testing.assert_array_equal(volume.direction, np.eye(3))


@pytest.mark.parametrize("spacing_mm", [0.7, 1.0, 2.0])
def test_the_working_spacing_moves_nothing(write_blob, spacing_mm):
    path = write_blob("blob.nii.gz", TRUTH, direction=FLIPS["RAS"], sigma_mm=4.0)
    volume = read_volume(path, spacing_mm)
    assert volume.spacing_mm == spacing_mm
    assert np.linalg.norm(brightest_world_mm(volume) - TRUTH) < 0.15 * spacing_mm


@given(
    point=st.tuples(*[st.floats(-500, 500)] * 3),
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing_mm=st.floats(0.2, 5),
)
@settings(max_examples=50, deadline=None)
def test_index_and_world_are_inverse_to_each_other(point, angles, spacing_mm):
    direction = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    volume = Volume(np.zeros((3, 4, 5), np.uint8), spacing_mm, (1.0, -2.0, 3.0), direction)
    there = volume.world_to_index(np.array(point))
    np.testing.assert_allclose(volume.index_to_world(there), point, atol=1e-8)


def test_voxels_use_the_whole_byte_and_cannot_be_changed(write_blob):
    volume = read_volume(write_blob("blob.mha", TRUTH), 1.0)
    assert volume.voxels.min() == 0
    assert volume.voxels.max() == 255
    with pytest.raises(ValueError, match="read-only"):
        volume.voxels[0, 0, 0] = 1


def test_brightness_and_offset_of_a_scanner_do_not_matter(write_blob, tmp_path):
    path = write_blob("blob.mha", TRUTH, dtype=np.float32)
    raw = read_raw(path)
    other = tmp_path / "other.mha"
    write_raw(other, RawImage(raw.voxels * np.float32(7) + np.float32(100), raw.grid))
    one, two = read_volume(path, 1.0), read_volume(other, 1.0)
    assert np.abs(one.voxels.astype(int) - two.voxels.astype(int)).max() <= 1


def test_a_dicom_series_is_put_together_by_position_not_by_file_name(write_blob, write_dicom):
    tilted = FLIPS["tilted"]
    path = write_blob("blob.mha", TRUTH, direction=tilted, spacing=(0.9, 0.9, 1.5))
    volume = read_volume(write_dicom("series", path), 1.0)
    assert np.linalg.norm(brightest_world_mm(volume) - TRUTH) < 0.1


def test_a_dicom_folder_without_a_series_is_refused(tmp_path):
    with pytest.raises(InputDataError, match="0 series"):
        read_volume(tmp_path, 1.0)


def test_a_file_that_is_no_image_is_refused(tmp_path):
    path = tmp_path / "letter.nii.gz"
    path.write_bytes(b"Dear colleague")
    with pytest.raises(InputDataError, match="cannot read the image"):
        read_volume(path, 1.0)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputDataError, match="no such file"):
        read_volume(tmp_path / "none.nii.gz", 1.0)


@pytest.mark.parametrize(
    ("voxels", "complaint"),
    [
        (np.zeros((9, 9, 9), np.uint8), "constant"),
        (np.full((9, 9, 9), np.nan, np.float32), "NaN"),
        (np.zeros((1, 9, 9), np.uint8), "single slice"),
    ],
    ids=["constant", "nan", "flat"],
)
def test_an_image_without_content_is_refused(tmp_path, voxels, complaint):
    path = tmp_path / "odd.mha"
    size = tuple(reversed(voxels.shape))
    write_raw(path, RawImage(voxels, Grid(size, (1.0,) * 3, (0.0,) * 3, np.eye(3))))
    with pytest.raises(InputDataError, match=complaint):
        read_volume(path, 1.0)


def test_an_absurd_spacing_in_the_header_is_refused_before_memory_is_taken(write_blob):
    path = write_blob("huge.mha", TRUTH, spacing=(900.0, 900.0, 900.0), sigma_mm=5000.0)
    with pytest.raises(InputDataError, match="2\\^30 voxels"):
        read_volume(path, 1.0)


def test_only_known_suffixes_are_images(tmp_path):
    assert image_stem(tmp_path / "a.nii.gz") == "a"
    assert image_stem(tmp_path / "sub-1_T1w.NRRD") == "sub-1_T1w"
    assert image_stem(tmp_path / "notes.txt") is None
    assert image_stem(tmp_path / ".nii.gz") is None
