"""Large images read by glimpses: where something lies, and how little was read to find it.

Label images stand beside the images, as for boxes. What is found is a place in the
patient's world (LPS). Files name cases: they stay where they were asked for.
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
from site_client.agent.search import Followed, action_values
from site_client.agent.tasks.glimpses import GlimpseCase, GlimpseSearch
from site_client.imaging.answers import write_table
from site_client.imaging.case_sets import Cases, Progress, read_images
from site_client.imaging.cases import middle_of, raster
from site_client.imaging.drawing import FOUND, TRUTH, Overlay, draw_case
from site_client.imaging.films import Colour, draw_frames
from site_client.imaging.growing import distances_from, innermost
from site_client.imaging.label_images import masks_on
from site_client.imaging.landmarks import write_marks
from site_client.imaging.sources import Source
from site_client.kinds.kind import MOST_PICTURES
from site_client.kinds.label_images import LabelImageKind
from site_client.kinds.values import Answers, Built, Measured, Player

_ACTIONS: Final = ("right", "left", "down", "up", "closer", "wider", "here")


@dataclass(frozen=True, eq=False)
class FoundPlace:
    """The place that the searches for a label agree on.

    Attributes:
        name: the case's.
        label: what should lie there.
        place_mm: float64[2], mm from the middle of the first pixel.
        world_mm: float64[3], LPS mm.
        score: what the network thinks that declaring there is worth, -1 to 1.
        glimpses: mean of the single searches.
        read_percent: pixels that a search was shown, in percent of all.
        figures: whether it is right; empty without a truth.
    """

    name: str
    label: str
    place_mm: NDArray[np.float64]
    world_mm: NDArray[np.float64]
    score: float
    glimpses: float
    read_percent: float
    figures: Mapping[str, float]

    def as_dict(self) -> dict[str, object]:
        """Write it for JSON."""
        return {
            "case": self.name,
            "label": self.label,
            "place_lps_mm": np.round(self.world_mm, 4).tolist(),
            "score": round(self.score, 4),
            "glimpses": round(self.glimpses, 2),
            "read_percent": round(self.read_percent, 4),
            **{name: round(value, 4) for name, value in self.figures.items()},
        }


class GlimpseKind(LabelImageKind[GlimpseSearch, FoundPlace]):
    """Places in large images, one head of the network per label."""

    known = "labels"
    figures = ("hit", "glimpses", "read_percent")
    meaning = (
        "The error is the distance of the declared place from the label; “read” are the pixels "
        "that a search was shown, in percent of those of the whole image at the finest "
        "magnification."
    )
    constant = "the mean innermost point of the training labels gives"
    title = "{count} places, mm"
    pictured = "The places furthest from their labels, as acquired."
    texts = 2

    def cases(
        self,
        source: Source,
        names: Sequence[str],
        config: AgentSettings,
        progress: Progress,
        what: str = "reading images",
    ) -> Cases:
        """Read images and the masks of their labels, all components of them."""
        bare = read_images(source, source.files, (), config, progress, what)
        each = zip(source.files, bare.pictures, strict=True)
        masks = tuple(
            masks_on(source.partners[files.name], names, case, whole=True)
            for files, case in each
            if files.name in source.partners
        )
        return replace(bare, landmarks=tuple(names), masks=masks)

    def build(
        self, cases: Cases, config: AgentSettings, *, known: bool = True
    ) -> Built[GlimpseSearch]:
        """Build a search for each label; unknown ones stand in the middle."""
        names, each = cases.landmarks, []
        for k, case in enumerate(cases.pictures):
            of = raster(case)
            away: list[NDArray[np.float32] | None] = [None] * len(names)
            middle = (np.array(of.pixels.shape[:0:-1]) - 1) // 2
            inner: list[NDArray[np.int64] | None] = [None if known else middle] * len(names)
            if known and cases.masks:
                masks = [cases.masks[k].get(name) for name in names]
                inner = [None if mask is None else innermost(mask) for mask in masks]
                spacing = case.picture.spacing_mm
                away = [None if mask is None else distances_from(mask, spacing) for mask in masks]
            each.append(GlimpseCase(case.name, of, tuple(away), tuple(inner)))
        task = GlimpseSearch(
            each,
            config.glimpse,
            config.pose,
            roi=config.task.roi,
            spacing_mm=config.task.spacing_mm,
        )
        return Built.of(task, cases, names)

    def find(
        self, player: Player[GlimpseSearch], searched: Searched | None = None
    ) -> Answers[FoundPlace]:
        """Give the place that the searches for each label agree on."""
        built, task = player.built, player.built.task
        has_truth = searched is not None
        searched = searched or self.search(player)
        hits = task.report(searched.agreed)["hit"]
        worth = action_values(task, player.network, searched.agreed)[:, task.declare]
        findings: list[FoundPlace] = []
        for k, agreed in enumerate(searched.agreed):
            case = built.cases.pictures[int(agreed["case"])]
            place = task.native(searched.agreed[k : k + 1])[0] + middle_of(case)
            singles = task.report(searched.found[k])
            findings.append(
                FoundPlace(
                    name=case.name,
                    label=built.labels[int(agreed["head"])],
                    place_mm=place,
                    world_mm=case.picture.to_world(place),
                    score=float(worth[k]),
                    glimpses=float(singles["glimpses"].mean()),
                    read_percent=float(singles["read_percent"].mean()),
                    figures={"hit": float(hits[k])} if has_truth else {},
                )
            )
        return Answers(tuple(findings))

    def worst(self, measured: Measured[GlimpseSearch, FoundPlace]) -> list[tuple[Image.Image, str]]:
        """Draw the places with the outlines of their labels."""
        cases = measured.built.cases
        numbers = {case.name: k for k, case in enumerate(cases.pictures)}
        findings = sorted(measured.answers.findings, key=lambda each: each.figures["hit"])
        shown: list[tuple[Image.Image, str]] = []
        for each in findings[:MOST_PICTURES]:
            k = numbers[each.name]
            regions = ((cases.masks[k][each.label], TRUTH),)
            overlay = Overlay(each.place_mm, found=[each.place_mm], regions=regions, colour=FOUND)
            text = (
                f"{each.name}, {each.label}: {'right' if each.figures['hit'] else 'wrong'}, "
                f"{each.glimpses:.0f} glimpses, {each.read_percent:.1f} % read"
            )
            shown.append((draw_case(cases.pictures[k], overlay), text))
        return shown

    def row(self, finding: FoundPlace) -> dict[str, str]:
        """Write a place as a row of a table."""
        return {
            "case": finding.name,
            "label": finding.label,
            "place": ", ".join(f"{value:.2f}" for value in finding.place_mm),
            "score": f"{finding.score:.2f}",
            "glimpses": f"{finding.glimpses:.0f}",
            "read": f"{finding.read_percent:.2f} %",
        }

    def write(
        self, folder: Path, names: Sequence[str], findings: Sequence[FoundPlace]
    ) -> list[Path]:
        """Write places as JSON, table and markups."""
        written = super().write(folder, names, findings)
        written += write_marks(folder, [(e.name, e.label, e.world_mm) for e in findings])
        written.append(folder / "predictions.csv")
        write_table(
            written[-1],
            ["case", "landmark", "x_mm", "y_mm", "z_mm", "score", "glimpses", "read_percent"],
            ([e.name, e.label, *e.world_mm, e.score, e.glimpses, e.read_percent] for e in findings),
        )
        return written

    def frames(self, player: Player[GlimpseSearch], followed: Followed) -> list[Image.Image]:
        """Draw what is seen as a square, and the way so far, over the image."""
        task, steps = player.built.task, followed.steps
        case = player.built.cases.pictures[int(steps["case"][0])]
        places = task.native(steps) + middle_of(case)
        strides = task.ladder.strides_mm

        def draw(step: int, level: int, colour: Colour) -> Image.Image:
            side = strides[level] * task.views.roi
            path = places[: step + 1]
            return draw_case(case, Overlay(path[-1], path=path, box_mm=side, colour=colour))

        rungs = [f"{stride:g} mm a sample" for stride in strides]
        label = player.built.labels[int(steps["head"][0])]
        return draw_frames(steps["level"], followed.values, draw, rungs, _ACTIONS, label=label)


KIND: Final = GlimpseKind()
