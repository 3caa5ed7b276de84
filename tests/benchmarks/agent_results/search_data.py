"""The development images as cases of the other searches: boxes, view planes, pairs.

Truths follow from the same annotations as the landmarks': a fetal head's box from
its ellipse, planes and rigid motions from the 32 points of the AFIDs protocol.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from site_client.agent.tasks.boxes import BoxCase
from site_client.agent.tasks.contrasts import recontrasted
from site_client.agent.tasks.plane import PlaneCase, fit_plane
from site_client.agent.tasks.registration import PairCase
from site_client.imaging.cases import raster_of
from site_client.imaging.pyramids import Raster
from site_client.imaging.volumes import Volume, read_volume
from tests.benchmarks.agent_results import data

# Points of the protocol that lie between the hemispheres.
MIDLINE = (
    "AC",
    "PC",
    "infracollicular sulcus",
    "PMJ",
    "superior interpeduncular fossa",
    "culmen",
    "intermammillary sulcus",
    "pineal gland",
    "genu of CC",
    "splenium of CC",
)
# Not to be relied on in every head.
_LEFT_OUT = ("R ventral occipital horn", "L ventral occipital horn")
_SPACING_MM = 2.0


@dataclass(frozen=True)
class FetalBoxes:
    """Fetal heads with the box around the annotated ellipse.

    Attributes:
        cases: the images.
        fetus: int64[n]; images of one fetus share a number.
    """

    cases: list[BoxCase]
    fetus: NDArray[np.int64]


def fetal_boxes() -> FetalBoxes:
    """Every image; the box of an ellipse that leaves the picture does so, too."""
    folder = data.FOLDER / "hc18"
    cases, fetus = [], []
    with (folder / "landmarks.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            pixel = float(row["px_mm"])
            picture = Image.open(folder / "images" / row["filename"]).convert("L")
            image = np.asarray(picture, dtype=np.uint8)[None]
            centre, *ends = np.array([float(v) for v in list(row.values())[3:]]).reshape(5, 2)
            long, short = (ends[1] - ends[0]) / 2, (ends[3] - ends[2]) / 2
            middle = (np.array(image.shape[:0:-1]) - 1) / 2
            half = np.sqrt(long**2 + short**2)
            corners = np.stack([centre - middle - half, centre - middle + half]) * pixel
            raster = Raster(image, (pixel, pixel), np.eye(2))
            cases.append(BoxCase(row["filename"], raster, corners[None]))
            fetus.append(int(re.match(r"\d+", row["filename"])[0]))
    return FetalBoxes(cases, np.array(fetus))


@dataclass(frozen=True)
class MarkedHead:
    """A human head with its points.

    Attributes:
        volume: at 2 mm.
        points_mm: name to LPS mm.
    """

    volume: Volume
    points_mm: dict[str, NDArray[np.float64]]


def marked_heads() -> dict[str, MarkedHead]:
    """The four human heads with every point of the protocol."""
    heads = {}
    for name, file in data.HEADS.items():
        path = data.bundled_template() if file is None else data.template(file)
        points = data.points_of(name)
        kept = {k: v for k, v in points.items() if k not in _LEFT_OUT}
        heads[name] = MarkedHead(read_volume(path, _SPACING_MM), kept)
    return heads


def plane_cases(heads: dict[str, MarkedHead], plane: str) -> dict[str, PlaneCase]:
    """Each head with its mid-sagittal plane, or its axial plane through AC and PC."""
    cases = {}
    for name, head in heads.items():
        points = np.stack([head.points_mm[k] for k in MIDLINE])
        sagittal = fit_plane(points)
        if plane == "mid-sagittal":
            truth, marks = sagittal, points
        else:
            marks = points[:2]
            along = marks[1] - marks[0]
            truth = np.stack([marks.mean(axis=0), np.cross(sagittal[1], along)])
        cases[name] = PlaneCase(name, head.volume, truth[None], marks[None])
    return cases


def pair_case(fixed: MarkedHead, moving: MarkedHead, *, changed: bool) -> PairCase:
    """Two heads, the moving one put rigidly to where its points fit the fixed one's best.

    The fit turns and shifts the moving image's frame; no voxel is interpolated for it.
    """
    names = [k for k in fixed.points_mm if k in moving.points_mm]
    to = np.stack([fixed.points_mm[k] for k in names])
    turn, shift = rigid_fit(np.stack([moving.points_mm[k] for k in names]), to)
    middle = fixed.volume.centre_mm
    raster = raster_of(moving.volume)
    pixels = recontrasted(raster.pixels) if changed else raster.pixels
    return PairCase(
        name="pair",
        fixed=raster_of(fixed.volume),
        moving=Raster(pixels, raster.spacing_mm, turn @ raster.direction),
        moving_middle_mm=turn @ moving.volume.centre_mm + shift - middle,
        points_mm=to - middle,
    )


def rigid_fit(
    points: NDArray[np.float64], to: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(R, t) with the least sum of squares of ``R points + t - to``; float64[n, 3] each.

    Source: Kabsch, Acta Crystallographica 1976.
    """
    a, b = points.mean(axis=0), to.mean(axis=0)
    u, _, v = np.linalg.svd((points - a).T @ (to - b))
    mirror = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ v))])
    turn = v.T @ mirror @ u.T
    return turn, b - turn @ a


def varied(head: MarkedHead, *, mirrored: bool, scale: float) -> MarkedHead:
    """The same head larger or smaller, or with left and right exchanged, as another might be."""
    volume = head.volume
    middle = volume.centre_mm
    # Mirrored across the volume's own first axis, points with it.
    first = volume.direction[:, 0]
    flip = np.eye(3) - 2 * np.outer(first, first) if mirrored else np.eye(3)
    voxels = np.ascontiguousarray(volume.voxels[:, :, ::-1]) if mirrored else volume.voxels
    origin = middle + scale * (np.array(volume.origin_mm) - middle)
    # What was on the right is on the left now, and is called so.
    sides = {"R ": "L ", "L ": "R "} if mirrored else {}
    return MarkedHead(
        Volume(voxels, volume.spacing_mm * scale, tuple(origin), volume.direction),
        {
            sides.get(name[:2], name[:2]) + name[2:]: middle + scale * flip @ (at - middle)
            for name, at in head.points_mm.items()
        },
    )


def misfit_mm(fixed: MarkedHead, moving: MarkedHead) -> float:
    """How far apart the points of two heads lie on average after their best rigid fit."""
    names = [k for k in fixed.points_mm if k in moving.points_mm]
    to = np.stack([fixed.points_mm[k] for k in names])
    points = np.stack([moving.points_mm[k] for k in names])
    turn, shift = rigid_fit(points, to)
    return float(np.linalg.norm(points @ turn.T + shift - to, axis=1).mean())
