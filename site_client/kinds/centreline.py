"""Centrelines: vessels traced from a seed to their ends, in pictures and volumes.

Beside every image stands a curve whose first point is the seed; of an image that is played
it needs no more than two points, the seed and a way to go. What is found is a curve in the
patient's world (LPS). Files name cases: they stay where they were asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.errors import InputDataError
from common.settings import AgentSettings
from site_client.agent.evaluation import Searched
from site_client.agent.search import Followed
from site_client.agent.task import Situations
from site_client.agent.tasks.centreline import Centreline, CentrelineCase
from site_client.agent.tasks.polylines import apart, length_of
from site_client.imaging.answers import write_curve_markups, write_table
from site_client.imaging.case_sets import Cases, Progress, read_images
from site_client.imaging.cases import AnyCase, middle_of, raster
from site_client.imaging.curves import Curves, checked, curves_in, flat_curves_in
from site_client.imaging.data_settings import DataSettings
from site_client.imaging.datasets2d import PictureCase
from site_client.imaging.drawing import FOUND, Overlay, draw_case
from site_client.imaging.films import Colour, draw_frames
from site_client.imaging.listfiles import CaseFiles
from site_client.imaging.sources import Source, Wanted, curve_files
from site_client.kinds.kind import MOST_PICTURES, TaskKind
from site_client.kinds.values import Answers, Built, Measured, Player

_ACTIONS: Final = {
    2: ("on", "right", "left", "stop"),
    3: ("on", "right", "left", "up", "down", "stop"),
}


@dataclass(frozen=True, eq=False)
class FoundCentreline:
    """The trace that the searches from a seed agree on.

    Attributes:
        name: the case's.
        curve: the vessel's, as its file names it.
        points_mm: float64[points, d], as the case's landmarks are given.
        world_mm: float64[points, 3], LPS mm.
        spread_mm: mean distance of the single traces from it.
        figures: distance to the true line and the share of it traced; empty without one.
    """

    name: str
    curve: str
    points_mm: NDArray[np.float64]
    world_mm: NDArray[np.float64]
    spread_mm: float
    figures: dict[str, float]

    def as_dict(self) -> dict[str, object]:
        """Write it for JSON."""
        return {
            "case": self.name,
            "curve": self.curve,
            "points_lps_mm": np.round(self.world_mm, 3).tolist(),
            "length_mm": round(length_of(self.world_mm), 3),
            "spread_mm": round(self.spread_mm, 4),
            **{name: round(value, 4) for name, value in self.figures.items()},
        }


class CentrelineKind(TaskKind[Centreline, FoundCentreline]):
    """The course of a vessel, from a seed."""

    known = "curves"
    figures = ("off_mm", "traced")
    meaning = (
        "The error is the mean distance of trace and true centreline from each other, so that "
        "an end too early counts as much as a way off; “off” is the trace’s distance from the "
        "line alone, “traced” the share of the line within the tolerance of the trace."
    )
    constant = "the mean course of the training vessels, laid at seed and direction, gives"
    title = "{count} traced, mm"
    nothing = "Nothing was traced."
    texts = 2
    pictured = "The vessels with the largest errors, as acquired."

    def find_files(self, sought: Wanted, data: DataSettings) -> Source:
        """Find images and their curves."""
        return curve_files(sought, data)

    def labelled(self, source: Source) -> Source:
        """Keep the images with a curve."""
        return source.with_curves()

    def names(self, source: Source, config: AgentSettings) -> tuple[str, ...]:  # noqa: ARG002
        """List nothing: which vessel is traced, the seed says."""
        return ()

    def cases(
        self,
        source: Source,
        names: Sequence[str],
        config: AgentSettings,
        progress: Progress,
        what: str = "reading images",
    ) -> Cases:
        """Read images and their curves."""
        bare = read_images(source, source.files, names, config, progress, what)
        each = zip(source.files, bare.each, strict=True)
        return replace(bare, curves=tuple(_curves_of(f, case, source) for f, case in each))

    def unknown_cases(
        self,
        images: Sequence[Path],
        names: Sequence[str],
        config: AgentSettings,
        data: DataSettings,
        progress: Progress,
    ) -> Cases:
        """Read images with the seeds to trace from.

        Raises:
            InputDataError: an image without a seed.
        """
        source = self.find_files(Wanted(tuple(images), need_truth=False), data)
        if without := [f.name for f in source.files if f.landmarks is None]:
            raise InputDataError(
                "nothing says where to trace from",
                field=", ".join(without),
                expected="<image>.mrk.json beside each image, a curve of two points: the seed, "
                "and a little further along the vessel",
                got="none",
                advice="Draw it in 3D Slicer (Markups, open curve) and save it as LPS",
            )
        return self.cases(source, names, config, progress)

    def build(
        self,
        cases: Cases,
        config: AgentSettings,
        *,
        known: bool = True,  # noqa: ARG002 - a seed is a line, too
    ) -> Built[Centreline]:
        """Build the tracing of each case's curves."""
        each = [
            CentrelineCase(
                case.name, raster(case), tuple(p - middle_of(case) for p in curves.values())
            )
            for case, curves in zip(cases.each, cases.curves, strict=True)
        ]
        task = Centreline(each, config.centreline, config.pose, roi=config.task.roi)
        return Built.of(task, cases, ("centreline",))

    def find(
        self, player: Player[Centreline], searched: Searched | None = None
    ) -> Answers[FoundCentreline]:
        """Give the trace of each vessel."""
        built, task = player.built, player.built.task
        figures = {} if searched is None else task.report(searched.agreed)
        searched = searched or self.search(player)
        findings: list[FoundCentreline] = []
        for k, trace in enumerate(task.native_traces(searched.agreed)):
            case, curve = _place(built, searched.agreed[k : k + 1])
            points = trace + middle_of(case)
            world = case.picture.to_world(points) if isinstance(case, PictureCase) else points
            singles = [apart(one, trace)[0] for one in task.native_traces(searched.found[k])]
            findings.append(
                FoundCentreline(
                    name=case.name,
                    curve=curve,
                    points_mm=points,
                    world_mm=world,
                    spread_mm=float(np.mean(singles)),
                    figures={name: float(value[k]) for name, value in figures.items()},
                )
            )
        return Answers(tuple(findings))

    def worst(
        self, measured: Measured[Centreline, FoundCentreline]
    ) -> list[tuple[Image.Image, str]]:
        """Draw trace and true line over slices through the line's middle."""
        cases = measured.built.cases
        numbers = {case.name: k for k, case in enumerate(cases.each)}
        findings = sorted(measured.answers.findings, key=lambda each: each.figures["traced"])
        shown: list[tuple[Image.Image, str]] = []
        for each in findings[:MOST_PICTURES]:
            case = cases.each[numbers[each.name]]
            truth = cases.curves[numbers[each.name]][each.curve]
            overlay = Overlay(
                truth[len(truth) // 2], path=each.points_mm, true_path=truth, colour=FOUND
            )
            text = (
                f"{each.name}, {each.curve}: {each.figures['traced']:.0%} traced, "
                f"{each.figures['off_mm']:.1f} mm off"
            )
            shown.append((draw_case(case, overlay), text))
        return shown

    def row(self, finding: FoundCentreline) -> dict[str, str]:
        """Write a trace as a row of a table."""
        return {
            "case": finding.name,
            "curve": finding.curve,
            "length": f"{length_of(finding.world_mm):.1f}",
            "end": ", ".join(f"{value:.1f}" for value in finding.world_mm[-1]),
            "spread": f"{finding.spread_mm:.2f}",
        }

    def write(
        self, folder: Path, names: Sequence[str], findings: Sequence[FoundCentreline]
    ) -> list[Path]:
        """Write traces as JSON, as a table of points, and as curve markups for 3D Slicer."""
        written = super().write(folder, names, findings)
        for name in dict.fromkeys(each.name for each in findings):
            written.append(folder / f"{name}.mrk.json")
            write_curve_markups(
                written[-1], [(e.curve, e.world_mm) for e in findings if e.name == name]
            )
        written.append(folder / "predictions.csv")
        write_table(
            written[-1],
            ["case", "curve", "x_mm", "y_mm", "z_mm"],
            ([e.name, e.curve, *point] for e in findings for point in e.world_mm),
        )
        return written

    def film_name(self, built: Built[Centreline], start: Situations) -> str:
        """Name the film of a trace by its case and its curve."""
        case, curve = _place(built, start)
        return f"{case.name}_{curve}".replace("/", "_").replace(" ", "_")

    def frames(self, player: Player[Centreline], followed: Followed) -> list[Image.Image]:
        """Draw the trace so far over slices through its end."""
        built, task, steps = player.built, player.built.task, followed.steps
        case, curve = _place(built, steps)
        traces = task.native_traces(steps)
        side = min(task.settings.strides_mm) * task.roi

        def draw(step: int, level: int, colour: Colour) -> Image.Image:  # noqa: ARG001
            path = traces[step] + middle_of(case)
            return draw_case(case, Overlay(path[-1], path=path, box_mm=side, colour=colour))

        rungs = [f"{task.settings.step_mm:g} mm steps"]
        return draw_frames(
            steps["level"], followed.values, draw, rungs, _ACTIONS[task.dim], label=curve
        )


def _place(built: Built[Centreline], situations: Situations) -> tuple[AnyCase, str]:
    """Give the case and the name of the curve that situations[0] traces."""
    case, line = built.task.lines_of[int(situations["line"][0])]
    return built.cases.each[case], list(built.cases.curves[case])[line]


def _curves_of(files: CaseFiles, case: AnyCase, source: Source) -> Curves:
    """Read the curves of a case, as its landmarks are given.

    Raises:
        InputDataError: they cannot be read, leave the image, or have no direction.
    """
    if not isinstance(case, PictureCase):
        return checked(curves_in(files, source.curves), case.name, case.volume)
    picture = case.picture
    curves, unit = flat_curves_in(files, source.curves)
    if unit == "voxel":
        curves = {name: picture.from_pixels(points) for name, points in curves.items()}
    elif unit == "world":
        curves = {
            name: np.array([picture.to_plane(p, f"{case.name}: {name}") for p in points])
            for name, points in curves.items()
        }
    for name, points in curves.items():
        if not picture.contains(points).all():
            raise InputDataError(
                "a curve leaves the image",
                field=f"{case.name}: {name}",
                expected="points within the image",
                advice="Check the unit, and the size of the pixels",
            )
    return checked(curves, case.name)


KIND: Final = CentrelineKind()
