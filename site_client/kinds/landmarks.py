"""Landmarks in volumes and pictures, by one agent or by several that search together.

What is found becomes a position in the patient's world (LPS), which is what every file
that is written holds. Files name cases: they stay where they were asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.errors import InputDataError
from common.model import Weights
from common.settings import KINDS, AgentSettings, mixed_labels, reach_mm, team_labels
from site_client.agent.evaluation import Searched
from site_client.agent.import_weights import RlMedicalCube
from site_client.agent.novelty import Familiar
from site_client.agent.search import Followed
from site_client.agent.task import Situations
from site_client.agent.tasks.contrasts import in_random_contrasts
from site_client.agent.tasks.exchange import number_couples
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.landmark2d import Case2D, Landmark2D, build_cases_2d
from site_client.agent.tasks.landmark3d import Landmark3D, build_cases_3d
from site_client.agent.tasks.multi_agent import MultiAgent
from site_client.agent.tasks.triplanar import TriplanarLandmark
from site_client.agent.tasks.views import Views
from site_client.imaging.answers import write_table
from site_client.imaging.case_sets import Cases, Progress, require_all
from site_client.imaging.data_settings import DataSettings
from site_client.imaging.dataset import load_cases
from site_client.imaging.datasets2d import PictureCase
from site_client.imaging.drawing import Overlay, draw_case
from site_client.imaging.films import Colour, draw_frames
from site_client.imaging.labelled import labelled_scans
from site_client.imaging.landmarks import write_landmarks
from site_client.imaging.sources import Source, Wanted, landmark_files, landmarks_in, names_in
from site_client.imaging.structure import structured
from site_client.imaging.trimming import joined
from site_client.kinds.familiarity import with_familiarity
from site_client.kinds.kind import MOST_PICTURES, TaskKind
from site_client.kinds.landmark_absence import (
    measured_absence,
    scores,
    to_learn_from,
    weighed,
)
from site_client.kinds.landmark_errors import Errors, errors_of, rows_of, table_of
from site_client.kinds.landmark_findings import (
    FoundLandmark,
    found_landmarks,
    middles_mm,
    positions_mm,
)
from site_client.kinds.tables import Section, Table, written
from site_client.kinds.values import Answers, Built, Measured, Player

_ACTIONS: Final = {
    2: ("right", "left", "down", "up"),
    3: ("left", "right", "back", "front", "head", "foot"),
}


class LandmarkKind(TaskKind[Any, FoundLandmark]):
    """Points, one head of the network per landmark or team."""

    rival = "A CONSTANT"
    constant = "always answering the mean training position gives"
    over = " over the landmarks,"
    no_prior = "The checkpoint does not know the mean position in its training cases."
    better = "{ratio:.1f} TIMES CLOSER THAN {rival}"
    title = "Positions in LPS mm"
    texts = 2

    def find_files(self, sought: Wanted, data: DataSettings) -> Source:
        """Find images and their landmarks."""
        return landmark_files(sought, data)

    def names(self, source: Source, config: AgentSettings) -> tuple[str, ...]:
        """List the landmarks."""
        of_case = partial(landmarks_in, source=source)
        return config.task.landmarks or names_in(source, of_case, self.known)

    def labelled(self, source: Source) -> Source:
        """Keep the cases that have landmarks."""
        return source.with_landmarks()

    def site_cases(
        self,
        folder: Path,
        config: AgentSettings,
        data: DataSettings,
        progress: Progress,
        *,
        least: int = 1,
    ) -> Cases:
        """Read a site's folder; of volumes with files of their own all faults are told at once."""
        if not _are_plain_scans(config, data):
            cases = super().site_cases(folder, config, data, progress, least=least)
            if config.task.missing == "refuse":
                require_all(cases)
            return cases

        def show(done: int, total: int) -> None:
            progress("reading images", done, total)

        volumes = load_cases(folder, config.task, show, least=least)
        return Cases(config.task.landmarks, volumes=tuple(volumes))

    def site_names(self, config: AgentSettings, folder: Path, data: DataSettings) -> list[str]:
        """Name the cases that have landmarks."""
        if _are_plain_scans(config, data):
            return labelled_scans(folder)
        return super().site_names(config, folder, data)

    def build(self, cases: Cases, config: AgentSettings, *, known: bool = True) -> Built[Any]:  # noqa: ARG002
        """Build a search for landmarks; stand-ins are landmarks like others.

        What is drawn and kept is the cases as they are, whatever the agents see of them.
        """
        settings, pose, reach = config.task, config.pose, reach_mm(config)
        heads = np.arange(len(cases.landmarks))[:, None]
        seen = structured(cases) if settings.shown == "structure" else cases
        may_lack = settings.crops > 0
        if settings.kind == "landmark-3d":
            flat = TriplanarLandmark(
                *(seen.volumes, config.ladder, pose),
                roi=settings.roi,
                spacing_mm=settings.spacing_mm,
                reach_mm=reach,
                may_lack=may_lack,
            )
            return Built.of(flat, cases, cases.landmarks)
        strides = tuple(scale * settings.spacing_mm for scale in config.ladder.scales)
        ladder = Ladder(strides, config.ladder.steps_mm)
        views = Views(settings.roi, settings.zooms, settings.frames)
        finest = min(strides) * min(settings.zooms)
        couples = number_couples(cases.landmarks, settings.interchangeable)
        if settings.kind == "landmark-2d":
            each = (_case_2d(case) for case in seen.pictures)
            pictures = build_cases_2d(each, finest, may_lack=may_lack)
            task = Landmark2D(pictures, ladder, views, pose, couples, reach, may_lack=may_lack)
            return Built.of(task, cases, cases.landmarks)
        volumes = build_cases_3d(seen.volumes, finest)
        if settings.world == "rl-medical":
            cube: Landmark3D = RlMedicalCube(volumes, ladder, views, pose)
        else:
            cube = Landmark3D(
                *(volumes, ladder, views, pose),
                interchangeable=couples,
                reach_mm=reach,
                may_lack=may_lack,
            )
        if settings.kind == "landmark-3d-cube":
            return Built.of(cube, cases, cases.landmarks)
        together = settings.agents_per_landmark
        if settings.team:
            teams = np.array([[cases.landmarks.index(name) for name in settings.team]])
            mixed = mixed_labels(settings.team)
            return Built(MultiAgent(cube, teams.tolist()), cases, mixed, teams)
        if len(heads) * together == 1:
            raise InputDataError(
                "one agent is no team",
                field="task.agents_per_landmark",
                expected="several landmarks, or several agents for one",
                advice="landmark-3d-cube searches alone",
            )
        teams = heads.T if together == 1 else np.repeat(heads, together, axis=1)
        labels = team_labels(cases.landmarks, together)
        return Built(MultiAgent(cube, teams.tolist()), cases, labels, teams)

    def to_learn_from(self, built: Built[Any], config: AgentSettings) -> Any:  # noqa: ANN401
        """Give a search that also looks at copies: cropped, and in random contrasts."""
        cases, settings = built.cases, config.task
        if settings.crops:
            cases = to_learn_from(cases, config)
        if settings.contrasts:
            cases = joined(cases, in_random_contrasts(built.cases, settings.contrasts))
        return built.task if cases is built.cases else self.build(cases, config).task

    def work_out(self, player: Player[Any]) -> Weights:
        """Give what decides whether a landmark is absent, where it may be."""
        if player.network.absence is None:
            return {}
        return weighed(self, player, self.prior(player.built))

    def prior(self, built: Built[Any]) -> NDArray[np.float64]:
        """Average the positions in the cases as acquired, from their middles.

        NaN where no case has the landmark.
        """
        cases = built.cases
        offsets = np.stack([c.landmarks_mm for c in cases.each]) - middles_mm(cases)[:, None]
        counts = np.isfinite(offsets).all(axis=2).sum(axis=0)
        total = np.nansum(offsets, axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = total / counts[:, None]
        mean[counts == 0] = np.nan
        return np.asarray(mean[built.teams])

    def find(self, player: Player[Any], searched: Searched | None = None) -> Answers[FoundLandmark]:
        """Give what searches agree on, by case and landmark."""
        known, outliers = searched is not None, player.config.evaluation.outlier_mads
        searched = searched or self.search(player)
        sure = scores(player, searched)
        landmarks = found_landmarks(player.built, searched, outliers, known=known, absent=sure)
        measured = measured_absence(self, player) if known else None
        if measured is None:
            return Answers(tuple(landmarks))
        return Answers(tuple(landmarks), measured[0], (measured[1],))

    def with_familiarity(
        self, player: Player[Any], answers: Answers[FoundLandmark], familiar: Familiar
    ) -> Answers[FoundLandmark]:
        """Say how familiar the federation is with where landmarks were found."""
        findings = with_familiarity(player.built, answers.findings, familiar)
        few = [f"{f.name}: {f.landmark} ({f.met:.1%})" for f in findings if f.is_novel]
        return replace(answers, findings=findings, warnings=(*answers.warnings, *_few(few)))

    def summary(self, measured: Measured[Any, FoundLandmark]) -> dict[str, object]:
        """Write the errors of each landmark for JSON, the mean last."""
        return {
            name: [row.as_dict() for row in rows_of(errors)]
            for name, errors in _measured_errors(measured).items()
        }

    def tables(self, measured: Measured[Any, FoundLandmark]) -> dict[str, Table]:
        """Lay out the errors of each landmark, the mean last."""
        return {
            name: table_of(rows_of(errors)) for name, errors in _measured_errors(measured).items()
        }

    def headline(self, measured: Measured[Any, FoundLandmark]) -> str:
        """Say what was looked for, and how many of them."""
        return f"{super().headline(measured)}, {len(measured.built.cases.landmarks)} landmarks"

    def numbers(self, measured: Measured[Any, FoundLandmark]) -> list[tuple[str, str, str]]:
        """Choose the errors of all landmarks together."""
        mean = rows_of(_measured_errors(measured)["posed"])[-1]
        prior = written(mean.prior_mm, ".2f")
        return [
            ("mean error", f"{mean.mean_mm:.2f} mm", f"± {mean.std_mm:.2f}, every search"),
            ("median error", f"{mean.median_mm:.2f} mm", "mean of the landmarks’ medians"),
            ("consensus", f"{mean.consensus_mm:.2f} mm", "what the starts agree on"),
            ("constant prior", f"{prior} mm", "never looks"),
            ("over 10 mm", f"{mean.over_10mm:.1%}", f"of {mean.searches:,} searches"),
        ]

    def facts(self, config: AgentSettings) -> list[tuple[str, str]]:
        """Say how large the steps are, and what the agent sees."""
        steps = ", ".join(f"{step:g}" for step in config.ladder.steps_mm)
        said = [("steps", f"{steps} mm, coarse to fine")]
        if config.task.shown != "greys":
            said.append(("shown of an image", config.task.shown))
        return said

    def sections(self, measured: Measured[Any, FoundLandmark], *, pictures: bool) -> list[Section]:
        """Lay out the page: errors, success, and the cases with the largest errors."""
        from site_client.kinds.landmark_page import absence_sections, landmark_sections

        errors = _measured_errors(measured)
        worst = self.worst(measured) if pictures else []
        shown = landmark_sections(self.tables(measured), errors["posed"], worst)
        return [*shown, *absence_sections(measured.answers)]

    def worst(self, measured: Measured[Any, FoundLandmark]) -> list[tuple[Image.Image, str]]:
        """Draw the cases with the largest errors, volumes cut through their worst landmark."""
        by_case: dict[int, list[FoundLandmark]] = {}
        for entry in measured.answers.findings:
            by_case.setdefault(entry.case, []).append(entry)
        ordered = sorted(by_case.items(), key=lambda item: -max(e.error_mm or 0.0 for e in item[1]))
        cases, shown = measured.built.cases, []
        for case, entries in ordered[:MOST_PICTURES]:
            each = cases.each[case]
            top = max(entries, key=lambda entry: entry.error_mm or 0.0)
            # A volume is cut through one landmark; marks of others would float beside the slice.
            marked = entries if len(top.position) == 2 else [top]
            truth = [each.landmarks_mm[cases.landmarks.index(entry.landmark)] for entry in marked]
            positions = [entry.position for entry in marked]
            overlay = Overlay(truth[marked.index(top)], found=positions, truth=truth)
            text = f"{each.name}: largest error {top.error_mm:.1f} mm, {top.landmark}"
            shown.append((draw_case(each, overlay), text))
        return shown

    def row(self, finding: FoundLandmark) -> dict[str, str]:
        """Write a landmark as a row of a table; an error is known of none."""
        x, y, z = (f"{value:.2f}" for value in finding.world_mm)
        spread = f"{finding.spread_mm:.2f}"
        names = {"case": finding.name, "landmark": finding.landmark}
        row = {**names, "x": x, "y": y, "z": z, "spread": spread, "error": "N/A"}
        if finding.met is not None:
            row["met"] = f"{finding.met:.1%}" + (" (few)" if finding.is_novel else "")
        return row if finding.absent is None else {**row, "absent": finding.says_absent}

    def as_dict(self, names: Sequence[str], findings: Sequence[FoundLandmark]) -> dict[str, object]:
        """Write findings for JSON; every case has all of them."""
        return {"found": super().as_dict(names, findings)["found"]}

    def write(
        self,
        folder: Path,
        names: Sequence[str],  # noqa: ARG002 - every case has findings
        findings: Sequence[FoundLandmark],
    ) -> list[Path]:
        """Write one ``.mrk.json`` per case (LPS, for 3D Slicer), and a table of all."""
        folder.mkdir(parents=True, exist_ok=True)
        written: list[Path] = []
        for name in dict.fromkeys(entry.name for entry in findings):
            written.append(folder / f"{name}.mrk.json")
            of_case = [entry for entry in findings if entry.name == name]
            marks = {e.landmark: e.world_mm for e in of_case}
            absent = {e.landmark for e in of_case if e.is_absent}
            write_landmarks(written[-1], marks, absent=absent)
        written.append(folder / "predictions.csv")
        heads = ["case", "landmark", "x_mm", "y_mm", "z_mm", "spread_mm", "error_mm"]
        rows = [[e.name, e.landmark, *e.world_mm, e.spread_mm, e.error_mm] for e in findings]
        if any(entry.absent is not None for entry in findings):
            heads = [*heads, "absent_score"]
            rows = [[*row, e.absent] for row, e in zip(rows, findings, strict=True)]
        if any(entry.met is not None for entry in findings):
            heads = [*heads, "met_share"]
            rows = [[*row, e.met] for row, e in zip(rows, findings, strict=True)]
        write_table(written[-1], heads, rows)
        return written

    def film_name(self, built: Built[Any], start: Situations) -> str:
        """Name the film of a search by its case and its landmarks."""
        case = built.cases.each[int(start["case"][0])]
        return f"{case.name}_{_landmarks_of(built, int(start['head'][0]))}"

    def frames(self, player: Player[Any], followed: Followed) -> list[Image.Image]:
        """Draw slices, the box of what is seen, and the path so far."""
        steps, built, config = followed.steps, player.built, player.config
        case = built.cases.each[int(steps["case"][0])]
        positions = positions_mm(built, steps)
        ladder, spacing = config.ladder, config.task.spacing_mm

        def draw(step: int, level: int, colour: Colour) -> Image.Image:
            overlay = Overlay(
                middle=positions[step, 0],
                found=list(positions[step]),
                path=positions[: step + 1, 0],
                box_mm=ladder.scales[level] * spacing * config.task.roi,
                colour=colour,
            )
            return draw_case(case, overlay)

        rungs = [f"{step:g} mm steps" for step in ladder.steps_mm]
        label = _landmarks_of(built, int(steps["head"][0]))
        actions = _ACTIONS[positions.shape[-1]]
        return draw_frames(
            followed.steps["level"], followed.values, draw, rungs, actions, label=label, end=None
        )


def _few(which: Sequence[str]) -> tuple[str, ...]:
    """Warn of findings where few searches of the federation have been."""
    if not which:
        return ()
    return (
        "The federation has met few situations like these; look at them yourself: "
        + ", ".join(which),
    )


def _measured_errors(measured: Measured[Any, FoundLandmark]) -> dict[str, list[Errors]]:
    """Collect the errors under random poses, and as acquired where that is wanted."""
    report = measured.report
    errors = {"posed": errors_of(measured.built, report.posed_searches)}
    if measured.config.evaluation.native and report.native_searches is not None:
        errors["native"] = errors_of(measured.built, report.native_searches)
    return errors


def _landmarks_of(built: Built[Any], head: int) -> str:
    """Name the landmarks of a head, for a caption or a file's name."""
    names = dict.fromkeys(built.cases.landmarks[k] for k in built.teams[head])
    return "+".join(names) if len(names) <= 3 else f"team{head + 1}"


def _are_plain_scans(config: AgentSettings, data: DataSettings) -> bool:
    """Tell whether a site's folder is one of volumes with landmark files of their own."""
    return KINDS[config.task.kind].dim == 3 and data == DataSettings()


def _case_2d(case: PictureCase) -> Case2D:
    spacing = (case.picture.spacing_mm,) * 2
    return Case2D(case.name, case.picture.channels, spacing, case.landmarks_mm)


KIND: Final = LandmarkKind()
