"""Text tables of landmarks: every layout says the same point, and nothing is guessed."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import ExitCode, InputDataError
from site_client.imaging.dataset import read_cases
from site_client.imaging.landmark_tables import read_landmark_table, read_voxel_lines
from site_client.imaging.landmarks import write_landmarks
from site_client.imaging.listfiles import find_files
from site_client.imaging.volumes import read_geometry

AT = np.array([9.25, -7.5, 33.0])
OBLIQUE = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
@pytest.mark.parametrize(
    "form",
    ["lps.mrk.json", "ras.mrk.json", "fcsv", "voxel lines", "csv mm", "csv ras", "csv voxel"],
)
def test_every_format_says_the_same_point_in_the_patient(tmp_path, write_blob, suffix, form):
    image = write_blob(f"a{suffix}", AT, spacing=(1.0, 0.5, 2.0), direction=OBLIQUE)
    index = read_geometry(image).world_to_index(AT)
    x, y, z = AT
    voxel = ",".join(repr(float(v)) for v in index)
    table = None
    if form.endswith(".mrk.json"):
        write_landmarks(tmp_path / "a.mrk.json", {"AC": AT}, form[:3].upper())
    elif form == "fcsv":
        written(
            tmp_path, "a.fcsv", f"# CoordinateSystem = 0\nid1,{-x},{-y},{z},0,0,0,1,1,1,0,AC,,\n"
        )
    elif form == "voxel lines":
        written(tmp_path, "a.txt", f"{voxel}\n")
    else:
        text = {
            "csv mm": f"# coordinateSystem = LPS\ncase,landmark,x_mm,y_mm,z_mm\na,AC,{x},{y},{z}\n",
            "csv ras": f"# unit = mm\n# coordinateSystem = RAS\nimage,label,x,y,z\n"
            f"a{suffix},AC,{-x},{-y},{z}\n",
            "csv voxel": f"case,AC_x,AC_y,AC_z\na,{voxel}\n",
        }[form]
        unit = "voxel" if form == "csv voxel" else None
        table = read_landmark_table(written(tmp_path, "points.csv", text), unit=unit)
    (case,) = read_cases(find_files([image]), ["AC"], 1.0, table=table, line_names=["AC"])
    np.testing.assert_allclose(case.landmarks_mm[0], AT, atol=1e-4)
    # The normalisation makes a plateau of what is brightest: take its middle.
    middle = np.argwhere(case.volume.voxels > 200).mean(axis=0)[::-1]
    assert np.linalg.norm(case.volume.index_to_world(middle) - AT) < 1.0


def test_lines_of_voxels_are_named_by_their_number_unless_told(tmp_path):
    path = written(tmp_path, "a.txt", "1,2,3\n\nnan,nan,nan\n4.5,5,6\n")
    assert {k: v.tolist() for k, v in read_voxel_lines(path).items()} == {
        "0": [1, 2, 3],
        "2": [4.5, 5, 6],
    }
    assert list(read_voxel_lines(path, ["AC", "PC", "genu", "splenium"])) == ["AC", "genu"]
    with pytest.raises(InputDataError, match="more landmarks than names"):
        read_voxel_lines(path, ["AC"])


def test_a_row_per_image_with_pixel_sizes_is_understood(tmp_path):
    path = written(
        tmp_path,
        "t.csv",
        "filename,px_mm,a_x,a_y,b_x,b_y\n1_HC.png,0.5,1,2,3,4\n2.png,0.25,5,6,,\n",
    )
    table = read_landmark_table(path, unit="voxel")
    assert table.pixel_mm == {"1_HC": 0.5, "2": 0.25}
    assert table.of("1_HC")["b"].tolist() == [3, 4]
    assert list(table.of("2")) == ["a"]


def test_a_table_without_header_is_a_row_of_pairs(tmp_path):
    path = written(tmp_path, "t.csv", "001,83.5,99.6,147.3,102.9\n002,81,105.2,139.5,98.5\n")
    table = read_landmark_table(path, unit="mm", names=["sella", "nasion"])
    assert table.of("002")["nasion"].tolist() == [139.5, 98.5]
    assert list(read_landmark_table(path, unit="mm").of("001")) == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("case,landmark,x,y\na,AC,1,2\n", "does not say its unit"),
        ("case,landmark,x_mm,y_voxel\na,AC,1,2\n", "columns are not understood"),
        ("case,landmark,x_ell,y_ell\na,AC,1,2\n", "unknown word"),
        ("case,landmark,x_mm,y_mm\na,AC,1,2\na,AC,3,4\n", "case a, landmark AC"),
        (
            "case,landmark,x_mm,y_mm\na,AC,one,2\n",
            "case a, landmark AC must be two or three numbers",
        ),
        ("case,landmark,x_mm,y_mm\na,AC,1,\n", "case a, landmark AC"),
        ("case,landmark,x_mm,y_mm\na,AC,1\n", "a row of another length"),
        ("case,AC_x,AC_y,PC_x\na,1,2,3\n", "columns are not understood"),
        ("# unit = mm\n001,1,2\n001,1,2\n", "stands twice"),
        ("# unit = mm\n001,1,2,3\n", "columns are not understood"),
        ("", "no landmarks in the table"),
    ],
)
def test_what_is_not_clear_is_refused_by_name(tmp_path, text, says):
    with pytest.raises(InputDataError, match=says) as refused:
        read_landmark_table(written(tmp_path, "t.csv", text))
    assert refused.value.exit_code == ExitCode.BAD_INPUT


def test_the_file_and_the_option_may_not_contradict_each_other(tmp_path):
    path = written(tmp_path, "t.csv", "case,landmark,x_mm,y_mm\na,AC,1,2\n")
    assert read_landmark_table(path, unit="mm").unit == "mm"
    with pytest.raises(InputDataError, match="something else than the option"):
        read_landmark_table(path, unit="voxel")


def test_millimetres_of_a_volume_need_a_frame(tmp_path, write_blob):
    image = write_blob("a.nii.gz", AT)
    table = read_landmark_table(
        written(tmp_path, "t.csv", "case,landmark,x_mm,y_mm,z_mm\na,AC,9.25,-7.5,33\n")
    )
    with pytest.raises(InputDataError, match="unknown coordinate system"):
        read_cases(find_files([image]), ["AC"], 1.0, table=table)


def test_a_mirrored_landmark_is_refused_with_a_hint(tmp_path, write_blob):
    image = write_blob("a.nii.gz", (38.0, -58.0, 30.0), centre_mm=(40.0, -60.0, 30.0))
    write_landmarks(tmp_path / "a.mrk.json", {"AC": np.array([-38.0, 58.0, 30.0])})
    with pytest.raises(InputDataError, match=r"a: AC .*signs of x and y reversed"):
        read_cases(find_files([image]), ["AC"], 1.0)


def test_metres_are_refused(tmp_path, write_blob):
    image = write_blob("a.nii.gz", (1.0, 2.0, 3.0), centre_mm=(0.0, 0.0, 0.0))
    points = {name: np.array([k, -k, k / 2]) / 100 for k, name in enumerate("abc")}
    write_landmarks(tmp_path / "a.mrk.json", points)
    with pytest.raises(InputDataError, match="centimetres or metres"):
        read_cases(find_files([image]), list("abc"), 1.0)


def test_a_landmark_that_nobody_marked_is_nan_but_one_must_be_there(tmp_path, write_blob):
    image = write_blob("a.nii.gz", AT)
    write_landmarks(tmp_path / "a.mrk.json", {"AC": AT})
    (case,) = read_cases(find_files([image]), ["PC", "AC"], 1.0)
    assert np.isnan(case.landmarks_mm[0]).all()
    np.testing.assert_allclose(case.landmarks_mm[1], AT)
    with pytest.raises(InputDataError, match="a: PC"):
        read_cases(find_files([image]), ["PC"], 1.0)


def test_voxels_beyond_the_grid_are_refused_by_case_and_landmark(tmp_path, write_blob):
    image = write_blob("a.nii.gz", AT, size=(40, 36, 32))
    written(tmp_path, "a.txt", "10,10,10\n10,10,32.5\n")
    with pytest.raises(InputDataError, match="a: 1 must be a voxel index"):
        read_cases(find_files([image]), ["0", "1"], 1.0)
