"""A site's folder of slides: which they are, and a pass over all of them, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Final

from common.errors import InputDataError

if TYPE_CHECKING:
    from site_client.pixels.passes import Found, SlidePart, SlidePass
    from site_client.pixels.shards import Listed
    from site_client.pixels.slides import Slide

Progress = Callable[[str, int, int], None]
_SUFFIXES: Final = (".npy", ".tif", ".tiff", ".mha", ".mhd", ".nrrd", ".nhdr", ".nii", ".nii.gz")


def find_slides(folder: Path) -> list[Path]:
    """Find a data folder's slides by name: files, and folders of single-band TIFFs; opens none.

    Raises:
        InputDataError: no such folder, or no slides.
    """
    if not folder.is_dir():
        raise InputDataError(
            "no data folder", field=str(folder), expected="a folder", got="nothing there"
        )
    slides = [path for path in sorted(folder.iterdir()) if _is_slide(path)]
    if not slides:
        raise InputDataError(
            "no slides",
            field=str(folder),
            expected="TIFF or .npy files, OME-Zarr, or folders of single-band TIFFs",
            got="none",
        )
    return slides


def _is_slide(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    if path.is_dir():
        from site_client.pixels.omezarr import is_zarr

        return is_zarr(path) or any(
            inside.name.lower().endswith((".tif", ".tiff")) for inside in path.iterdir()
        )
    return path.name.lower().endswith(_SUFFIXES)


@dataclass(frozen=True)
class Slides:
    """The slides of a site, opened one after the other.

    Attributes:
        folder: the site's data.
        bands: that every slide must have.
        progress: told about the pixels done, of all slides together; may raise to stop.
    """

    folder: Path
    bands: tuple[str, ...]
    progress: Progress | None = None

    def open(self, what: str) -> Iterator[tuple[Path, Slide, Callable[[int], None]]]:
        """Every slide with its path, and whom to tell how many of its pixels are done.

        Raises:
            InputDataError: a slide that cannot be read, or lacks a band.
        """
        from site_client.pixels.slides import open_slide

        slides = [(path, open_slide(path, self.bands)) for path in find_slides(self.folder)]
        total, before = sum(slide.pixels for _, slide in slides), 0
        for path, slide in slides:

            def tell(done: int, before: int = before) -> None:
                if self.progress is not None:
                    self.progress(what, before + done, total)

            yield path, slide, tell
            before += slide.pixels

    def found(self, whole: SlidePass, what: str) -> tuple[Found, int]:
        """What all slides hold together, and how many they are; see ``parts``."""
        parts = list(self.parts(whole, what))
        return reduce(add, (part.found for _, part in parts)), len(parts)

    def parts(
        self, whole: SlidePass, what: str, only: Container[Path] | None = None
    ) -> Iterator[tuple[Path, SlidePart]]:
        """Look through every slide, or ``only`` some; each with its path.

        Raises:
            InputDataError: as ``open``, or a slide that changed meanwhile.
        """
        for path, slide, tell in self.open(what):
            if only is None or path in only:
                yield path, whole.part(path, slide, tell)

    def listed(self) -> list[Listed]:
        """List the slides with their pixels, every header read.

        Raises:
            InputDataError: as ``open``.
        """
        from site_client.pixels.shards import Listed

        return [Listed(path, slide.pixels) for path, slide, _ in self.open("looking at slides")]

    def count(self) -> int:
        """Count the slides, every header read.

        Raises:
            InputDataError: as ``open``.
        """
        return sum(1 for _ in self.open("looking at slides"))
