"""Landmarks followed through the frames of sequences.

Every frame is a file, and the frames of a sequence, in the order of their names, are those
of one subject (``data.subject`` says how a name tells it). Landmarks stand beside the
frames as for landmark-2d; of a sequence that is played only the first frame needs them.
Files name cases: they stay where they were asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.errors import InputDataError
from common.settings import AgentSettings, reach_mm
from site_client.agent.evaluation import Searched
from site_client.agent.search import Followed
from site_client.agent.task import Situations
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.landmark2d import Case2D, build_cases_2d
from site_client.agent.tasks.tracking import Tracking
from site_client.agent.tasks.views import Views
from site_client.imaging.answers import write_table
from site_client.imaging.case_sets import Cases, Progress, read_images
from site_client.imaging.data_settings import DataSettings
from site_client.imaging.drawing import FOUND, Overlay, draw_case
from site_client.imaging.films import Colour, draw_frames
from site_client.imaging.landmarks import write_marks
from site_client.imaging.listfiles import CaseFiles
from site_client.imaging.sources import Source, Wanted, landmark_files, landmarks_in, names_in
from site_client.kinds.kind import MOST_PICTURES, TaskKind
from site_client.kinds.values import Answers, Built, Measured, Player

_ACTIONS: Final = ("right", "left", "down", "up")


@dataclass(frozen=True, eq=False)
class FoundInFrame:
    """The place of a landmark in one frame.

    Attributes:
        name: the frame's.
        sequence: whose frame it is.
        landmark: its name.
        place_mm: float64[2], mm from the middle of the first pixel.
        world_mm: float64[3], LPS mm.
        way_mm: how far it lies from where it was in the first frame.
        spread_mm: mean distance of the single searches from it.
        figures: its error; empty without a truth.
    """

    name: str
    sequence: str
    landmark: str
    place_mm: NDArray[np.float64]
    world_mm: NDArray[np.float64]
    way_mm: float
    spread_mm: float
    figures: Mapping[str, float]

    def as_dict(self) -> dict[str, object]:
        """Write it for JSON."""
        return {
            "case": self.name,
            "sequence": self.sequence,
            "landmark": self.landmark,
            "place_lps_mm": np.round(self.world_mm, 4).tolist(),
            "way_mm": round(self.way_mm, 4),
            "spread_mm": round(self.spread_mm, 4),
            **{name: round(value, 4) for name, value in self.figures.items()},
        }


class TrackingKind(TaskKind[Tracking, FoundInFrame]):
    """Landmarks in sequences, one head of the network per landmark."""

    figures = ("native_error_mm", "moved_mm")
    meaning = (
        "Every frame is searched from the answer in the one before, the first from its "
        "landmarks, so that errors add up along a sequence; “moved” is how far the landmarks are "
        "from where they were in the first frame."
    )
    constant = "the mean way of the training landmarks from their first frames gives"
    title = "{count} followed, mm"
    texts = 3
    pictured = "The frames with the largest errors, as acquired."

    def find_files(self, sought: Wanted, data: DataSettings) -> Source:
        """Find frames and their landmarks."""
        return landmark_files(sought, data)

    def labelled(self, source: Source) -> Source:
        """Keep the frames that have landmarks."""
        return source.with_landmarks()

    def names(self, source: Source, config: AgentSettings) -> tuple[str, ...]:
        """List the landmarks."""
        of_case = partial(landmarks_in, source=source)
        return config.task.landmarks or names_in(source, of_case, self.known)

    def cases(
        self,
        source: Source,
        names: Sequence[str],
        config: AgentSettings,
        progress: Progress,
        what: str = "reading images",
    ) -> Cases:
        """Read frames and their landmarks, in the order of their names."""
        ordered = replace(source, files=tuple(sorted(source.files, key=_order)))
        return super().cases(ordered, names, config, progress, what)

    def unknown_cases(
        self,
        images: Sequence[Path],
        names: Sequence[str],
        config: AgentSettings,
        data: DataSettings,
        progress: Progress,
    ) -> Cases:
        """Read frames, with the landmarks of the first of each sequence.

        Raises:
            InputDataError: a first frame without landmarks.
        """
        source = self.find_files(Wanted(tuple(images), need_truth=False), data)
        ordered = sorted(source.files, key=_order)
        firsts = {f.subject: f for f in reversed(ordered)}
        without = [f.name for f in firsts.values() if not landmarks_in(f, source)]
        if without:
            raise InputDataError(
                "nothing says what to follow",
                field=", ".join(sorted(without)),
                expected="landmarks beside the first frame of every sequence",
                got="none",
                advice="data.subject says which frames are one sequence; without it each is one",
            )
        marked = read_images(source, list(firsts.values()), names, config, progress)
        marks = {c.subject: c.landmarks_mm for c in marked.pictures}
        bare = read_images(source, ordered, (), config, progress)
        # What stands in for a truth in later frames is where it was in the first.
        each = tuple(replace(c, landmarks_mm=marks[c.subject]) for c in bare.pictures)
        return replace(bare, landmarks=tuple(names), pictures=each)

    def build(
        self,
        cases: Cases,
        config: AgentSettings,
        *,
        known: bool = True,  # noqa: ARG002 - stand-ins are landmarks like others
    ) -> Built[Tracking]:
        """Build the following of each landmark."""
        settings = config.task
        strides = tuple(scale * settings.spacing_mm for scale in config.ladder.scales)
        pictures = build_cases_2d(
            (
                Case2D(c.name, c.picture.channels, (c.picture.spacing_mm,) * 2, c.landmarks_mm)
                for c in cases.pictures
            ),
            min(strides) * min(settings.zooms),
        )
        sequences = [case.subject for case in cases.pictures]
        ladder, views = Ladder(strides, config.ladder.steps_mm), Views(settings.roi, settings.zooms)
        task = Tracking(pictures, sequences, ladder, views, config.pose, reach_mm(config))
        return Built.of(task, cases, cases.landmarks)

    def find(
        self, player: Player[Tracking], searched: Searched | None = None
    ) -> Answers[FoundInFrame]:
        """Give the place of each landmark in every frame but the first."""
        built, task = player.built, player.built.task
        figures = {} if searched is None else task.report(searched.agreed)
        searched = searched or self.search(player)
        places, ways = task.positions_mm(searched.agreed), task.parameters(searched.agreed)
        findings: list[FoundInFrame] = []
        for k, agreed in enumerate(searched.agreed):
            case = built.cases.pictures[int(agreed["case"])]
            gaps = task.positions_mm(searched.found[k]) - places[k]
            findings.append(
                FoundInFrame(
                    name=case.name,
                    sequence=case.subject,
                    landmark=built.labels[int(agreed["head"])],
                    place_mm=places[k],
                    world_mm=case.picture.to_world(places[k]),
                    way_mm=float(np.linalg.norm(ways[k])),
                    spread_mm=float(np.linalg.norm(gaps, axis=1).mean()),
                    figures={name: float(value[k]) for name, value in figures.items()},
                )
            )
        return Answers(tuple(findings))

    def worst(self, measured: Measured[Tracking, FoundInFrame]) -> list[tuple[Image.Image, str]]:
        """Draw found and true places."""
        cases = measured.built.cases
        numbers = {case.name: case for case in cases.pictures}
        findings = sorted(
            measured.answers.findings, key=lambda each: -each.figures["native_error_mm"]
        )
        shown: list[tuple[Image.Image, str]] = []
        for each in findings[:MOST_PICTURES]:
            case = numbers[each.name]
            truth = case.landmarks_mm[cases.landmarks.index(each.landmark)]
            overlay = Overlay(truth, found=[each.place_mm], truth=[truth], colour=FOUND)
            error, moved = (each.figures[name] for name in self.figures)
            text = f"{each.name}: {error:.1f} mm, moved {moved:.1f} mm, {each.landmark}"
            shown.append((draw_case(case, overlay), text))
        return shown

    def row(self, finding: FoundInFrame) -> dict[str, str]:
        """Write a place as a row of a table."""
        return {
            "frame": finding.name,
            "sequence": finding.sequence,
            "landmark": finding.landmark,
            "place": ", ".join(f"{value:.2f}" for value in finding.place_mm),
            "way": f"{finding.way_mm:.2f}",
            "spread": f"{finding.spread_mm:.2f}",
        }

    def write(
        self, folder: Path, names: Sequence[str], findings: Sequence[FoundInFrame]
    ) -> list[Path]:
        """Write places as JSON, one ``.mrk.json`` per frame, and a table of all."""
        written = super().write(folder, names, findings)
        written += write_marks(folder, [(e.name, e.landmark, e.world_mm) for e in findings])
        written.append(folder / "predictions.csv")
        write_table(
            written[-1],
            ["case", "landmark", "x_mm", "y_mm", "z_mm", "way_mm", "spread_mm"],
            ([e.name, e.landmark, *e.world_mm, e.way_mm, e.spread_mm] for e in findings),
        )
        return written

    def film_starts(self, player: Player[Tracking]) -> list[Situations]:
        """Begin the search of each frame where the frame before was found."""
        task, start = player.built.task, self.starts(player.built, 1)
        agreed = self.search(player).agreed
        # Starts and answers are of one draw of the same seed, but for how often each is drawn.
        agreed["track"] = start["track"]
        handed = task.hand_over(start.reshape(-1, 1), agreed)
        return [handed[k] for k in range(len(handed))]

    def frames(self, player: Player[Tracking], followed: Followed) -> list[Image.Image]:
        """Draw the search over its frame."""
        built, task, config = player.built, player.built.task, player.config
        steps = followed.steps
        case = built.cases.pictures[int(steps["case"][0])]
        places = task.positions_mm(steps)

        def draw(step: int, level: int, colour: Colour) -> Image.Image:
            overlay = Overlay(
                places[step],
                found=[places[step]],
                path=places[: step + 1],
                box_mm=config.ladder.scales[level] * config.task.spacing_mm * config.task.roi,
                colour=colour,
            )
            return draw_case(case, overlay)

        rungs = [f"{step:g} mm steps" for step in config.ladder.steps_mm]
        label = built.labels[int(steps["head"][0])]
        return draw_frames(steps["level"], followed.values, draw, rungs, _ACTIONS, label=label)


def _order(files: CaseFiles) -> tuple[str, str]:
    return files.subject, files.name


KIND: Final = TrackingKind()
