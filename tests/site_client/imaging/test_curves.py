from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from common.errors import InputDataError
from site_client.imaging.answers import write_curve_markups
from site_client.imaging.curves import (
    NAME,
    checked,
    curves_in,
    flat_curves_in,
    read_curve_table,
)
from site_client.imaging.data_settings import DataSettings
from site_client.imaging.landmarks import read_landmarks
from site_client.imaging.listfiles import CaseFiles
from site_client.imaging.sources import Wanted, curve_files
from site_client.imaging.volumes import read_volume

LINE = np.array([(1.0, 2.0, 3.0), (4.0, 5.0, 6.0), (7.0, 8.0, 6.5)])


@pytest.fixture
def volume(tmp_path):
    """A volume that is turned and not of 1 mm, beside which anything may be written."""
    image = sitk.Image([20, 22, 24], sitk.sitkInt16)
    image.SetSpacing((1.0, 1.5, 2.0))
    image.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))
    image.SetOrigin((-5.0, 20.0, -3.0))
    values = np.random.default_rng(0).integers(0, 99, (24, 22, 20)).astype(np.int16)
    filled = sitk.GetImageFromArray(values)
    filled.CopyInformation(image)
    image = filled
    sitk.WriteImage(image, str(tmp_path / "a.nii.gz"))
    return tmp_path / "a.nii.gz"


def files_of(volume, marks):
    return CaseFiles("a", volume, marks, "a")


def test_what_is_written_is_read_back_in_order(volume, tmp_path):
    path = tmp_path / "a.mrk.json"
    write_curve_markups(path, [("LAD", LINE), ("RCA", LINE[::-1])])
    curves = curves_in(files_of(volume, path), None)
    assert list(curves) == ["LAD", "RCA"]
    np.testing.assert_allclose(curves["LAD"], LINE)
    np.testing.assert_allclose(curves["RCA"], LINE[::-1])


def test_a_curve_in_ras_without_a_name_is_the_same_curve(volume, tmp_path):
    path = tmp_path / "a.mrk.json"
    write_curve_markups(path, [("x", LINE * (-1, -1, 1))])
    content = json.loads(path.read_text())
    content["markups"][0]["coordinateSystem"] = "RAS"
    del content["markups"][0]["name"]
    path.write_text(json.dumps(content))
    np.testing.assert_allclose(curves_in(files_of(volume, path), None)[NAME], LINE)


def test_a_closed_curve_is_no_vessel(volume, tmp_path):
    path = tmp_path / "a.mrk.json"
    write_curve_markups(path, [("x", LINE)])
    path.write_text(path.read_text().replace('"Curve"', '"ClosedCurve"'))
    with pytest.raises(InputDataError, match="not the course of a vessel") as refused:
        curves_in(files_of(volume, path), None)
    assert refused.value.got == "ClosedCurve"


def test_two_curves_of_one_name_are_refused(volume, tmp_path):
    path = tmp_path / "a.mrk.json"
    write_curve_markups(path, [("x", LINE), ("x", LINE)])
    with pytest.raises(InputDataError, match="a curve stands twice"):
        curves_in(files_of(volume, path), None)


def test_voxel_lines_are_placed_by_the_images_own_grid(volume, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("0,0,0\n2,4,6\n")
    np.testing.assert_allclose(
        curves_in(files_of(volume, path), None)[NAME], [(-5.0, 20.0, -3.0), (-3.0, 14.0, 9.0)]
    )


def test_a_table_has_the_curves_of_all_images(volume, tmp_path):
    table = tmp_path / "curves.csv"
    rows = "".join(f"a.nii.gz,LAD,{x},{y},{z}\n" for x, y, z in LINE * (-1, -1, 1))
    table.write_text("# coordinateSystem = RAS\ncase,curve,x_mm,y_mm,z_mm\n" + rows)
    read = read_curve_table(table)
    np.testing.assert_allclose(curves_in(files_of(volume, None), read)["LAD"], LINE)
    source = curve_files(Wanted((volume,), str(table)), DataSettings())
    assert [f.name for f in source.with_curves().files] == ["a"]


def test_a_flat_table_is_of_pixels_or_millimetres(tmp_path):
    table = tmp_path / "curves.csv"
    table.write_text("case,vessel,x_voxel,y_voxel\na,v,1,2\na,v,3,4\n")
    curves, given = flat_curves_in(files_of(tmp_path / "a.png", None), read_curve_table(table))
    assert given == "voxel"
    np.testing.assert_allclose(curves["v"], [(1, 2), (3, 4)])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("case,curve,x_mm,y_voxel\na,v,1,2\n", "the table's columns are not understood"),
        ("case,x_mm,y_mm\na,1,2\n", "the table's columns are not understood"),
        ("case,curve,x_mm,y_mm,z_mm\na,v,1,,3\n", "a point has no position"),
        ("case,curve,x_mm,y_mm,z_mm\na,v,1,2,inf\n", "a point has no position"),
        ("case,curve,x_mm,y_mm,z_mm\na,v,1,2\n", "a row of another length"),
        ("case,curve,x_mm,y_mm,z_mm\n", "no curves in the table"),
        ("", "the table's columns are not understood"),
    ],
)
def test_a_table_that_cannot_be_understood_is_refused(tmp_path, text, said):
    table = tmp_path / "curves.csv"
    table.write_text(text)
    with pytest.raises(InputDataError, match=said):
        read_curve_table(table)


def test_a_table_in_millimetres_of_a_volume_must_say_its_frame(volume, tmp_path):
    table = tmp_path / "curves.csv"
    table.write_text("case,curve,x_mm,y_mm,z_mm\na,v,1,2,3\na,v,4,5,6\n")
    with pytest.raises(InputDataError, match="unknown coordinate system"):
        curves_in(files_of(volume, None), read_curve_table(table))


def test_curves_that_nothing_can_be_traced_along_are_refused(volume):
    inside = read_volume(volume, 1.0)
    assert list(checked({"v": LINE}, "a", inside)) == ["v"]
    for points, said in (
        (LINE[:1], "a curve has no direction"),
        (np.repeat(LINE[:1], 3, axis=0), "a curve has no direction"),
        (LINE + 100, "a curve leaves the image"),
    ):
        with pytest.raises(InputDataError, match=said) as refused:
            checked({"v": points}, "a", inside)
        assert refused.value.field == "a: v"


def test_images_without_curves_are_named(volume):
    with pytest.raises(InputDataError, match="images without landmarks"):
        curve_files(Wanted((volume,)), DataSettings())
    source = curve_files(Wanted((volume,), need_truth=False), DataSettings())
    assert source.with_curves().files == ()


def test_a_list_of_points_is_read_as_landmarks_as_before(tmp_path):
    path = tmp_path / "a.mrk.json"
    write_curve_markups(path, [("x", LINE)])
    assert list(read_landmarks(path)) == ["x-1", "x-2", "x-3"]
