"""True boxes: from label images whatever their orientation, and from tables in any unit."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from common.errors import InputDataError
from site_client.imaging.boxes import boxes_of_volume, find_label_images, read_box_table
from site_client.imaging.label_images import boxes_in_volume, labels_in
from site_client.imaging.listfiles import CaseFiles
from site_client.imaging.volumes import read_volume


@pytest.fixture
def labelled(tmp_path):
    """A volume whose axes are turned and flipped, and two components of a label in it."""
    labels = np.zeros((12, 14, 16), np.uint8)
    labels[2:5, 3:6, 4:9] = 7
    labels[8:11, 9:12, 10:12] = 7
    labels[0, 0, 0] = 9
    for name, array in (("head_label", labels), ("head", labels.astype(np.int16) * 40 + 5)):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((1.0, 2.0, 1.5))
        image.SetOrigin((10.0, -20.0, 30.0))
        image.SetDirection((0, -1, 0, -1, 0, 0, 0, 0, 1))
        sitk.WriteImage(image, str(tmp_path / f"{name}.nii.gz"))
    return tmp_path


def test_a_box_holds_the_outer_faces_of_its_component_in_the_patient(labelled):
    found = boxes_in_volume(labelled / "head_label.nii.gz", least_voxels=2)
    assert [label for label, _ in found] == ["7", "7"]
    image = sitk.ReadImage(str(labelled / "head_label.nii.gz"))
    ends = [
        image.TransformContinuousIndexToPhysicalPoint(index)
        for index in ((3.5, 2.5, 1.5), (8.5, 5.5, 4.5))
    ]
    expected = np.stack([np.min(ends, axis=0), np.max(ends, axis=0)])
    np.testing.assert_allclose(found[0][1], expected, atol=1e-5)
    assert labels_in(labelled / "head_label.nii.gz", 3) == ["7", "9"]
    assert len(boxes_in_volume(labelled / "head_label.nii.gz")) == 3


@pytest.mark.parametrize("frame", ["voxel", "LPS", "RAS"])
def test_a_table_says_the_same_in_every_unit_and_frame(labelled, frame):
    image = labelled / "head.nii.gz"
    (first, *_) = boxes_in_volume(labelled / "head_label.nii.gz", 2)
    corners = first[1]
    if frame == "voxel":
        text, numbers = "# unit = voxel\n", [4, 3, 2, 8, 5, 4]
    else:
        sign = np.array([-1, -1, 1]) if frame == "RAS" else np.ones(3)
        both = np.sort(corners * sign, axis=0)
        text, numbers = f"# unit = mm\n# coordinateSystem = {frame}\n", both.ravel().tolist()
    text += "case,label,x0,y0,z0,x1,y1,z1\nhead.nii.gz,7," + ",".join(map(str, numbers)) + "\n"
    (labelled / "b.csv").write_text(text)
    case = CaseFiles("head", image, None, "head")
    table = read_box_table(labelled / "b.csv")
    placed = boxes_of_volume(case, table, read_volume(image, 1.0), 1)
    assert placed.labels == ("7",)
    np.testing.assert_allclose(placed.corners_mm[0], corners, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("case,label,x0,y0,x1,y1\na,1,0,0,5,5\n", "unit"),
        ("case,label,x0_mm,y0_mm,x1_mm\na,1,0,0,5\n", "columns"),
        ("case,label,x0_mm,y0_mm,x1_mm,y1_mm\na,liver,5,0,5,5\n", "case a, label liver"),
        ("case,label,x0_mm,y0_mm,x1_mm,y1_mm\na,liver,?,0,5,5\n", "case a, label liver"),
        ("", "columns"),
    ],
)
def test_a_table_that_cannot_be_understood_is_refused(tmp_path, text, says):
    (tmp_path / "b.csv").write_text(text)
    with pytest.raises(InputDataError, match=says) as refused:
        read_box_table(tmp_path / "b.csv")
    assert refused.value.exit_code == 6


def test_a_row_without_corners_says_that_there_is_no_box(tmp_path):
    (tmp_path / "b.csv").write_text("case,label,x0_mm,y0_mm,x1_mm,y1_mm\na,,,,,\n")
    table = read_box_table(tmp_path / "b.csv")
    assert table.of("a") == []
    with pytest.raises(InputDataError, match=r"b\.csv: c"):
        table.of("c")


def test_a_label_image_is_found_by_its_name_alone(tmp_path):
    for name in ("a.png", "a1.png", "a1_seg.mha", "a.seg.nrrd", "a[.png"):
        (tmp_path / name).touch()
    cases = [CaseFiles(n, tmp_path / f"{n}.png", None, n) for n in ("a", "a1", "a[")]
    found = find_label_images(cases, None)
    assert {name: path.name for name, path in found.items()} == {
        "a": "a.seg.nrrd",
        "a1": "a1_seg.mha",
    }
