"""From cases to searches for boxes, planes and motions, and back to millimetres in the patient.

Where nothing is known of an image (it is played, not measured), a stand-in takes the
truth's place; no error against it may be shown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from site_client.agent.task import Situations
from site_client.agent.tasks.box import BoxSearch
from site_client.agent.tasks.boxes import BoxCase
from site_client.agent.tasks.contrasts import recontrasted
from site_client.agent.tasks.landmark3d import raster_of
from site_client.agent.tasks.plane import PlaneCase, PlaneSearch, fit_plane
from site_client.agent.tasks.poses import rotations
from site_client.agent.tasks.registration import PairCase, Registration
from site_client.agent_app.cases import AnyCase, Cases
from site_client.agent_app.config import Config
from site_client.imaging.dataset import Case
from site_client.imaging.datasets2d import PictureCase
from site_client.imaging.pyramids import Raster

PLANE_NAME, MOTION_NAME = "plane", "motion"


@dataclass(frozen=True, eq=False)
class Motion:
    """Where points of the fixed image lie in the moving one: ``R (x - centre) + centre + t``.

    Attributes:
        rotation: float64[d, d].
        translation_mm: float64[d].
        centre_mm: float64[d], the fixed image's middle: in volumes LPS mm, in pictures mm
            from the middle of the first pixel (of the fixed, and so of the moving picture).
    """

    rotation: NDArray[np.float64]
    translation_mm: NDArray[np.float64]
    centre_mm: NDArray[np.float64]

    def of(self, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where points float64[n, d] of the fixed image lie in the moving one."""
        turned = (points_mm - self.centre_mm) @ self.rotation.T
        return np.asarray(turned + self.centre_mm + self.translation_mm)

    @property
    def angle_deg(self) -> float:
        """By how much it turns."""
        identity = np.eye(len(self.rotation))
        half = np.linalg.norm(self.rotation - identity) / np.sqrt(8)
        return float(np.rad2deg(2 * np.arcsin(min(half, 1.0))))


def build_boxes(cases: Cases, config: Config) -> BoxSearch:
    """A search for the boxes of each label; without any, for stand-ins in the middle.

    Raises:
        InputDataError: no box of the wanted labels, or settings that cannot be.
    """
    names = cases.landmarks
    each: list[BoxCase] = []
    for k, case in enumerate(cases.each):
        if cases.boxes:
            boxes = cases.boxes[k]
            wanted = [i for i, label in enumerate(boxes.labels) if label in names]
            corners = boxes.corners_mm[wanted] - middle_of(case)
            heads = tuple(names.index(boxes.labels[i]) for i in wanted)
        else:
            corners = np.tile(_half_of(case), (len(names), 1, 1))
            heads = tuple(range(len(names)))
        each.append(BoxCase(case.name, raster(case), corners, heads))
    task = BoxSearch(each, config.box.search(config.task.roi), config.pose)
    # Held-out cases may lack the last labels; the network has a head for each all the same.
    task.heads = len(names)
    return task


def build_plane(cases: Cases, config: Config, *, known: bool = True) -> PlaneSearch:
    """A search for the plane of each case's landmarks.

    Raises:
        InputDataError: names a case whose landmarks define no plane within reach.
    """
    settings = config.plane.search(config.task.roi)
    each: list[PlaneCase] = []
    for case in cases.volumes:
        if known:
            plane, marks = _plane_of(case, cases.landmarks), case.landmarks_mm
        else:
            plane = np.stack([case.volume.centre_mm, np.array(settings.normal)])
            marks = np.full((1, 3), np.nan)
        each.append(PlaneCase(case.name, case.volume, plane[None], marks[None]))
    return PlaneSearch(each, settings, config.pose)


def _plane_of(case: Case, names: tuple[str, ...]) -> NDArray[np.float64]:
    try:
        return fit_plane(case.landmarks_mm)
    except InputDataError as error:
        there = [bool(np.isfinite(mark).all()) for mark in case.landmarks_mm]
        missing = [name for name, found in zip(names, there, strict=True) if not found]
        raise InputDataError(
            "the landmarks of a case do not define a plane",
            field=f"{case.name}: task.plane_landmarks",
            expected=error.expected,
            got=f"without {', '.join(missing)}" if missing else "all on one line",
        ) from error


def build_registration(cases: Cases, config: Config) -> Registration:
    """A registration of each case with its moving image, or with itself.

    Raises:
        InputDataError: images that do not fit together.
    """
    each: list[PairCase] = []
    for k, case in enumerate(cases.each):
        fixed = raster(case)
        if cases.moving:
            other = cases.moving[k]
            moving, offset = raster(other), middle_of(other) - middle_of(case)
        else:
            pixels = recontrasted(fixed.pixels) if config.task.recontrast else fixed.pixels
            moving = Raster(pixels, fixed.spacing_mm, fixed.direction)
            offset = np.zeros(len(fixed.spacing_mm))
        each.append(PairCase(case.name, fixed, moving, offset, _points_of(case)))
    return Registration(each, config.registration.search(config.task.roi), config.pose)


def to_be_registered(fixed: AnyCase, moving: AnyCase, config: Config) -> Registration:
    """The registration of two images of which nothing is known but where their files put them."""
    offset = start_of(fixed, moving, config) - middle_of(fixed)
    pair = PairCase(fixed.name, raster(fixed), raster(moving), offset, _points_of(fixed))
    return Registration([pair], config.registration.search(config.task.roi), config.pose)


def start_of(fixed: AnyCase, moving: AnyCase, config: Config) -> NDArray[np.float64]:
    """Where the middle of the moving image is taken to be, in the fixed one's coordinates."""
    return middle_of(fixed if config.registration.start == "middle" else moving)


def motion_of(
    parameters: NDArray[np.floating], fixed: AnyCase, shift_mm: NDArray[np.float64] | None = None
) -> Motion:
    """A found motion in millimetres of the patient.

    Args:
        parameters: float[3 or 6], translation (mm), then rotation (degrees), of a situation
            as acquired.
        fixed: the image whose middle it turns about.
        shift_mm: float64[d], what the start has moved the moving image by.
    """
    centre = middle_of(fixed)
    d = len(centre)
    turn = rotations(parameters[None, d:])[0]
    translation = parameters[:d].astype(np.float64)
    return Motion(turn, translation if shift_mm is None else translation + shift_mm, centre)


def plane_in_world(task: PlaneSearch, at: Situations, case: Case) -> NDArray[np.float64]:
    """float64[2, 3]: a point (LPS mm) and the unit normal of one native situation."""
    point, normal = task.native_planes(at[None] if at.ndim == 0 else at)[0]
    return np.stack([point + case.volume.centre_mm, normal])


def middle_of(case: AnyCase) -> NDArray[np.float64]:
    """float64[d]: the middle of an image, given as its landmarks are."""
    return case.picture.extent_mm / 2 if isinstance(case, PictureCase) else case.volume.centre_mm


def first_of(case: AnyCase) -> NDArray[np.float64]:
    """float64[d]: the first pixel of an image, given as its landmarks are."""
    return np.zeros(2) if isinstance(case, PictureCase) else np.array(case.volume.origin_mm)


def raster(case: AnyCase) -> Raster:
    """An image as the pyramids take it."""
    if isinstance(case, PictureCase):
        return Raster(case.picture.channels, (case.picture.spacing_mm,) * 2, np.eye(2))
    return raster_of(case.volume)


def _half_of(case: AnyCase) -> NDArray[np.float64]:
    """float64[2, d]: corners of the middle of an image, half of it along each axis."""
    extent = 2 * (middle_of(case) - first_of(case))
    return np.stack([-extent / 4, extent / 4])


def _points_of(case: AnyCase) -> NDArray[np.float64]:
    """float64[2^d, d]: where the registration error is measured: the corners of that middle."""
    corners = _half_of(case)
    d = corners.shape[1]
    return np.asarray(corners[np.array(list(np.ndindex(*[2] * d))), np.arange(d)])
