"""A site's data folder: which images there are, and which landmark file belongs to which.

Two layouts are understood. BIDS: ``sub-*/[ses-*/]anat/*_T1w.nii.gz``, or another
anatomical contrast, with landmarks in
``derivatives/landmarks/sub-*/[ses-*/]anat/*_landmarks.mrk.json``. Flat:
``case.nii.gz``, or a folder ``case`` with one DICOM series, beside
``case.mrk.json``. Files are found by name; nothing is opened here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

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


@dataclass(frozen=True)
class Listing:
    """The content of a data folder, by name alone.

    Attributes:
        folder: the folder.
        layout: how it is laid out.
        cases: (name, image, landmark file) of every labelled image, ordered by name.
        unlabelled: (name, image) of every image beside which no landmark file stands.
        twice: names that two images share.
    """

    folder: Path
    layout: Literal["BIDS", "flat"]
    cases: tuple[tuple[str, Path, Path], ...]
    unlabelled: tuple[tuple[str, Path], ...]
    twice: tuple[str, ...]


def list_folder(folder: Path) -> Listing:
    """Every image of a folder, labelled or not; opens none.

    Raises:
        InputDataError: no such folder, or no images.
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
    without: list[tuple[str, Path]] = []
    for image in images:
        stem = image_stem(image) or image.name
        landmarks = _landmark_file(folder, image, stem, bids=bool(bids))
        if landmarks is None:
            without.append((stem, image))
        else:
            cases.append((stem, image, landmarks))
    names = [name for name, _, _ in cases] + [name for name, _ in without]
    twice = tuple(sorted({name for name in names if names.count(name) > 1}))
    layout: Literal["BIDS", "flat"] = "BIDS" if bids else "flat"
    return Listing(folder, layout, tuple(sorted(cases)), tuple(sorted(without)), twice)


def find_cases(folder: Path) -> list[tuple[str, Path, Path]]:
    """(name, image, landmark file) of every labelled case, ordered by name; opens no image.

    An image without landmarks is left out: see ``Listing.unlabelled``.

    Raises:
        InputDataError: no such folder, no images, none of them labelled (all are named), or
            two that share a name.
    """
    return usable_cases(list_folder(folder))


def usable_cases(listing: Listing, least: int = 1) -> list[tuple[str, Path, Path]]:
    """The labelled cases of a listing.

    Args:
        listing: of a folder.
        least: how many must be left once unlabelled images are left out.

    Raises:
        InputDataError: images were left out and too few are left, or two share a name.
    """
    if listing.unlabelled and len(listing.cases) < max(1, least):
        names = ", ".join(name for name, _ in listing.unlabelled)
        raise InputDataError(
            "images without landmarks",
            field=str(listing.folder),
            expected="one landmark file per image"
            if least <= 1
            else f"at least {least} images with landmarks",
            got=f"none for {names}"
            if not listing.cases
            else f"{len(listing.cases)}, and none for {names}",
            advice="Mark them, or move these images away",
        )
    if listing.twice:
        raise InputDataError(
            "two images share a name",
            field=str(listing.folder),
            got=f"{', '.join(listing.twice)} twice",
        )
    return list(listing.cases)


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
