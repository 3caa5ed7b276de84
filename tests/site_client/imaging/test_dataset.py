from __future__ import annotations

import numpy as np
import pytest

from common.errors import InputDataError
from common.settings import TaskSettings
from site_client.imaging.dataset import load_cases
from site_client.imaging.folders import find_cases
from site_client.imaging.landmarks import write_landmarks

TRUTH = np.array([8.5, -9.0, 33.25])
TASK = TaskSettings(landmarks=("AC",), spacing_mm=2.0)


@pytest.fixture
def bids(write_blob, tmp_path):
    for subject, suffix in (("02", "T2w.mha"), ("01", "T1w.nii.gz")):
        write_blob(f"sub-{subject}/anat/sub-{subject}_{suffix}", TRUTH)
        derived = tmp_path / "derivatives" / "landmarks" / f"sub-{subject}" / "anat"
        derived.mkdir(parents=True)
        write_landmarks(derived / f"sub-{subject}_landmarks.mrk.json", {"AC": TRUTH})
    return tmp_path


def test_a_bids_folder_is_read_in_the_order_of_the_names(bids):
    seen = []
    cases = load_cases(bids, TASK, lambda done, total: seen.append((done, total)))
    assert [case.name for case in cases] == ["sub-01_T1w", "sub-02_T2w"]
    assert seen == [(1, 2), (2, 2)]
    for case in cases:
        np.testing.assert_array_equal(case.landmarks_mm, [TRUTH])
        x, y, z = np.rint(case.volume.world_to_index(TRUTH)).astype(int)
        assert case.volume.voxels[z, y, x] > 200


def test_a_flat_folder_is_read(write_blob, tmp_path):
    write_blob("b.nrrd", TRUTH)
    write_blob("a.nii.gz", TRUTH)
    write_landmarks(tmp_path / "a.mrk.json", {"AC": TRUTH})
    (tmp_path / "b.fcsv").write_text("# CoordinateSystem = LPS\nid,8.5,-9,33.25,0,0,0,1,1,1,0,AC\n")
    cases = load_cases(tmp_path, TASK)
    assert [case.name for case in cases] == ["a", "b"]
    np.testing.assert_array_equal(cases[0].landmarks_mm, cases[1].landmarks_mm)


def test_a_folder_beside_landmarks_is_a_dicom_series(write_blob, write_dicom, tmp_path):
    write_dicom("scan", write_blob("blob.mha", TRUTH, direction=np.diag([-1.0, -1.0, 1.0])))
    (tmp_path / "blob.mha").unlink()
    (tmp_path / "notes").mkdir()
    write_landmarks(tmp_path / "scan.mrk.json", {"AC": TRUTH})
    (case,) = load_cases(tmp_path, TASK)
    assert case.name == "scan"
    x, y, z = np.rint(case.volume.world_to_index(TRUTH)).astype(int)
    assert case.volume.voxels[z, y, x] > 200


def test_a_case_never_shows_its_name(bids):
    assert "sub-" not in repr(load_cases(bids, TASK))


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputDataError, match="no data folder"):
        find_cases(tmp_path / "none")


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputDataError, match="no images"):
        find_cases(tmp_path)


def test_images_without_landmarks_are_named(bids):
    for file in (bids / "derivatives").rglob("*.mrk.json"):
        file.unlink()
    with pytest.raises(InputDataError, match="none for sub-01_T1w, sub-02_T2w"):
        find_cases(bids)


def test_two_images_of_one_name_are_refused(write_blob, tmp_path):
    write_blob("a.mha", TRUTH)
    write_blob("a.nii.gz", TRUTH)
    write_landmarks(tmp_path / "a.mrk.json", {"AC": TRUTH})
    with pytest.raises(InputDataError, match="share a name"):
        find_cases(tmp_path)
