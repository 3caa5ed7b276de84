"""The development images as cases: heads, lateral skull X-rays, fetal heads.

They lie in ``../shared/data`` beside the checkout and may not be shipped; a study
whose folder is absent says so and ends. No picture of them is ever written.
"""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from site_client.agent.tasks.landmark2d import Case2D, Cases2D, build_cases_2d
from site_client.imaging.dataset import Case
from site_client.imaging.landmarks import place_landmarks, read_landmarks
from site_client.imaging.volumes import read_volume

FOLDER = Path(__file__).resolve().parents[3].parent / "shared" / "data"

BRAIN_LANDMARKS = ("AC", "PC", "PMJ", "genu of CC", "splenium of CC")
HEADS = {
    "MNI152 2009b": None,
    "MNI152 2009c": "tpl-MNI152NLin2009cAsym_res-02_T1w.nii.gz",
    "MNI152 6th gen.": "tpl-MNI152NLin6Asym_res-01_T1w.nii.gz",
    "Colin27": "ch2.nii.gz",
}
_POINTS = {
    "MNI152 2009c": "tpl-MNI152NLin2009cAsym_res-01_desc-groundtruth_afids.fcsv",
    "MNI152 6th gen.": "tpl-MNI152NLin6Asym_res-01_desc-groundtruth_afids.fcsv",
    "Colin27": "tpl-MNIColin27_desc-groundtruth_afids.fcsv",
}
CEPHALOGRAM_LANDMARKS = (
    "sella",
    "nasion",
    "orbitale",
    "porion",
    "subspinale",
    "supramentale",
    "pogonion",
    "menton",
    "gnathion",
    "gonion",
    "lower incisor tip",
    "upper incisor tip",
    "upper lip",
    "lower lip",
    "subnasale",
    "soft-tissue pogonion",
    "posterior nasal spine",
    "anterior nasal spine",
    "articulare",
)
FETAL_LANDMARKS = ("centre", "OFD left", "OFD right", "BPD top", "BPD bottom")


def present(name: str) -> bool:
    """Whether a data folder is there."""
    return (FOLDER / name).is_dir()


def heads(spacing_mm: float = 1.0) -> dict[str, Case]:
    """The four human heads with `BRAIN_LANDMARKS`, one of them from nilearn's wheel."""
    cases = {}
    for name, file in HEADS.items():
        path = bundled_template() if file is None else template(file)
        volume = read_volume(path, spacing_mm)
        points = points_of(name)
        cases[name] = Case(name, volume, place_landmarks(points, BRAIN_LANDMARKS, volume, name))
    return cases


def template(file: str) -> Path:
    """A head of the data folder."""
    return FOLDER / "brain_templates" / file


def points_of(head: str) -> dict[str, NDArray[np.float64]]:
    """Every point of one of `HEADS`: name to LPS mm."""
    # Points are named by number and described by name in these files.
    return _bundled_points() if HEADS[head] is None else _described(template(_POINTS[head]))


def head_slices(spacing_mm: float = 1.0, offsets_mm: tuple[int, ...] = (-2, 0, 2)) -> list[Case2D]:
    """Sagittal slices near the midline; the landmarks projected into them; group "mri"."""
    slices = []
    for name, case in heads(spacing_mm).items():
        middle = case.volume.world_to_index(case.landmarks_mm)[:, 0].mean()
        index = case.volume.world_to_index(case.landmarks_mm)[:, 1:]
        for offset in offsets_mm:
            x = round(middle + offset / spacing_mm)
            image = np.ascontiguousarray(case.volume.voxels[None, ::-1, :, x])
            points = np.stack([index[:, 0], image.shape[1] - 1 - index[:, 1]], axis=1) * spacing_mm
            slices.append(Case2D(name, image, (spacing_mm, spacing_mm), points, "mri"))
    return slices


@dataclass(frozen=True)
class Cephalograms:
    """150 lateral skull X-rays, 19 landmarks, two clinicians; mm.

    Attributes:
        cases: truth is the mean of both clinicians.
        senior, junior: float64[150, 19, 2], what each of them marked.
    """

    cases: Cases2D
    senior: NDArray[np.float64]
    junior: NDArray[np.float64]

    @property
    def inter_observer_mm(self) -> NDArray[np.float64]:
        """float64[19]: mean distance between the two clinicians."""
        return np.linalg.norm(self.senior - self.junior, axis=2).mean(axis=0)


def cephalogram_cases(count: int = 150) -> tuple[list[Case2D], NDArray, NDArray]:
    """The first X-rays as cases, and both clinicians' marks."""
    folder = FOLDER / "ceph"
    senior, junior = (_marks(folder / f"all_{who}.csv")[:count] for who in ("senior", "junior"))
    cases = []
    for k, truth in enumerate((senior + junior) / 2):
        picture = Image.open(folder / "images" / f"{k + 1:03d}.jpg").convert("L")
        image = np.asarray(picture, dtype=np.uint8)[None]
        cases.append(Case2D(f"{k + 1:03d}", image, (0.1, 0.1), truth, "x-ray"))
    return cases, senior, junior


def cephalograms(finest_mm: float = 0.3) -> Cephalograms:
    """All of them, pooled to what the finest stride can see."""
    cases, senior, junior = cephalogram_cases()
    return Cephalograms(build_cases_2d(cases, finest_mm), senior, junior)


@dataclass(frozen=True)
class FetalHeads:
    """Fetal head ultrasound, five points of the annotated ellipse.

    Attributes:
        cases: the images.
        fetus: int64[n]; images of one fetus share a number.
        circumference_mm: float64[n], as annotated.
    """

    cases: list[Case2D]
    fetus: NDArray[np.int64]
    circumference_mm: NDArray[np.float64]


def fetal_heads() -> FetalHeads:
    """Every image, group "ultrasound"."""
    folder = FOLDER / "hc18"
    cases, fetus, circumference = [], [], []
    with (folder / "landmarks.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            pixel = float(row["px_mm"])
            picture = Image.open(folder / "images" / row["filename"]).convert("L")
            values = [float(v) for v in list(row.values())[3:]]
            points = np.array(values).reshape(5, 2) * pixel
            image = np.asarray(picture, dtype=np.uint8)[None]
            limit = (np.array(image.shape[:0:-1]) - 1) * pixel
            # An ellipse may leave the picture; a point outside cannot be looked for.
            points[((points < 0) | (points > limit)).any(axis=1)] = np.nan
            cases.append(Case2D(row["filename"], image, (pixel, pixel), points, "ultrasound"))
            fetus.append(int(re.match(r"\d+", row["filename"])[0]))
            circumference.append(float(row["hc_mm"]))
    return FetalHeads(cases, np.array(fetus), np.array(circumference))


def with_heads(cases: list[Case2D], first: int, heads_in_all: int) -> list[Case2D]:
    """The same cases in a task of more landmarks: theirs begin at `first`, others are missing."""
    wider = []
    for case in cases:
        points = np.full((heads_in_all, 2), np.nan)
        points[first : first + len(case.landmarks_mm)] = case.landmarks_mm
        wider.append(Case2D(case.name, case.image, case.spacing_mm, points, case.group))
    return wider


def _marks(path: Path) -> NDArray[np.float64]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = [[float(x) for x in row[1:39]] for row in csv.reader(file) if row]
    return np.array(rows).reshape(-1, 19, 2)


def bundled_template() -> Path:
    """The head that nilearn's wheel brings."""
    import importlib.util

    root = Path(importlib.util.find_spec("nilearn").origin).parent
    return root / "datasets" / "data" / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"


def _bundled_points() -> dict[str, NDArray[np.float64]]:
    rows = json.loads((FOLDER / "mni152_afids32.json").read_text(encoding="utf-8"))
    return {row["name"]: np.array(row["ras_mm"]) * [-1, -1, 1] for row in rows}


def _described(path: Path) -> dict[str, NDArray[np.float64]]:
    """Name to LPS mm, whatever column of the file the name stands in."""
    points = read_landmarks(path)
    with path.open(encoding="utf-8") as file:
        rows = [line.rstrip("\n").split(",") for line in file if not line.startswith("#")]
    named = {}
    for row in rows:
        label, description = row[11], row[12]
        if label in points:
            named[description or label] = points[label]
    return named if set(BRAIN_LANDMARKS) <= set(named) else points
