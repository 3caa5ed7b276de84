"""Image files and the places of their landmarks: folders, lists, single files.

Nothing here opens an image. A source is a BIDS folder, a flat folder, one image, a
DICOM folder, or a text file with one image path per line, as rl-medical has them
(its landmark files then stand in a second list, line by line). Landmarks stand
beside the images, in a folder, in such a list, or in one table for all images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.arrivals.files import read_bounded
from common.errors import InputDataError
from site_client.imaging.dicom import DICOM_SUFFIX
from site_client.imaging.folders import CONTRASTS, IMAGE_SUFFIXES, LANDMARK_SUFFIXES
from site_client.imaging.subjects import SubjectKey
from site_client.imaging.table_rows import MOST_BYTES

PICTURE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
TABLE_SUFFIX: Final = ".csv"
LIST_SUFFIX: Final = ".txt"
# A text file beside an image holds voxel indices, one landmark per line.
_BESIDE: Final = (*LANDMARK_SUFFIXES, LIST_SUFFIX)


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case.

    Attributes:
        name: unique within its source; stays at the site.
        image: a file, or a folder holding one DICOM series.
        landmarks: the landmark file of this image; None when a table has it, or nothing does.
        subject: whose image it is; a split never tears a subject apart.
    """

    name: str
    image: Path
    landmarks: Path | None
    subject: str


def stem(path: Path) -> str | None:
    """The file name without its image suffix; None when it is no image."""
    for suffix in (*IMAGE_SUFFIXES, *PICTURE_SUFFIXES, DICOM_SUFFIX):
        if path.name.lower().endswith(suffix) and len(path.name) > len(suffix):
            return path.name[: -len(suffix)]
    return None


def find_files(
    sources: Sequence[Path], landmarks: Path | None = None, *, subject: str = ""
) -> list[CaseFiles]:
    """Every case of some sources, ordered by name within each source.

    Args:
        sources: folders, image files or lists of images.
        landmarks: a list of landmark files (for a list of images), a folder of them, or the
            landmark file of a single image. None looks beside the images. A table is
            read by others, and is no business of this function.
        subject: regular expression whose first group, or whole match, in a case's name
            says the subject; empty for BIDS's ``sub-…`` or else the whole name.

    Raises:
        InputDataError: no such source, no images in it, names that are not unique.
    """
    key = SubjectKey(subject)
    case_files: list[CaseFiles] = []
    for source in sources:
        case_files += _of_source(source, landmarks, key)
    names = [files.name for files in case_files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputDataError(
            "two images share a name", field=str(sources[0]), got=f"{', '.join(twice)} twice"
        )
    return case_files


def require_landmarks(files: Sequence[CaseFiles]) -> None:
    """Refuse cases without a landmark file.

    Raises:
        InputDataError: names all of them.
    """
    without = [case.name for case in files if case.landmarks is None]
    if without:
        raise InputDataError(
            "images without landmarks",
            field=str(files[0].image.parent),
            expected="one landmark file per image, or a table of all",
            got=f"none for {', '.join(without)}",
        )


def labelled(files: Sequence[CaseFiles]) -> tuple[list[CaseFiles], list[str]]:
    """The cases that have a landmark file, and the names of those that have none.

    Raises:
        InputDataError: none of them has one.
    """
    marked = [case for case in files if case.landmarks is not None]
    if not marked:
        require_landmarks(files)
    return marked, [case.name for case in files if case.landmarks is None]


def read_list(path: Path) -> list[Path]:
    """The paths of a list, one per line.

    Relative ones are looked for from the list's folder, from the two above it (lists of
    rl-medical lie in ``data/filenames`` and name ``data/images/…``), and from here.

    Raises:
        InputDataError: unreadable, empty, or a file that is not there (named by its line).
    """
    try:
        lines = read_bounded(path, MOST_BYTES, "the list").decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputDataError(
            "cannot read the list of files", field=str(path), got=type(error).__name__
        ) from error
    paths: list[Path] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        entry = Path(line.strip())
        above = path.absolute().parents[:3]
        choices = [*(folder / entry for folder in above), entry]
        there = next((choice for choice in choices if _is_there(choice)), None)
        if there is None:
            raise InputDataError(
                "a file of the list is not there",
                field=f"{path}, line {number}",
                expected="a path from the list's folder, one above it, or the current one",
                advice=f"Looked for {entry}",
            )
        paths.append(there)
    if not paths:
        raise InputDataError("the list of files is empty", field=str(path))
    return paths


def _is_there(path: Path) -> bool:
    """Tell whether a path is there; what no path can be is not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def is_list(path: Path) -> bool:
    """Tell whether a source is a list of files."""
    return path.name.lower().endswith(LIST_SUFFIX)


def _of_source(source: Path, landmarks: Path | None, key: SubjectKey) -> list[CaseFiles]:
    if not source.exists():
        raise InputDataError(
            "no such data",
            field=str(source),
            expected="a folder, an image, or a list of images",
            got="nothing there",
        )
    if source.is_file() and is_list(source):
        return _of_list(source, landmarks, key)
    if source.is_file():
        name = stem(source)
        if name is None:
            raise InputDataError(
                "not an image",
                field=str(source),
                expected=f"one of {', '.join((*IMAGE_SUFFIXES, *PICTURE_SUFFIXES, DICOM_SUFFIX))}",
            )
        return [CaseFiles(name, source, _beside(source, name, landmarks), key(name))]
    return _of_folder(source, landmarks, key)


def _of_list(source: Path, landmarks: Path | None, key: SubjectKey) -> list[CaseFiles]:
    images = read_list(source)
    marks: list[Path | None] = [None] * len(images)
    if landmarks is not None and is_list(landmarks):
        marks = list(read_list(landmarks))
        if len(marks) != len(images):
            raise InputDataError(
                "the two lists differ in length",
                field=f"{source} and {landmarks}",
                expected="one landmark file per image, line by line",
                got=f"{len(images)} images, {len(marks)} landmark files",
            )
    stems = [stem(image) or image.name for image in images]
    if len(set(stems)) < len(stems):
        # subject-1/T1.nii.gz, subject-2/T1.nii.gz: the folder tells them apart.
        stems = [f"{i.parent.name}_{s}" for i, s in zip(images, stems, strict=True)]
    return [
        CaseFiles(
            name, image, mark or _beside(image, stem(image) or image.name, landmarks), key(name)
        )
        for name, image, mark in zip(stems, images, marks, strict=True)
    ]


def _of_folder(folder: Path, landmarks: Path | None, key: SubjectKey) -> list[CaseFiles]:
    bids = sorted(p for p in folder.glob("sub-*/**/anat/*") if _is_anatomical(p))
    if bids:
        places = [(p, _bids_landmarks(folder, p, landmarks)) for p in bids]
    else:
        images = sorted(p for p in folder.iterdir() if _is_flat(p, landmarks))
        if not images and any(_may_be_slice(p) for p in folder.iterdir()):
            images = [folder]
        places = [(p, _beside(p, stem(p) or p.name, landmarks)) for p in images]
    if not places:
        raise InputDataError(
            "no images",
            field=str(folder),
            expected="sub-*/anat/*_T1w.nii.gz, case.nii.gz or case.png beside case.mrk.json, "
            "or a DICOM series",
            got="none of them",
        )
    cases = [(stem(image) or image.name, image, marks) for image, marks in places]
    return [CaseFiles(name, image, marks, key(name)) for name, image, marks in sorted(cases)]


def _is_anatomical(path: Path) -> bool:
    name = stem(path)
    return path.is_file() and name is not None and name.endswith(CONTRASTS)


def _is_flat(path: Path, landmarks: Path | None) -> bool:
    """An image, or a folder that has landmarks or DICOM files and so must be a series."""
    if path.is_dir():
        slices = any(inner.name.lower().endswith(DICOM_SUFFIX) for inner in path.iterdir())
        return slices or _beside(path, path.name, landmarks) is not None
    # A lone .dcm is a slice of the folder's series, unless it has landmarks of its own.
    if path.name.lower().endswith(DICOM_SUFFIX):
        return _beside(path, path.name[: -len(DICOM_SUFFIX)], landmarks) is not None
    return stem(path) is not None


def _may_be_slice(path: Path) -> bool:
    """Tell whether a file is DICOM by its name, which often has no suffix at all."""
    return path.is_file() and path.suffix.lower() in ("", DICOM_SUFFIX)


def _bids_landmarks(folder: Path, image: Path, landmarks: Path | None) -> Path | None:
    name = (stem(image) or image.name).rpartition("_")[0] + "_landmarks"
    inside = image.parent.relative_to(folder)
    roots = [folder / "derivatives" / "landmarks"] if landmarks is None else [landmarks]
    places = [root / part for root in roots for part in (inside, Path())]
    return _first(places, name)


def _beside(image: Path, name: str, landmarks: Path | None) -> Path | None:
    """The landmark file of an image: the one that was named, or in a folder, by its stem."""
    if landmarks is None:
        return _first([image.parent], name)
    if landmarks.is_dir():
        return _first([landmarks], name)
    if landmarks.name.lower().endswith(TABLE_SUFFIX):
        return None
    return landmarks if landmarks.is_file() else None


def _first(places: Sequence[Path], name: str) -> Path | None:
    for place in places:
        for suffix in _BESIDE:
            if (place / (name + suffix)).is_file():
                return place / (name + suffix)
    return None
