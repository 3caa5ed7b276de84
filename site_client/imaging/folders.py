"""A site's data folder: which images there are, and which landmark file belongs to which.

Two layouts are understood. BIDS: ``sub-*/[ses-*/]anat/*_T1w.nii.gz``, or another
anatomical contrast, with landmarks in
``derivatives/landmarks/sub-*/[ses-*/]anat/*_landmarks.mrk.json``. Flat:
``case.nii.gz``, or a folder ``case`` with one DICOM series, beside
``case.mrk.json``. Files are found by name; nothing is opened here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from common.errors import InputDataError

IMAGE_SUFFIXES: Final = (".nii.gz", ".nii", ".mha", ".nrrd")
LANDMARK_SUFFIXES: Final = (".mrk.json", ".fcsv")
CONTRASTS: Final = ("_T1w", "_T2w", "_PDw", "_T2starw", "_FLAIR")


def image_stem(path: Path) -> str | None:
    """The file name without its image suffix; None when it is no image we open."""
    for suffix in IMAGE_SUFFIXES:
        if path.name.lower().endswith(suffix) and len(path.name) > len(suffix):
            return path.name[: -len(suffix)]
    return None


def find_cases(folder: Path) -> list[tuple[str, Path, Path]]:
    """(name, image, landmark file) of every case, ordered by name; opens no image.

    Raises:
        InputDataError: no such folder, no images, or images without landmarks (all are named).
    """
    if not folder.is_dir():
        raise InputDataError(
            "no data folder",
            field=str(folder),
            expected="a folder",
            got="nothing there",
            advice="Check the path, and that its volume is mounted",
        )
    bids = sorted(p for p in folder.glob("sub-*/**/anat/*") if _is_anatomical(p))
    images = bids or sorted(p for p in folder.iterdir() if _is_flat(p))
    if not images:
        raise InputDataError(
            "no images",
            field=str(folder),
            expected="sub-*/anat/*_T1w.nii.gz, or case.nii.gz beside case.mrk.json",
            got="neither",
            advice="Put images there, or name another folder",
        )
    cases: list[tuple[str, Path, Path]] = []
    without: list[str] = []
    for image in images:
        stem = image_stem(image) or image.name
        landmarks = _landmark_file(folder, image, stem, bids=bool(bids))
        if landmarks is None:
            without.append(stem)
        else:
            cases.append((stem, image, landmarks))
    if without:
        raise InputDataError(
            "images without landmarks",
            field=str(folder),
            expected="one landmark file per image",
            got=f"none for {', '.join(without)}",
            advice="Mark them, or move these images away",
        )
    names = [name for name, _, _ in cases]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputDataError(
            "two images share a name", field=str(folder), got=f"{', '.join(twice)} twice"
        )
    return sorted(cases)


def _is_anatomical(path: Path) -> bool:
    stem = image_stem(path)
    return path.is_file() and stem is not None and stem.endswith(CONTRASTS)


def _is_flat(path: Path) -> bool:
    """An image file, or a folder that has landmarks beside it and so must be a DICOM series."""
    if path.is_dir():
        return any((path.parent / (path.name + s)).is_file() for s in LANDMARK_SUFFIXES)
    return path.is_file() and image_stem(path) is not None


def _landmark_file(folder: Path, image: Path, stem: str, *, bids: bool) -> Path | None:
    """The landmark file of an image, or None."""
    if bids:
        place = folder / "derivatives" / "landmarks" / image.parent.relative_to(folder)
        stem = stem.rpartition("_")[0] + "_landmarks"
    else:
        place = image.parent
    for suffix in LANDMARK_SUFFIXES:
        if (place / (stem + suffix)).is_file():
            return place / (stem + suffix)
    return None
