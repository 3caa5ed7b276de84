"""View planes: the plane that a case's landmarks lie in, looked for in a volume.

A plane is a point in millimetres of the patient (LPS) and a normal. Files name cases:
they stay where they were asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.errors import InputDataError
from common.settings import AgentSettings, plane_labels
from site_client.agent.evaluation import Searched
from site_client.agent.search import Followed
from site_client.agent.task import Situations
from site_client.agent.tasks.plane import PlaneCase, PlaneSearch, fit_plane
from site_client.imaging.answers import write_plane_markups
from site_client.imaging.case_sets import Cases
from site_client.imaging.cases import extent_of
from site_client.imaging.data_settings import DataSettings
from site_client.imaging.dataset import Case
from site_client.imaging.drawing import FOUND, Overlay, as_picture, beside, draw_case, titled
from site_client.imaging.films import Colour, draw_frames
from site_client.imaging.sources import Source, Wanted, landmark_files
from site_client.kinds.kind import MOST_PICTURES, TaskKind
from site_client.kinds.values import Answers, Built, Measured, Player

_ACTIONS: Final = ("turn+", "turn-", "tilt+", "tilt-", "off+", "off-")
_SIDE_MM: Final = 150.0
_VIEW: Final = 190  # samples along each side of a cut that is drawn


@dataclass(frozen=True, eq=False)
class FoundPlane:
    """The plane that the searches in a case agree on.

    Attributes:
        name: the case's.
        plane: which of the planes that are looked for.
        point_mm: float64[3], LPS mm, the point of it nearest to the volume's middle.
        normal: float64[3], of length 1.
        spread_deg: mean angle of the single searches with what they agree on.
        figures: angle, offset and landmarks' distance to the truth; empty without one.
    """

    name: str
    plane: str
    point_mm: NDArray[np.float64]
    normal: NDArray[np.float64]
    spread_deg: float
    figures: Mapping[str, float]

    def as_dict(self) -> dict[str, object]:
        """Write it for JSON."""
        return {
            "case": self.name,
            "plane": self.plane,
            "point_lps_mm": np.round(self.point_mm, 4).tolist(),
            "normal_lps": np.round(self.normal, 6).tolist(),
            "spread_deg": round(self.spread_deg, 4),
            **{name: round(value, 4) for name, value in self.figures.items()},
        }


class PlaneKind(TaskKind[PlaneSearch, FoundPlane]):
    """The plane of some landmarks in a volume."""

    figures = ("angle_deg", "offset_mm", "landmark_to_plane_mm")
    meaning = (
        "The error is the distance of two angles and an offset from the true ones in mm, "
        "a degree weighed by the lever; angle, offset and the landmarks’ distance stand beside."
    )

    def find_files(self, sought: Wanted, data: DataSettings) -> Source:
        """Find images and their landmarks."""
        return landmark_files(sought, data)

    def labelled(self, source: Source) -> Source:
        """Keep the cases that have landmarks."""
        return source.with_landmarks()

    def names(self, source: Source, config: AgentSettings) -> tuple[str, ...]:  # noqa: ARG002
        """List the landmarks that lie in the plane."""
        if not config.task.plane_landmarks:
            raise InputDataError(
                "no plane to look for",
                field="task.plane_landmarks",
                expected="three or more landmarks that lie in it",
            )
        planes = (config.task.plane_landmarks, *config.task.more_planes)
        return tuple(dict.fromkeys(name for plane in planes for name in plane))

    def build(
        self, cases: Cases, config: AgentSettings, *, known: bool = True
    ) -> Built[PlaneSearch]:
        """Build a search for the planes of each case's landmarks."""
        settings, planes = config.plane, planes_of(config, cases)
        most = max(map(len, planes))
        each: list[PlaneCase] = []
        for case in cases.volumes:
            if known:
                fitted = [_plane_of(case, cases.landmarks, plane) for plane in planes]
                marks = np.full((len(planes), most, 3), np.nan)
                for row, plane in zip(marks, planes, strict=True):
                    row[: len(plane)] = case.landmarks_mm[plane]
            else:
                normals = (settings.normal, *settings.more_normals)
                fitted = [np.stack([case.volume.centre_mm, np.array(n)]) for n in normals]
                marks = np.full((len(planes), 1, 3), np.nan)
            each.append(PlaneCase(case.name, case.volume, np.stack(fitted), marks))
        task = PlaneSearch(each, settings, config.pose, roi=config.task.roi)
        return Built.of(task, cases, plane_labels(config))

    def find(
        self, player: Player[PlaneSearch], searched: Searched | None = None
    ) -> Answers[FoundPlane]:
        """Give the planes of each case."""
        built, task = player.built, player.built.task
        figures = {} if searched is None else task.report(searched.agreed)
        searched = searched or self.search(player)
        planes: list[FoundPlane] = []
        for k, agreed in enumerate(searched.agreed):
            case = built.cases.volumes[int(agreed["case"])]
            point, normal = plane_in_world(task, searched.agreed[k : k + 1], case)
            each = task.native_planes(searched.found[k])[:, 1]
            # More exact at small angles than the arc cosine.
            apart = np.clip(np.linalg.norm(each - normal, axis=1) / 2, 0, 1)
            planes.append(
                FoundPlane(
                    name=case.name,
                    plane=built.labels[int(agreed["head"])],
                    point_mm=point,
                    normal=normal,
                    spread_deg=float(np.rad2deg(2 * np.arcsin(apart)).mean()),
                    figures={name: float(value[k]) for name, value in figures.items()},
                )
            )
        return Answers(tuple(planes))

    def worst(self, measured: Measured[PlaneSearch, FoundPlane]) -> list[tuple[Image.Image, str]]:
        """Draw where the found and the true plane cross slices through the case's landmarks."""
        cases = {case.name: case for case in measured.built.cases.volumes}
        planes = dict(
            zip(
                measured.built.labels,
                planes_of(measured.config, measured.built.cases),
                strict=True,
            )
        )
        findings = sorted(measured.answers.findings, key=lambda e: -e.figures["angle_deg"])
        shown: list[tuple[Image.Image, str]] = []
        for each in findings[:MOST_PICTURES]:
            case, found = cases[each.name], np.stack([each.point_mm, each.normal])
            marks = planes[each.plane]
            overlay = Overlay(
                np.nanmean(case.landmarks_mm[marks], axis=0),
                plane=found,
                true_plane=_plane_of(case, measured.built.cases.landmarks, marks),
                colour=FOUND,
            )
            angle, offset = each.figures["angle_deg"], each.figures["offset_mm"]
            caption = f"{each.name}: {angle:.1f}° and {offset:.1f} mm from the true {each.plane}"
            shown.append((draw_case(case, overlay), caption))
        return shown

    def row(self, finding: FoundPlane) -> dict[str, str]:
        """Write a plane as a row of a table."""
        return {
            "case": finding.name,
            "plane": finding.plane,
            "point": ", ".join(f"{value:.1f}" for value in finding.point_mm),
            "normal": ", ".join(f"{value:.3f}" for value in finding.normal),
            "spread (deg)": f"{finding.spread_deg:.2f}",
        }

    def write(
        self, folder: Path, names: Sequence[str], findings: Sequence[FoundPlane]
    ) -> list[Path]:
        """Write planes as JSON and as plane markups, a file for each of several."""
        written = super().write(folder, names, findings)
        for plane in findings:
            several = "" if plane.plane == "plane" else "_" + plane.plane.replace(" ", "")
            written.append(folder / f"{plane.name}{several}.mrk.json")
            write_plane_markups(written[-1], plane.plane, plane.point_mm, plane.normal, _SIDE_MM)
        return written

    def frames(self, player: Player[PlaneSearch], followed: Followed) -> list[Image.Image]:
        """Draw the cut and where it crosses the slices."""
        case = player.built.cases.volumes[int(followed.steps["case"][0])]
        return plane_frames(player.built.task, case, followed)


def plane_frames(task: PlaneSearch, case: Case, followed: Followed) -> list[Image.Image]:
    """Draw the cut in the plane, and where it crosses the slices through its nearest point."""
    strides = np.full(len(followed.steps), extent_of(case) / _VIEW)
    cuts = task.look(followed.steps, strides, _VIEW)[:, 1]
    settings = task.settings
    normal = (settings.normal, *settings.more_normals)[int(followed.steps["head"][0])]
    if abs(normal[2]) < max(np.abs(normal)):
        # The rows of an upright plane run towards the head.
        cuts = cuts[:, ::-1]

    def draw(step: int, level: int, colour: Colour) -> Image.Image:  # noqa: ARG001
        plane = plane_in_world(task, followed.steps[step : step + 1], case)
        slices = draw_case(case, Overlay(plane[0], plane=plane, colour=colour), _VIEW)
        return beside([titled(as_picture(cuts[step]), "in the plane"), slices])

    rungs = [
        f"{angle:g} deg or {offset:g} mm a step"
        for angle, offset in zip(settings.angles_deg, settings.offsets_mm, strict=True)
    ]
    return draw_frames(followed.steps["level"], followed.values, draw, rungs, _ACTIONS)


def plane_in_world(task: PlaneSearch, situations: Situations, case: Case) -> NDArray[np.float64]:
    """Give float64[2, 3]: a point (LPS mm) and the unit normal of situations[1] as acquired."""
    point, normal = task.native_planes(situations)[0]
    return np.stack([point + case.volume.centre_mm, normal])


def planes_of(config: AgentSettings, cases: Cases) -> list[list[int]]:
    """Number the landmarks of each plane, as the cases have them."""
    planes = (config.task.plane_landmarks, *config.task.more_planes)
    return [[cases.landmarks.index(name) for name in plane] for plane in planes]


def _plane_of(case: Case, names: tuple[str, ...], plane: list[int]) -> NDArray[np.float64]:
    """Fit the plane of some of a case's landmarks.

    Raises:
        InputDataError: names the case and the landmarks that it lacks.
    """
    try:
        return fit_plane(case.landmarks_mm[plane])
    except InputDataError as error:
        missing = [names[k] for k in plane if not np.isfinite(case.landmarks_mm[k]).all()]
        raise InputDataError(
            "the landmarks of a case do not define a plane",
            field=f"{case.name}: task.plane_landmarks",
            expected=error.expected,
            got=f"without {', '.join(missing)}" if missing else "all on one line",
        ) from error


KIND: Final = PlaneKind()
