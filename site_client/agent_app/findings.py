"""What searches for boxes, planes and motions have found in images as acquired, and their files.

Everything is in millimetres of the patient (LPS; in pictures from the middle of the
first pixel). Where a truth is known, what was found stands beside it; where none is,
nothing is said of errors. Files name cases: they stay where they were asked for.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from site_client.agent.evaluation import Searched
from site_client.agent.networks import QNetwork
from site_client.agent.tasks.box import BoxSearch
from site_client.agent.tasks.detection import Detections, detect
from site_client.agent.tasks.plane import PlaneSearch
from site_client.agent.tasks.poses import native_poses
from site_client.agent.tasks.registration import Registration
from site_client.agent_app.config import Config
from site_client.agent_app.results import write_json
from site_client.agent_app.searches import Motion, middle_of, motion_of, plane_in_world
from site_client.agent_app.tasks import Built
from site_client.files import write_atomically
from site_client.imaging.answers import write_box_markups, write_plane_markups

_PLANE_SIDE_MM = 150.0


@dataclass(frozen=True, eq=False)
class FoundBox:
    """A box that was found in a case.

    Attributes:
        name: the case's.
        label: what it holds.
        corners_mm: float64[2, d], lower and upper.
        score: what the network thinks that stopping there is worth, -1 to 1.
        iou: overlap with the best true box of the label; None where no truth is known.
    """

    name: str
    label: str
    corners_mm: NDArray[np.float64]
    score: float
    iou: float | None

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "case": self.name,
            "label": self.label,
            "corners_mm": np.round(self.corners_mm, 4).tolist(),
            "score": round(self.score, 4),
            "iou": None if self.iou is None else round(self.iou, 4),
        }


@dataclass(frozen=True, eq=False)
class FoundPlane:
    """The plane that the searches in a case agree on.

    Attributes:
        name: the case's.
        point_mm: float64[3], LPS mm, the point of it nearest to the volume's middle.
        normal: float64[3], of length 1.
        spread_deg: mean angle of the single searches with what they agree on.
        figures: angle, offset and landmarks' distance to the truth; empty without one.
    """

    name: str
    point_mm: NDArray[np.float64]
    normal: NDArray[np.float64]
    spread_deg: float
    figures: Mapping[str, float]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "case": self.name,
            "point_lps_mm": np.round(self.point_mm, 4).tolist(),
            "normal_lps": np.round(self.normal, 6).tolist(),
            "spread_deg": round(self.spread_deg, 4),
            **{name: round(value, 4) for name, value in self.figures.items()},
        }


@dataclass(frozen=True, eq=False)
class FoundMotion:
    """The motion that the searches of a pair agree on.

    Attributes:
        name: the case's (of the fixed image).
        motion: where points of the fixed image lie in the moving one.
        spread_mm: mean distance of where single searches put points of the middle of the image
            from where what they agree on puts them.
        true: the motion that was drawn; None where none was.
        figures: registration error and rotation between the two; empty without one.
    """

    name: str
    motion: Motion
    spread_mm: float
    true: Motion | None
    figures: Mapping[str, float]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "case": self.name,
            **_matrix(self.motion),
            "angle_deg": round(self.motion.angle_deg, 4),
            "spread_mm": round(self.spread_mm, 4),
            **({} if self.true is None else {"true": _matrix(self.true)}),
            **{name: round(value, 4) for name, value in self.figures.items()},
        }


Finding = FoundBox | FoundPlane | FoundMotion


def _matrix(motion: Motion) -> dict[str, object]:
    return {
        "rotation": np.round(motion.rotation, 8).tolist(),
        "translation_mm": np.round(motion.translation_mm, 4).tolist(),
        "centre_mm": np.round(motion.centre_mm, 4).tolist(),
    }


def detect_all(
    built: Built, task: BoxSearch, network: QNetwork, config: Config
) -> dict[tuple[int, int], Detections]:
    """(case, label) to what searches from all over the case found, suppressed."""
    settings = config.box.detection()
    return {
        (case, head): detect(task, network, case, head, settings, config.evaluation)
        for case in range(len(built.cases))
        for head in range(task.heads)
    }


def boxes_found(
    built: Built, task: BoxSearch, detections: Mapping[tuple[int, int], Detections], *, known: bool
) -> list[FoundBox]:
    """Every detection, by case and label, best first."""
    found: list[FoundBox] = []
    for (case, head), each in detections.items():
        image = built.cases.each[case]
        best: list[float | None] = [None] * len(each)
        if known:
            best = _best_overlaps(task, case, head, each.boxes_mm)
        for box, score, iou in zip(each.boxes_mm, each.scores, best, strict=True):
            corners = box + middle_of(image)
            label = built.labels[head]
            found.append(FoundBox(image.name, label, corners, float(score), iou))
    return found


def _best_overlaps(
    task: BoxSearch, case: int, head: int, boxes_mm: NDArray[np.float64]
) -> list[float | None]:
    """Intersection over union of each box with the best fitting true one; 0 where there is none."""
    at = np.zeros(len(boxes_mm), task.situation)
    at["case"], at["head"], at["pose"] = case, head, native_poses(len(at), task.dim)
    size = boxes_mm[:, 1] - boxes_mm[:, 0]
    at["box"] = np.concatenate([boxes_mm.mean(axis=1), np.log(size)], axis=1)
    return [float(1.0 - error) for error in task.errors(at)]


def planes_found(
    built: Built, task: PlaneSearch, searched: Searched, *, known: bool
) -> list[FoundPlane]:
    """The plane of each case."""
    figures = task.report(searched.agreed) if known else {}
    found: list[FoundPlane] = []
    for k, at in enumerate(searched.agreed):
        case = built.cases.volumes[int(at["case"])]
        point, normal = plane_in_world(task, searched.agreed[k : k + 1], case)
        each = task.native_planes(searched.found[k])[:, 1]
        # More exact at small angles than the arc cosine.
        apart = np.clip(np.linalg.norm(each - normal, axis=1) / 2, 0, 1)
        found.append(
            FoundPlane(
                name=case.name,
                point_mm=point,
                normal=normal,
                spread_deg=float(np.rad2deg(2 * np.arcsin(apart)).mean()),
                figures={name: float(value[k]) for name, value in figures.items()},
            )
        )
    return found


def motions_found(
    built: Built,
    task: Registration,
    searched: Searched,
    *,
    known: bool,
    shift_mm: NDArray[np.float64] | None = None,
) -> list[FoundMotion]:
    """The motion of each pair; see `motion_of` for the shift."""
    figures = task.report(searched.agreed) if known else {}
    found: list[FoundMotion] = []
    for k, at in enumerate(searched.agreed):
        case = built.cases.each[int(at["case"])]
        motion = motion_of(at["motion"], case, shift_mm)
        points = motion.centre_mm + 40.0 * np.concatenate(
            [np.eye(len(motion.centre_mm)), -np.eye(len(motion.centre_mm))]
        )
        places = [motion_of(one["motion"], case, shift_mm).of(points) for one in searched.found[k]]
        gap = np.linalg.norm(np.stack(places) - motion.of(points), axis=2)
        found.append(
            FoundMotion(
                name=case.name,
                motion=motion,
                spread_mm=float(gap.mean()),
                true=motion_of(at["truth"], case) if known else None,
                figures={name: float(value[k]) for name, value in figures.items()},
            )
        )
    return found


def write_findings(folder: Path, found: Sequence[Finding], *, names: Sequence[str]) -> list[Path]:
    """Write predictions.json of all; boxes also as CSV and, of volumes, as ROI; planes as planes.

    Args:
        folder: where; made when missing.
        found: in all cases.
        names: of the cases, also of those in which nothing was found.

    Returns:
        the files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "predictions.json"]
    write_json(written[0], {"cases": list(names), "found": [each.as_dict() for each in found]})
    boxes = [each for each in found if isinstance(each, FoundBox)]
    for name in dict.fromkeys(each.name for each in boxes):
        of_case = [(e.label, e.corners_mm) for e in boxes if e.name == name]
        if of_case[0][1].shape[1] == 3:
            written.append(folder / f"{name}.mrk.json")
            write_box_markups(written[-1], of_case)
    if boxes:
        written.append(folder / "predictions.csv")
        write_atomically(written[-1], _box_table(boxes).encode())
    for plane in found:
        if isinstance(plane, FoundPlane):
            written.append(folder / f"{plane.name}.mrk.json")
            write_plane_markups(written[-1], "plane", plane.point_mm, plane.normal, _PLANE_SIDE_MM)
    return written


def _box_table(boxes: Sequence[FoundBox]) -> str:
    """The boxes as a table that `read_box_table` reads back."""
    axes = "xyz"[: boxes[0].corners_mm.shape[1]]
    text = io.StringIO()
    text.write("# unit = mm\n# coordinateSystem = LPS\n")
    writer = csv.writer(text, lineterminator="\n")
    corners = [f"{axis}{end}_mm" for end in "01" for axis in axes]
    writer.writerow(["case", "label", *corners, "score", "iou"])
    for each in boxes:
        numbers = [f"{value:.4f}" for value in each.corners_mm.ravel()]
        iou = "N/A" if each.iou is None else f"{each.iou:.4f}"
        writer.writerow([each.name, each.label, *numbers, f"{each.score:.4f}", iou])
    return text.getvalue()
