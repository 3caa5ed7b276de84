"""Finding the cases of a folder, a list or a file, and what belongs to what."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import InputDataError
from site_client.imaging.dataset import read_cases
from site_client.imaging.landmarks import write_landmarks
from site_client.imaging.listfiles import find_files, read_list, require_landmarks

AT = np.array([2.0, -10.0, 28.0])


def touch(tmp_path, *names):
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_bids_folder_names_subjects(tmp_path):
    touch(
        tmp_path,
        "sub-b/ses-1/anat/sub-b_ses-1_T1w.nii.gz",
        "sub-b/ses-2/anat/sub-b_ses-2_T1w.nii.gz",
        "sub-a/anat/sub-a_T2w.nii.gz",
        "sub-a/func/sub-a_bold.nii.gz",
        "derivatives/landmarks/sub-a/anat/sub-a_landmarks.mrk.json",
    )
    found = find_files([tmp_path])
    assert [(f.name, f.subject) for f in found] == [
        ("sub-a_T2w", "sub-a"),
        ("sub-b_ses-1_T1w", "sub-b"),
        ("sub-b_ses-2_T1w", "sub-b"),
    ]
    assert found[0].landmarks is not None
    with pytest.raises(InputDataError, match="sub-b_ses-1_T1w, sub-b_ses-2_T1w"):
        require_landmarks(found)


def test_a_flat_folder_holds_pictures_volumes_and_series(tmp_path):
    touch(tmp_path, "a.nii.gz", "a.mrk.json", "b.png", "b.txt", "c/1.dcm", "notes.md", "d/x.md")
    found = find_files([tmp_path])
    assert [(f.name, f.landmarks and f.landmarks.name) for f in found] == [
        ("a", "a.mrk.json"),
        ("b", "b.txt"),
        ("c", None),
    ]


def test_a_folder_of_slices_is_one_series_whatever_its_files_are_called(tmp_path):
    touch(tmp_path, "IM0001", "IM0002")
    (found,) = find_files([tmp_path])
    assert found.image == tmp_path


def test_the_subject_can_be_read_from_the_name(tmp_path):
    touch(tmp_path, "010_HC.png", "010_2HC.png", "011_HC.png")
    assert [f.subject for f in find_files([tmp_path], subject=r"^(\d+)_")] == ["010", "010", "011"]
    with pytest.raises(InputDataError, match="does not say its subject"):
        find_files([tmp_path], subject=r"^(x\d+)_")
    with pytest.raises(InputDataError, match="regular expression"):
        find_files([tmp_path], subject="(")


def test_two_lists_belong_together_line_by_line(tmp_path, write_blob):
    for name in ("one/T1", "two/T1"):
        write_blob(f"{name}.nii.gz", AT, centre_mm=(0.0, -12.0, 30.0))
        (tmp_path / f"{name}.txt").write_text("20,18,15\n")
    (tmp_path / "images.txt").write_text("one/T1.nii.gz\ntwo/T1.nii.gz\n")
    (tmp_path / "marks.txt").write_text("one/T1.txt\n\ntwo/T1.txt\n")
    found = find_files([tmp_path / "images.txt"], tmp_path / "marks.txt")
    assert [f.name for f in found] == ["one_T1", "two_T1"]
    cases = read_cases(found, ["AC"], 1.0, line_names=["AC"])
    np.testing.assert_allclose([c.landmarks_mm[0] for c in cases], [[0.5, -11.5, 29.5]] * 2)


def test_lists_may_count_from_the_folders_above_them(tmp_path):
    touch(tmp_path, "data/images/a.nii.gz", "data/filenames/images.txt")
    for line in ("../images/a.nii.gz", "images/a.nii.gz", "./data/images/a.nii.gz"):
        (tmp_path / "data/filenames/images.txt").write_text(line + "\n")
        (found,) = read_list(tmp_path / "data/filenames/images.txt")
        assert found.samefile(tmp_path / "data/images/a.nii.gz")


def test_lists_that_do_not_fit_are_refused(tmp_path):
    touch(tmp_path, "a.nii.gz", "b.nii.gz", "a.fcsv")
    (tmp_path / "images.txt").write_text("a.nii.gz\nb.nii.gz\n")
    (tmp_path / "marks.txt").write_text("a.fcsv\n")
    with pytest.raises(InputDataError, match="2 images, 1 landmark files"):
        find_files([tmp_path / "images.txt"], tmp_path / "marks.txt")
    (tmp_path / "marks.txt").write_text("a.fcsv\nb.fcsv\n")
    with pytest.raises(InputDataError, match=r"marks\.txt, line 2"):
        read_list(tmp_path / "marks.txt")


def test_landmarks_may_stand_in_a_folder_of_their_own(tmp_path):
    touch(tmp_path, "images/a.png", "images/b.png", "marks/b.mrk.json")
    found = find_files([tmp_path / "images"], tmp_path / "marks")
    assert [f.landmarks and f.landmarks.name for f in found] == [None, "b.mrk.json"]


def test_a_single_image_has_the_landmarks_it_is_given(tmp_path):
    touch(tmp_path, "a.mha", "points.fcsv")
    (found,) = find_files([tmp_path / "a.mha"], tmp_path / "points.fcsv")
    assert found.landmarks == tmp_path / "points.fcsv"


@pytest.mark.parametrize("name", ["missing", "notes.md", "empty"])
def test_what_holds_no_image_is_refused(tmp_path, name):
    touch(tmp_path, "notes.md")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputDataError, match=name):
        find_files([tmp_path / name])


def test_two_sources_may_not_share_a_name(tmp_path):
    touch(tmp_path, "one/a.png", "two/a.png")
    with pytest.raises(InputDataError, match="a twice"):
        find_files([tmp_path / "one", tmp_path / "two"])


def test_a_dicom_series_and_its_source_hold_the_same_point(tmp_path, write_blob, write_dicom):
    image = write_blob("a.nii.gz", AT, spacing=(1.0, 1.0, 2.0))
    write_dicom("series", image)
    write_landmarks(tmp_path / "series.mrk.json", {"AC": AT})
    (case,) = read_cases(find_files([tmp_path / "series"]), ["AC"], 1.0)
    middle = np.argwhere(case.volume.voxels > 200).mean(axis=0)[::-1]
    np.testing.assert_allclose(case.volume.index_to_world(middle), AT, atol=0.6)
