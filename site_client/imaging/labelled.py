"""Names of the images of a folder that somebody labelled; none is opened for it.

Needs no reader of images where the folder is one of scans: both halves of a site ask here.
"""

from __future__ import annotations

from pathlib import Path

from common.errors import InputDataError
from site_client.imaging.data_settings import DataSettings
from site_client.imaging.folders import list_folder, usable_cases
from site_client.imaging.landmarks import read_landmarks


def labelled_scans(folder: Path) -> list[str]:
    """Name the volumes of a folder in which somebody marked something; opens no image.

    Raises:
        InputDataError: there are none, or landmarks cannot be read.
    """
    return [name for name, _, marks in usable_cases(list_folder(folder)) if read_landmarks(marks)]


def labelled_names(folder: Path, data: DataSettings) -> list[str]:
    """Name the labelled images of a site's folder, however it is laid out; opens no image.

    Scans with landmarks, or else any images with landmarks, or else images with boxes.

    Args:
        folder: of the images.
        data: how what is known of them is read.

    Raises:
        InputDataError: there are none, or what is known of them cannot be read.
    """
    if data == DataSettings() and _holds_marked_scans(folder):
        return labelled_scans(folder)
    # Boxes have a reader of label images with them; nobody loads it for scans.
    from site_client.imaging.sources import Wanted, box_files, landmark_files

    every = Wanted((folder,), data.landmarks, need_truth=False)
    source = landmark_files(every, data).with_landmarks()
    source = source if source.files else box_files(every, data).with_boxes()
    if not source.files:
        raise InputDataError(
            "no labelled images", field=str(folder), expected="landmarks or boxes", got="neither"
        )
    return [files.name for files in source.files]


def _holds_marked_scans(folder: Path) -> bool:
    try:
        return bool(list_folder(folder).cases)
    except InputDataError:  # pictures, or nothing: others say which
        return False
