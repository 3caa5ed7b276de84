"""Boxes around lesions or organs: looked for all over each image, judged by recall and precision.

Corners are in millimetres of the patient (LPS; in pictures from the middle of the first
pixel). Files name cases: they stay where they were asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.cli import counted
from common.settings import KINDS, AgentSettings
from site_client.agent.evaluation import Searched
from site_client.agent.search import Followed
from site_client.agent.task import Situations
from site_client.agent.tasks.box import BoxSearch
from site_client.agent.tasks.boxes import BoxCase
from site_client.agent.tasks.detection import Detections, best_overlaps, best_start, detect, judge
from site_client.imaging.answers import write_box_markups, write_table
from site_client.imaging.boxes import Boxes, boxes_of_picture, boxes_of_volume
from site_client.imaging.case_sets import Cases, Progress, read_images
from site_client.imaging.cases import AnyCase, half_of, middle_of, raster
from site_client.imaging.data_settings import DataSettings
from site_client.imaging.datasets2d import PictureCase
from site_client.imaging.drawing import FOUND, Overlay, draw_case
from site_client.imaging.films import Colour, draw_frames
from site_client.imaging.label_images import labels_in
from site_client.imaging.sources import Source, Wanted, box_files, names_in
from site_client.kinds.kind import MOST_PICTURES, TaskKind
from site_client.kinds.tables import Column, Table, TableRow
from site_client.kinds.values import Answers, Built, Extra, Measured, Player

# From this overlap on, a box that was found is right, whatever the agent was trained for.
ENOUGH_IOU: Final = 0.5
_ACTIONS: Final = {
    2: ("x+", "x-", "y+", "y-", "w+", "w-", "h+", "h-", "stop"),
    3: ("x+", "x-", "y+", "y-", "z+", "z-", "w+", "w-", "d+", "d-", "h+", "h-", "stop"),
}
_DETECTION: Final = (
    Column("true", "true", "d", "d"),
    Column("found", "found", "d", "d"),
    Column("recall", "recall", ".2f", ".0%"),
    Column("precision", "precision", ".2f", ".0%"),
    Column("mean IoU", "mean IoU", ".2f", ".2f"),
)
_DETECTION_NOTE: Final = (
    "Searches start everywhere; of findings that overlap only the best is kept. A finding is right "
    f"if its intersection over union with a true box is at least {ENOUGH_IOU:g}; each true box is "
    "found once."
)


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
        """Write it for JSON."""
        return {
            "case": self.name,
            "label": self.label,
            "corners_mm": np.round(self.corners_mm, 4).tolist(),
            "score": round(self.score, 4),
            "iou": None if self.iou is None else round(self.iou, 4),
        }


class BoxKind(TaskKind[BoxSearch, FoundBox]):
    """Boxes, one head of the network per label."""

    known = "boxes"
    figures = ("iou", "hit", "centre_mm")
    meaning = "The error is 1 − intersection over union with the best fitting box of the label."
    pictured = (
        "The cases in which most boxes were missed or found where there are none. Volumes are cut "
        "through the first true box."
    )
    nothing = "Nothing was found; box.least_score says from which score on a box is a finding."

    def find_files(self, sought: Wanted, data: DataSettings) -> Source:
        """Find images and their label images, or one table of boxes."""
        return box_files(sought, data)

    def labelled(self, source: Source) -> Source:
        """Keep the images with a label image, or a line in the table."""
        return source.with_boxes()

    def names(self, source: Source, config: AgentSettings) -> tuple[str, ...]:
        """List the labels; those of label images in the order of their numbers."""
        if config.task.landmarks:
            return config.task.landmarks
        table, dim = source.boxes, KINDS[config.task.kind].dim
        if table is not None:
            return names_in(source, lambda f: [label for label, _ in table.of(f.name)], self.known)
        names = names_in(source, lambda f: labels_in(source.partners[f.name], dim), self.known)
        return tuple(sorted(names, key=int))

    def cases(
        self,
        source: Source,
        names: Sequence[str],
        config: AgentSettings,
        progress: Progress,
        what: str = "reading images",
    ) -> Cases:
        """Read images and their boxes."""
        bare = read_images(source, source.files, (), config, progress, what)
        boxes = _boxes(source, bare.each, config) if source.boxes or source.partners else ()
        return Cases(tuple(names), bare.volumes, bare.pictures, boxes)

    def build(self, cases: Cases, config: AgentSettings, *, known: bool = True) -> Built[BoxSearch]:  # noqa: ARG002
        """Build a search for the boxes of each label; without any, for stand-ins in the middle."""
        names = cases.landmarks
        each: list[BoxCase] = []
        for k, case in enumerate(cases.each):
            if cases.boxes:
                boxes = cases.boxes[k]
                chosen = [i for i, label in enumerate(boxes.labels) if label in names]
                corners = boxes.corners_mm[chosen] - middle_of(case)
                heads = tuple(names.index(boxes.labels[i]) for i in chosen)
            else:
                corners = np.tile(half_of(case), (len(names), 1, 1))
                heads = tuple(range(len(names)))
            each.append(BoxCase(case.name, raster(case), corners, heads))
        task = BoxSearch(
            each, config.box, config.pose, roi=config.task.roi, heads=len(cases.landmarks)
        )
        # Held-out cases may lack the last labels; the network has a head for each all the same.
        task.heads = len(names)
        return Built.of(task, cases, names)

    def find(
        self, player: Player[BoxSearch], searched: Searched | None = None
    ) -> Answers[FoundBox]:
        """Search from all over each case; every box that is left, by case and label, best first."""
        built, task, config = player.built, player.built.task, player.config
        settings, cases, labels = config.box, range(len(built.cases)), built.labels
        player.say(f"looking for boxes all over {counted(len(built.cases), 'case')}")
        detections = {
            (case, head): detect(task, player.network, case, head, settings, config.evaluation)
            for case in cases
            for head in range(task.heads)
        }
        findings = _findings(built, detections, known=searched is not None)
        if searched is None:
            return Answers(findings)
        reports = {
            label: judge(
                [detections[case, head] for case in cases],
                [task.true_boxes(case, head) for case in cases],
                ENOUGH_IOU,
            )
            for head, label in enumerate(labels)
        }
        further = {label: asdict(report) for label, report in reports.items()}
        rows = tuple(
            TableRow(label, (r.true, r.found, r.recall, r.precision, r.mean_iou))
            for label, r in reports.items()
        )
        extra = Extra(
            name="detection",
            said=f"looking all over each image; right from an IoU of {ENOUGH_IOU:g} on",
            title="Looking all over each image",
            note=_DETECTION_NOTE,
            table=Table("label", _DETECTION, rows),
        )
        return Answers(findings, {"detection": {"enough_iou": ENOUGH_IOU, **further}}, (extra,))

    def worst(self, measured: Measured[BoxSearch, FoundBox]) -> list[tuple[Image.Image, str]]:
        """Draw the cases with most boxes missed, or found where there are none."""
        built, judged = measured.built, []
        for case, boxes in zip(built.cases.each, built.cases.boxes, strict=True):
            known = zip(boxes.labels, boxes.corners_mm, strict=True)
            true = [corners for label, corners in known if label in built.labels]
            findings = [each for each in measured.answers.findings if each.name == case.name]
            right = sum((each.iou or 0.0) >= ENOUGH_IOU for each in findings)
            wrong = max(0, len(true) - right) + len(findings) - right
            judged.append((wrong, right, case, true, findings))
        shown: list[tuple[Image.Image, str]] = []
        for _, right, case, true, findings in sorted(judged, key=lambda it: -it[0])[:MOST_PICTURES]:
            corners = [each.corners_mm for each in findings]
            middle = next((box.mean(axis=0) for box in (*true, *corners)), middle_of(case))
            overlay = Overlay(middle, boxes=corners, true_boxes=true, colour=FOUND)
            title = f"{case.name}: {len(true)} true, {len(findings)} found, {right} of them right"
            shown.append((draw_case(case, overlay), title))
        return shown

    def row(self, finding: FoundBox) -> dict[str, str]:
        """Write a box as a row of a table."""
        lower, upper = (", ".join(f"{v:.1f}" for v in corner) for corner in finding.corners_mm)
        return {
            "case": finding.name,
            "label": finding.label,
            "lower corner": lower,
            "upper corner": upper,
            "score": f"{finding.score:.2f}",
        }

    def write(self, folder: Path, names: Sequence[str], findings: Sequence[FoundBox]) -> list[Path]:
        """Write boxes as JSON, as CSV and, of volumes, as ROI markups."""
        written = super().write(folder, names, findings)
        if not findings:
            return written
        for name in dict.fromkeys(each.name for each in findings):
            of_case = [(e.label, e.corners_mm) for e in findings if e.name == name]
            if of_case[0][1].shape[1] == 3:
                written.append(folder / f"{name}.mrk.json")
                write_box_markups(written[-1], of_case)
        axes = "xyz"[: findings[0].corners_mm.shape[1]]
        corners = [f"{axis}{end}_mm" for end in "01" for axis in axes]
        written.append(folder / "predictions.csv")
        write_table(
            written[-1],
            ["case", "label", *corners, "score", "iou"],
            ([e.name, e.label, *e.corners_mm.ravel(), e.score, e.iou] for e in findings),
        )
        return written

    def film_starts(self, player: Player[BoxSearch]) -> list[Situations]:
        """Choose for each case and label the search whose end promises most."""
        task, config = player.built.task, player.config
        settings = config.box
        grids = (
            task.grid(case, head, settings.per_axis, settings.sizes_mm)
            for case in range(len(task))
            for head in range(task.heads)
        )
        return [best_start(task, player.network, grid, config.evaluation) for grid in grids]

    def frames(self, player: Player[BoxSearch], followed: Followed) -> list[Image.Image]:
        """Draw the box over its image."""
        case = player.built.cases.each[int(followed.steps["case"][0])]
        return box_frames(player.built.task, case, followed)


def box_frames(task: BoxSearch, case: AnyCase, followed: Followed) -> list[Image.Image]:
    """Draw the box over its image; in volumes over the slices through its middle."""
    corners = task.native_boxes(followed.steps) + middle_of(case)

    def draw(step: int, level: int, colour: Colour) -> Image.Image:  # noqa: ARG001
        middle = corners[step].mean(axis=0)
        return draw_case(case, Overlay(middle, boxes=[corners[step]], colour=colour))

    rungs = [f"{share:g} of its size a step" for share in task.settings.steps]
    return draw_frames(followed.steps["level"], followed.values, draw, rungs, _ACTIONS[task.dim])


def _boxes(source: Source, images: Sequence[AnyCase], config: AgentSettings) -> tuple[Boxes, ...]:
    """Read the true boxes of images."""
    least = config.box.least_voxels
    boxes: list[Boxes] = []
    for files, case in zip(source.files, images, strict=True):
        truth = source.boxes or source.partners[files.name]
        if isinstance(case, PictureCase):
            boxes.append(boxes_of_picture(files, truth, case.picture, least))
        else:
            boxes.append(boxes_of_volume(files, truth, case.volume, least))
    return tuple(boxes)


def _findings(
    built: Built[BoxSearch], detections: dict[tuple[int, int], Detections], *, known: bool
) -> tuple[FoundBox, ...]:
    """Place detections in the patient, beside their overlaps where truths are known."""
    findings: list[FoundBox] = []
    for (case, head), each in detections.items():
        image = built.cases.each[case]
        overlaps: list[float | None] = [None] * len(each)
        if known:
            overlaps = best_overlaps(built.task, case, head, each.boxes_mm)
        for box, score, iou in zip(each.boxes_mm, each.scores, overlaps, strict=True):
            corners = box + middle_of(image)
            findings.append(FoundBox(image.name, built.labels[head], corners, float(score), iou))
    return tuple(findings)


KIND: Final = BoxKind()
