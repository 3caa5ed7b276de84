"""What nobody labelled is left out and counted; what is labelled and unusable is refused."""

from __future__ import annotations

import logging

import pytest

from common.errors import InputDataError
from common.settings import TaskSettings
from site_client.imaging.dataset import load_cases
from site_client.imaging.folders import find_cases, list_folder
from site_client.imaging.landmarks import write_landmarks
from site_client.imaging.listfiles import find_files, labelled
from tests.conftest import write_case

TASK = TaskSettings(landmarks=("A", "B"), spacing_mm=1.0)


@pytest.fixture
def folder(tmp_path):
    for number in range(4):
        write_case(tmp_path, f"case-{number}", number)
    (tmp_path / "case-1.mrk.json").unlink()
    return tmp_path


def test_an_unlabelled_image_is_left_out_and_how_many_is_told(folder, caplog):
    with caplog.at_level(logging.WARNING, "cairn.imaging"):
        cases = load_cases(folder, TASK)
    assert [case.name for case in cases] == ["case-0", "case-2", "case-3"]
    assert "1 image without landmarks left out; 3 images used" in caplog.text
    assert [name for name, _, _ in find_cases(folder)] == ["case-0", "case-2", "case-3"]
    assert [name for name, _ in list_folder(folder).unlabelled] == ["case-1"]


def test_a_file_that_marks_nothing_is_no_label(folder):
    write_landmarks(folder / "case-2.mrk.json", {})
    assert [case.name for case in load_cases(folder, TASK)] == ["case-0", "case-3"]


def test_too_few_labelled_images_are_refused_and_enough_are_not(folder):
    assert len(load_cases(folder, TASK, least=3)) == 3
    with pytest.raises(InputDataError, match=r"at least 4 images with landmarks.*case-1"):
        load_cases(folder, TASK, least=4)
    write_landmarks(folder / "case-2.mrk.json", {})
    with pytest.raises(InputDataError, match="too few images have landmarks"):
        load_cases(folder, TASK, least=3)


def test_a_folder_of_unlabelled_images_is_refused_by_name(folder):
    for path in folder.glob("*.mrk.json"):
        path.unlink()
    with pytest.raises(InputDataError, match="none for case-0, case-1"):
        load_cases(folder, TASK)


def test_a_labelled_image_that_lacks_a_landmark_is_still_refused(folder):
    write_landmarks(folder / "case-0.mrk.json", {"A": (14.0, 12.0, 20.0)})
    with pytest.raises(InputDataError, match="a landmark is missing: case-0: B"):
        load_cases(folder, TASK)


def test_files_for_other_tasks_are_parted_in_the_same_way(folder):
    marked, without = labelled(find_files([folder]))
    assert [case.name for case in marked] == ["case-0", "case-2", "case-3"]
    assert without == ["case-1"]
