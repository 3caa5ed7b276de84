"""Subjects as stacks of consecutive slices, with landmarks: what both kinds of data have."""

from dataclasses import dataclass

import numpy as np

SITES = ("site-a", "site-b", "site-c")
SLICES = 4


@dataclass(frozen=True, eq=False)
class Subject:
    """Four consecutive slices of one subject.

    Attributes:
        name: of the subject; also of its files.
        site: number of its site.
        held_out: kept from everything that is fitted, counted or trained.
        slices: uint8[SLICES, rows, columns, bands], counts.
        tumour: bool[SLICES, rows, columns], the truth that one site's clusters are named by.
        landmarks_mm: name to (x, y).
    """

    name: str
    site: int
    held_out: bool
    slices: np.ndarray
    tumour: np.ndarray
    landmarks_mm: dict[str, tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Data:
    """All subjects of all sites, and how large things are.

    Attributes:
        name: of the data.
        bands: names.
        subjects: of all sites.
        pixel_mm: distance of neighbouring pixels.
        landmarks: names.
        tolerance_mm: what counts as found.
    """

    name: str
    bands: tuple[str, ...]
    subjects: tuple[Subject, ...]
    pixel_mm: float
    landmarks: tuple[str, ...]
    tolerance_mm: float

    def of(self, *, held_out: bool, site: int | None = None) -> list[Subject]:
        return [s for s in self.subjects if s.held_out == held_out and site in (None, s.site)]
