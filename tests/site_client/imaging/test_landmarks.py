from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import ExitCode, InputDataError
from site_client.imaging.landmarks import place_landmarks, read_landmarks, write_landmarks
from site_client.imaging.volumes import Volume

POINTS = {"AC": np.array([1.5, -2.25, 3.0]), "PC": np.array([0.0, 20.0, -7.125])}
VOLUME = Volume(np.zeros((40, 60, 50), np.uint8), 1.0, (-20.0, -30.0, -20.0), np.eye(3))


@given(
    points=st.dictionaries(
        st.text("ABCabc 123", min_size=1).map(str.strip).filter(bool),
        st.tuples(*[st.floats(-1e3, 1e3)] * 3).map(np.array),
        max_size=5,
    ),
    system=st.sampled_from(["LPS", "RAS"]),
)
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_is_written_is_read_again_in_either_frame(tmp_path, points, system):
    path = tmp_path / "points.mrk.json"
    write_landmarks(path, points, system)
    found = read_landmarks(path)
    assert list(found) == list(points)
    for name, position in points.items():
        np.testing.assert_array_equal(found[name], position)


def test_ras_and_lps_differ_by_the_sign_of_x_and_y(tmp_path):
    path = tmp_path / "points.mrk.json"
    write_landmarks(path, POINTS, "RAS")
    text = path.read_text()
    assert json.loads(text)["markups"][0]["controlPoints"][0]["position"] == [-1.5, 2.25, 3.0]
    path.write_text(text.replace('"RAS"', '"LPS"'))
    np.testing.assert_array_equal(read_landmarks(path)["AC"], [-1.5, 2.25, 3.0])


@pytest.mark.parametrize(("number", "sign"), [("0", -1), ("1", 1), ("RAS", -1), ("LPS", 1)])
def test_the_older_comma_separated_file_is_read(tmp_path, number, sign):
    path = tmp_path / "points.fcsv"
    path.write_text(
        f"# Markups fiducial file version = 4.6\n# CoordinateSystem = {number}\n"
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
        'vtkMRMLMarkupsFiducialNode_1,1.5,-2.25,3,0,0,0,1,1,1,0,AC,"anterior, commissure",\n'
    )
    np.testing.assert_array_equal(read_landmarks(path)["AC"], [sign * 1.5, sign * -2.25, 3.0])


def markups(**changes):
    point = {"label": "AC", "position": [1, 2, 3]} | changes.pop("point", {})
    markup = {"coordinateSystem": "LPS", "controlPoints": [point]} | changes
    return {"markups": [{k: v for k, v in markup.items() if v is not None}]}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (markups(coordinateSystem="IJK"), "LPS or RAS, got another one"),
        (markups(coordinateSystem=None), "LPS or RAS, got nothing"),
        (markups(coordinateUnits="cm"), "unit of length"),
        (markups(point={"position": [1, 2]}), "AC must be three numbers"),
        (markups(point={"position": [1, 2, "x"]}), "AC must be three numbers"),
        (markups(point={"position": [1, 2, None]}), "AC must be three numbers"),
        (markups(point={"position": [1, 2, True]}), "AC must be three numbers"),
        (markups(point={"position": [1, 2, "NaN"]}), "AC must be finite"),
        (markups(point={"label": 7}), "another structure"),
        ({"markups": [markups()["markups"][0]] * 2}, "twice"),
        ({"markups": {}}, "another structure"),
        ([], "another structure"),
    ],
)
def test_a_malformed_file_is_refused_with_the_reason(tmp_path, content, complaint):
    path = tmp_path / "points.mrk.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputDataError, match=complaint):
        read_landmarks(path)


@pytest.mark.parametrize(
    "text", ["{", "id,1,2,3", "# CoordinateSystem = 0\nid,1,2\n", "# nothing\n"]
)
def test_a_malformed_text_is_refused(tmp_path, text):
    path = tmp_path / ("points.mrk.json" if text == "{" else "points.fcsv")
    path.write_text(text)
    with pytest.raises(InputDataError):
        read_landmarks(path)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "points.fcsv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputDataError, match="UnicodeDecodeError"):
        read_landmarks(path)


def test_points_marked_as_missing_are_not_there(tmp_path):
    path = tmp_path / "points.mrk.json"
    path.write_text(json.dumps(markups(point={"positionStatus": "missing"})))
    assert read_landmarks(path) == {}


def test_landmarks_come_in_the_order_of_the_task():
    placed = place_landmarks(POINTS, ("PC", "AC"), VOLUME, "sub-1")
    np.testing.assert_array_equal(placed, [POINTS["PC"], POINTS["AC"]])


def test_a_missing_landmark_is_named_with_its_case():
    with pytest.raises(InputDataError, match="sub-1: PMJ must be in the landmark file") as refusal:
        place_landmarks(POINTS, ("AC", "PMJ"), VOLUME, "sub-1")
    assert refusal.value.exit_code == ExitCode.BAD_INPUT


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "got an empty file"),
        (("ac", "pc"), "got 'ac', 'pc'"),
        ("abcdefgh", "got 'a', 'b', 'c', 'd', 'e', 'f' and 2 more"),
    ],
)
def test_a_file_with_other_names_says_which(names, said):
    points = dict.fromkeys(names, POINTS["AC"])
    with pytest.raises(InputDataError, match=said):
        place_landmarks(points, ("AC",), VOLUME, "sub-1")


def test_a_landmark_outside_the_image_is_named_without_its_position():
    outside = POINTS | {"PC": np.array([0.0, 31.0, 0.0])}
    with pytest.raises(InputDataError, match="sub-1: PC must be within") as refusal:
        place_landmarks(outside, ("AC", "PC"), VOLUME, "sub-1")
    assert "31" not in str(refusal.value)
