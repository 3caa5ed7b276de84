"""Turned boxes: the rectangle around a thing that may lie any way in a picture.

One box is looked for per label and image: the largest, where a label image has several.
Corners are written in millimetres of the patient (LPS). Files name cases: they stay where
they were asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.settings import AgentSettings
from site_client.agent.evaluation import Searched
from site_client.agent.search import Followed
from site_client.agent.tasks.boxes import BoxCase
from site_client.agent.tasks.rectangles import corners, overlaps
from site_client.agent.tasks.turned_box import TurnedBoxSearch, rectangles_of
from site_client.imaging.answers import write_table
from site_client.imaging.boxes import turned_boxes_of_picture
from site_client.imaging.case_sets import Cases, Progress, read_images
from site_client.imaging.cases import half_of, middle_of, raster
from site_client.imaging.drawing import FOUND, Overlay, draw_case
from site_client.imaging.films import Colour, draw_frames
from site_client.imaging.sources import Source
from site_client.kinds.kind import MOST_PICTURES
from site_client.kinds.label_images import LabelImageKind
from site_client.kinds.values import Answers, Built, Measured, Player

_ACTIONS: Final = (
    *("on+", "on-", "over+", "over-", "w+", "w-", "h+", "h-", "turn+", "turn-", "stop"),
)


@dataclass(frozen=True, eq=False)
class FoundTurnedBox:
    """The box that the searches for a label agree on.

    Attributes:
        name: the case's.
        label: what it holds.
        corners_mm: float64[4, 2], in order, mm from the middle of the first pixel.
        world_mm: float64[4, 3], the same, LPS mm.
        sides_mm, angle_deg: the longer and the shorter side, and the longer one's angle from the
            rows of the image.
        agreement: mean overlap of the single searches with it.
        figures: overlap with the truth and more; empty without one.
    """

    name: str
    label: str
    corners_mm: NDArray[np.float64]
    world_mm: NDArray[np.float64]
    sides_mm: tuple[float, float]
    angle_deg: float
    agreement: float
    figures: Mapping[str, float]

    def as_dict(self) -> dict[str, object]:
        """Write it for JSON; the angle's error stands beside the angle."""
        figures = {k if k != "angle_deg" else "off_deg": v for k, v in self.figures.items()}
        return {
            "case": self.name,
            "label": self.label,
            "corners_lps_mm": np.round(self.world_mm, 4).tolist(),
            "sides_mm": [round(side, 4) for side in self.sides_mm],
            "angle_deg": round(self.angle_deg, 4),
            "agreement": round(self.agreement, 4),
            **{name: round(value, 4) for name, value in figures.items()},
        }


class TurnedBoxKind(LabelImageKind[TurnedBoxSearch, FoundTurnedBox]):
    """Turned boxes, one head of the network per label."""

    known = "boxes"
    figures = ("iou", "hit", "angle_deg", "centre_mm")
    meaning = "The error is 1 − intersection over union with the best fitting box of the label."
    title = "{count} found"
    pictured = "The boxes with the smallest overlap, as acquired."
    texts = 2
    no_table = "box-2d takes tables"

    def cases(
        self,
        source: Source,
        names: Sequence[str],
        config: AgentSettings,
        progress: Progress,
        what: str = "reading images",
    ) -> Cases:
        """Read images and the boxes around the components of their label images."""
        bare = read_images(source, source.files, (), config, progress, what)
        least = config.box.least_voxels
        each = zip(source.files, bare.pictures, strict=True)
        turned = tuple(
            turned_boxes_of_picture(files, source.partners[files.name], case.picture, least)
            for files, case in each
            if files.name in source.partners
        )
        return replace(bare, landmarks=tuple(names), turned=turned)

    def build(
        self,
        cases: Cases,
        config: AgentSettings,
        *,
        known: bool = True,  # noqa: ARG002
    ) -> Built[TurnedBoxSearch]:
        """Build a search for the boxes of each label; without any, for stand-ins in the middle."""
        names = cases.landmarks
        each: list[BoxCase] = []
        for k, case in enumerate(cases.pictures):
            if cases.turned:
                boxes = cases.turned[k]
                chosen = [i for i, label in enumerate(boxes.labels) if label in names]
                rectangles = boxes.rectangles_mm[chosen]
                half = rectangles[:, None, 2:4] * np.array([[-0.5], [0.5]])
                straight = rectangles[:, None, :2] - middle_of(case) + half
                heads = tuple(names.index(boxes.labels[i]) for i in chosen)
                turns = rectangles[:, 4]
            else:
                straight = np.tile(half_of(case), (len(names), 1, 1))
                heads, turns = tuple(range(len(names))), np.zeros(len(names))
            each.append(BoxCase(case.name, raster(case), straight, heads, turns))
        task = TurnedBoxSearch(each, config.box, config.pose, roi=config.task.roi, heads=len(names))
        return Built.of(task, cases, names)

    def find(
        self, player: Player[TurnedBoxSearch], searched: Searched | None = None
    ) -> Answers[FoundTurnedBox]:
        """Give the box that the searches for each label agree on."""
        built, task = player.built, player.built.task
        figures = {} if searched is None else task.report(searched.agreed)
        searched = searched or self.search(player)
        findings: list[FoundTurnedBox] = []
        for k, agreed in enumerate(searched.agreed):
            case = built.cases.pictures[int(agreed["case"])]
            whole = task.native_rectangles(searched.agreed[k : k + 1])[0]
            mine = rectangles_of(searched.agreed[k : k + 1])
            four = corners(mine)[0] + middle_of(case)
            findings.append(
                FoundTurnedBox(
                    name=case.name,
                    label=built.labels[int(agreed["head"])],
                    corners_mm=four,
                    world_mm=case.picture.to_world(four),
                    sides_mm=(float(whole[2]), float(whole[3])),
                    angle_deg=float(np.rad2deg(whole[4])),
                    agreement=float(overlaps(rectangles_of(searched.found[k]), mine).mean()),
                    figures={name: float(value[k]) for name, value in figures.items()},
                )
            )
        return Answers(tuple(findings))

    def worst(
        self, measured: Measured[TurnedBoxSearch, FoundTurnedBox]
    ) -> list[tuple[Image.Image, str]]:
        """Draw found and true boxes."""
        cases = measured.built.cases
        numbers = {case.name: k for k, case in enumerate(cases.pictures)}
        findings = sorted(measured.answers.findings, key=lambda each: each.figures["iou"])
        shown: list[tuple[Image.Image, str]] = []
        for each in findings[:MOST_PICTURES]:
            case, boxes = cases.pictures[numbers[each.name]], cases.turned[numbers[each.name]]
            middle = each.corners_mm.mean(axis=0)
            true = [
                np.array([*box[:2], *np.log(box[2:4]), box[4]])
                for label, box in zip(boxes.labels, boxes.rectangles_mm, strict=True)
                if label == each.label
            ]
            nearest = min(true, key=lambda box: float(np.linalg.norm(box[:2] - middle)))
            overlay = Overlay(
                middle,
                path=_closed(each.corners_mm),
                true_path=_closed(corners(nearest)),
                colour=FOUND,
            )
            shown.append((draw_case(case, overlay), _told(each)))
        return shown

    def row(self, finding: FoundTurnedBox) -> dict[str, str]:
        """Write a box as a row of a table."""
        return {
            "case": finding.name,
            "label": finding.label,
            "middle": ", ".join(f"{v:.1f}" for v in finding.corners_mm.mean(axis=0)),
            "sides": " x ".join(f"{side:.1f}" for side in finding.sides_mm),
            "angle (deg)": f"{finding.angle_deg:.1f}",
            "agreement": f"{finding.agreement:.2f}",
        }

    def write(
        self, folder: Path, names: Sequence[str], findings: Sequence[FoundTurnedBox]
    ) -> list[Path]:
        """Write boxes as JSON, and as a table of corners."""
        written = super().write(folder, names, findings)
        written.append(folder / "predictions.csv")
        columns = [f"{axis}{k}_mm" for k in range(4) for axis in "xyz"]
        write_table(
            written[-1],
            ["case", "label", *columns],
            ([each.name, each.label, *each.world_mm.ravel()] for each in findings),
        )
        return written

    def frames(self, player: Player[TurnedBoxSearch], followed: Followed) -> list[Image.Image]:
        """Draw the box over its image."""
        case = player.built.cases.pictures[int(followed.steps["case"][0])]
        lines = [_closed(four + middle_of(case)) for four in corners(rectangles_of(followed.steps))]

        def draw(step: int, level: int, colour: Colour) -> Image.Image:  # noqa: ARG001
            line = lines[step]
            return draw_case(case, Overlay(line[:4].mean(axis=0), path=line, colour=colour))

        settings = player.built.task.settings
        rungs = [f"{share:g} of its size or rad a step" for share in settings.steps]
        return draw_frames(followed.steps["level"], followed.values, draw, rungs, _ACTIONS)


def _told(each: FoundTurnedBox) -> str:
    figures = each.figures
    return (
        f"{each.name}, {each.label}: IoU {figures['iou']:.2f}, {figures['angle_deg']:.0f}° and "
        f"{figures['centre_mm']:.1f} mm off"
    )


def _closed(four: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64[5, 2]: corners float64[4, 2] and the first again."""
    return np.concatenate([four, four[:1]])


KIND: Final = TurnedBoxKind()
