"""DICOM: a complete stack or a refusal, and no patient's header in memory or in a message."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from common.errors import InputDataError
from site_client.imaging.dicom import (
    READ_TAGS,
    pixel_spacing_mm,
    read_series,
    series_files,
    without_header,
)
from site_client.imaging.volumes import read_geometry, read_volume

AT = (2.0, -10.0, 28.0)
PATIENT = "Doe^Jane"


def write_flat_dicom(path, pixels, spacing=(1.0, 1.0), **tags):
    image = sitk.GetImageFromArray(pixels)
    image.SetSpacing(spacing)
    for tag, value in tags.items():
        image.SetMetaData(tag, value)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(path))
    writer.Execute(image)


def test_a_missing_slice_is_refused_and_not_bridged(write_blob, write_dicom):
    folder = write_dicom("series", write_blob("a.nii.gz", AT))
    assert len(series_files(folder)) == 32
    geometry = read_geometry(folder)
    assert geometry.size.tolist() == [40, 36, 32]
    sorted(folder.iterdir())[12].unlink()
    with pytest.raises(InputDataError, match="1 of 30 gaps differ"):
        series_files(folder)


def test_a_doubled_slice_is_refused(write_blob, write_dicom, tmp_path):
    folder = write_dicom("series", write_blob("a.nii.gz", AT))
    image = sitk.ReadImage(str(folder / "000.dcm"))
    image.SetMetaData("0008|0018", "1.2.3.4.999")
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(folder / "again.dcm"))
    writer.Execute(image)
    with pytest.raises(InputDataError, match="gaps differ"):
        read_volume(folder, 1.0)


def test_an_empty_folder_is_no_series(tmp_path):
    with pytest.raises(InputDataError, match="0 series"):
        series_files(tmp_path)


def test_headers_are_forgotten_and_no_tag_names_a_person(tmp_path, write_blob, write_dicom):
    folder = write_dicom("series", write_blob("a.nii.gz", AT))
    assert read_series(folder).GetMetaDataKeys() == ()
    path = tmp_path / "one.dcm"
    write_flat_dicom(
        path, np.arange(400, dtype=np.uint16).reshape(20, 20), **{"0010|0010": PATIENT}
    )
    image = sitk.ReadImage(str(path))
    assert PATIENT in image.GetMetaData("0010|0010")
    assert without_header(image).GetMetaDataKeys() == ()
    assert not any(tag.startswith("0010") for tag in READ_TAGS)


def test_an_error_about_a_dicom_file_never_quotes_its_header(tmp_path):
    path = tmp_path / "one.dcm"
    write_flat_dicom(path, np.full((20, 20), 7, np.uint16), **{"0010|0010": PATIENT})
    with pytest.raises(InputDataError) as refused:
        read_volume(path, 1.0)
    assert "Doe" not in str(refused.value)


def test_the_spacing_of_an_x_ray_is_read_with_rows_and_columns_the_right_way(tmp_path):
    path = tmp_path / "one.dcm"
    pixels = np.arange(400, dtype=np.uint16).reshape(20, 20)
    write_flat_dicom(path, pixels, (0.2, 0.3))
    assert pixel_spacing_mm(path) == (0.2, 0.3)
