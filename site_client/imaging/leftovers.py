"""The parts of a data folder that are taken, left lying, or images under a wrong name.

Beginnings of files are read to know a format; no image is opened and nothing is
changed. Names of files stay at the site.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.errors import InputDataError
from site_client.imaging.contents import SUFFIXES, VOLUMES, Content, content_of
from site_client.imaging.folders import (
    CONTRASTS,
    IMAGE_SUFFIXES,
    LANDMARK_SUFFIXES,
    Listing,
    image_stem,
)

MOST_FILES: Final = 20_000
_EXAMPLES: Final = 3
_WORDS: Final = (".json", ".tsv", ".csv", ".txt", ".md", ".bval", ".bvec", ".html", ".pdf", ".xml")


@dataclass(frozen=True)
class LeftOut:
    """Files that are not opened, of one kind.

    Attributes:
        what: their common ending, or their folder.
        count: how many.
        why: they are left out, in words.
        examples: paths below the data folder, some of them.
    """

    what: str
    count: int
    why: str
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Inventory:
    """The content of a folder.

    Attributes:
        takes: (ending or kind, how many), most first.
        leaves: what is left out.
        misnamed: (path below the folder, format, a name under which it would be opened).
        orphans: landmark files without an image of their name.
        complete: whether every file was looked at; a bound stops a walk through an archive.
    """

    takes: tuple[tuple[str, int], ...]
    leaves: tuple[LeftOut, ...]
    misnamed: tuple[tuple[str, Content, str], ...]
    orphans: tuple[str, ...]
    complete: bool


def take_inventory(listing: Listing) -> Inventory:
    """Sort every file below a data folder."""
    images = [image for _, image, _ in listing.cases] + [image for _, image in listing.unlabelled]
    used = {*images, *(marks for *_, marks in listing.cases)}
    leftovers: dict[tuple[str, str], list[str]] = {}
    misnamed: list[tuple[str, Content, str]] = []
    orphans: list[str] = []
    seen = 0
    for path in _files(listing.folder, {image for image in images if image.is_dir()}):
        seen += 1
        if seen > MOST_FILES:
            break
        below = path.relative_to(listing.folder).as_posix()
        if path in used:
            continue
        if path.name.endswith(LANDMARK_SUFFIXES):
            orphans.append(below)
            continue
        content = None if path.name.lower().endswith(_WORDS) else _content(path)
        if content is None:
            continue
        better = better_name(path, content)
        if better is not None:
            misnamed.append((below, content, better))
        else:
            leftovers.setdefault(_reason(listing, path, content), []).append(below)
    return Inventory(
        takes=tuple(Counter(_kind(listing, image) for image in images).most_common()),
        leaves=tuple(
            LeftOut(what, len(paths), why, tuple(paths[:_EXAMPLES]))
            for (what, why), paths in sorted(leftovers.items())
        ),
        misnamed=tuple(misnamed),
        orphans=tuple(orphans),
        complete=seen <= MOST_FILES,
    )


def better_name(path: Path, content: Content | None = None) -> str | None:
    """The name under which a volume would be opened; None where its own name serves.

    Args:
        path: a file.
        content: its format, where it is known already.
    """
    content = _content(path) if content is None else content
    if content not in VOLUMES:
        return None
    name, fitting = path.name.lower(), SUFFIXES[content]
    if name.endswith(fitting) or (content == "NIfTI" and name.endswith(".nii.gz")):
        return None  # a reader of .nii.gz opens what is not compressed, too
    stem = image_stem(path) or re.sub(r"\.(gz|img|dat|nii|bin)$", "", path.name, flags=re.I)
    return stem + fitting[0]


def _content(path: Path) -> Content | None:
    try:
        return content_of(path)
    except OSError:
        return None


def _files(folder: Path, series: set[Path]) -> Iterator[Path]:
    """Every file below a folder in order, but for hidden ones and the slices of taken series."""
    for place, folders, names in os.walk(folder):
        here = Path(place)
        folders[:] = sorted(n for n in folders if not n.startswith(".") and here / n not in series)
        yield from (here / name for name in sorted(names) if not name.startswith("."))


def _kind(listing: Listing, image: Path) -> str:
    if image.is_dir():
        return "DICOM series"
    ending = image.name[len(image_stem(image) or "") :]
    if listing.layout == "BIDS":
        return "*_" + (image_stem(image) or "").rpartition("_")[2] + ending
    return "*" + ending


def _reason(listing: Listing, path: Path, content: Content) -> tuple[str, str]:
    """(what a group of files is called, why it is left out)."""
    where = path.parent.relative_to(listing.folder).as_posix()
    if content == "DICOM":
        return (
            f"DICOM files in {'the folder itself' if where == '.' else where}",
            "a series is taken where landmarks stand beside its folder: scan/ and scan.mrk.json",
        )
    if content == "half a NIfTI pair":
        return "*.hdr and *.img", "a pair of files is not read: convert it to one .nii.gz"
    if content not in VOLUMES:
        return f"*{path.suffix.lower()}", f"{content}: one picture, or no volume; not opened"
    if listing.layout == "flat":
        return f"{where}/*", "in a folder below: images lie in the data folder itself, or as BIDS"
    stem = image_stem(path) or path.stem
    if "anat" not in path.parent.parts:
        return f"*_{stem.rpartition('_')[2]} in {path.parent.name}", "only anat/ is looked at"
    return (
        f"*_{stem.rpartition('_')[2]}",
        f"not one of {', '.join(c.removeprefix('_') for c in CONTRASTS)}, "
        f"or not {', '.join(IMAGE_SUFFIXES)}",
    )


def misnamed_error(path: Path, content: Content, better: str) -> InputDataError:
    """Says that an image has the wrong suffix, and the right one."""
    return InputDataError(
        "an image has the wrong suffix",
        field=str(path),
        expected=better,
        got=f"{content} by its content",
        advice=f"Call it {better}",
    )
