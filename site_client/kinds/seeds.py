"""Seeds of regions: where to click so that what grows is the label.

Label images stand beside the images, as for boxes; of each label its largest component
counts. What is found is a seed in the patient's world (LPS) and the region that grows from
it. Files name cases: they stay where they were asked for.
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
from site_client.agent.tasks.seeds import SeedCase, SeedSearch
from site_client.imaging.answers import write_table
from site_client.imaging.case_sets import Cases, Progress, read_images
from site_client.imaging.cases import AnyCase, middle_of, raster
from site_client.imaging.datasets2d import PictureCase
from site_client.imaging.drawing import FOUND, TRUTH, Overlay, draw_case
from site_client.imaging.films import Colour, draw_frames
from site_client.imaging.growing import Grower, innermost, write_region
from site_client.imaging.label_images import masks_on
from site_client.imaging.landmarks import write_marks
from site_client.imaging.sources import Source
from site_client.kinds.kind import MOST_PICTURES
from site_client.kinds.label_images import LabelImageKind
from site_client.kinds.values import Answers, Built, Measured, Player

_ACTIONS: Final = {
    2: ("right", "left", "down", "up"),
    3: ("left", "right", "back", "front", "head", "foot"),
}


@dataclass(frozen=True, eq=False)
class FoundSeed:
    """The seed that the searches for a label agree on, and what grows from it.

    Attributes:
        name: the case's.
        label: what should grow.
        seed_mm: float64[d], as the case's landmarks are given.
        world_mm: float64[3], LPS mm.
        region: bool[(z,) y, x] on the working grid.
        size_mm: area (mm²) or volume (mm³) of the region.
        spread_mm: mean distance of the single searches' seeds from it.
        figures: overlap with the label; empty without one.
        case: the image, for whoever writes the region.
    """

    name: str
    label: str
    seed_mm: NDArray[np.float64]
    world_mm: NDArray[np.float64]
    region: NDArray[np.bool_]
    size_mm: float
    spread_mm: float
    figures: Mapping[str, float]
    case: AnyCase

    def as_dict(self) -> dict[str, object]:
        """Write it for JSON."""
        return {
            "case": self.name,
            "label": self.label,
            "seed_lps_mm": np.round(self.world_mm, 4).tolist(),
            "mm2" if self.region.ndim == 2 else "mm3": round(self.size_mm, 3),
            "spread_mm": round(self.spread_mm, 4),
            **{name: round(value, 4) for name, value in self.figures.items()},
        }


class SeedKind(LabelImageKind[SeedSearch, FoundSeed]):
    """Seeds, one head of the network per label."""

    known = "labels"
    figures = ("dice", "inside")
    meaning = (
        "The error is 1 − Dice of the region that grows from the seed with the label’s largest "
        "component; “inside” is the share of seeds that lie in it."
    )
    constant = "the mean innermost point of the training labels gives"
    title = "{count} seeds, mm"
    pictured = "The seeds with the smallest overlap, as acquired, and the label’s innermost point."
    texts = 2

    def cases(
        self,
        source: Source,
        names: Sequence[str],
        config: AgentSettings,
        progress: Progress,
        what: str = "reading images",
    ) -> Cases:
        """Read images and the masks of their labels."""
        bare = read_images(source, source.files, (), config, progress, what)
        each = zip(source.files, bare.each, strict=True)
        masks = tuple(
            masks_on(source.partners[files.name], names, case)
            for files, case in each
            if files.name in source.partners
        )
        return replace(bare, landmarks=tuple(names), masks=masks)

    def build(
        self, cases: Cases, config: AgentSettings, *, known: bool = True
    ) -> Built[SeedSearch]:
        """Build a search for the seeds of each label; unknown ones stand in the middle."""
        names, each = cases.landmarks, []
        for k, case in enumerate(cases.each):
            of = raster(case)
            masks: list[NDArray[np.bool_] | None] = [None] * len(names)
            middle = (np.array(of.pixels.shape[:0:-1]) - 1) // 2
            inner: list[NDArray[np.int64] | None] = [None if known else middle] * len(names)
            if known and cases.masks:
                masks = [cases.masks[k].get(name) for name in names]
                inner = [None if mask is None else innermost(mask) for mask in masks]
            # Several channels grow by their mean, as people are shown them.
            grey = case.picture.pixels if isinstance(case, PictureCase) else case.volume.voxels
            settings = config.growing
            grower = Grower(grey, of.spacing_mm[0], settings.tolerance, settings.smooth_mm)
            each.append(SeedCase(case.name, of, tuple(masks), tuple(inner), grower.region))
        task = SeedSearch(each, config.growing, config.pose, roi=config.task.roi)
        return Built.of(task, cases, names)

    def find(
        self, player: Player[SeedSearch], searched: Searched | None = None
    ) -> Answers[FoundSeed]:
        """Give the seed that the searches for each label agree on, and its region."""
        built, task = player.built, player.built.task
        figures = {} if searched is None else task.report(searched.agreed)
        searched = searched or self.search(player)
        findings: list[FoundSeed] = []
        for k, agreed in enumerate(searched.agreed):
            one, case = searched.agreed[k : k + 1], built.cases.each[int(agreed["case"])]
            place = task.native(one)[0]
            seed, region = place + middle_of(case), task.region(one)
            size = float(region.sum()) * raster(case).spacing_mm[0] ** region.ndim
            world = case.picture.to_world(seed) if isinstance(case, PictureCase) else seed
            apart = np.linalg.norm(task.native(searched.found[k]) - place, axis=1)
            findings.append(
                FoundSeed(
                    name=case.name,
                    label=built.labels[int(agreed["head"])],
                    seed_mm=seed,
                    world_mm=world,
                    region=region,
                    size_mm=size,
                    spread_mm=float(apart.mean()),
                    figures={name: float(value[k]) for name, value in figures.items()},
                    case=case,
                )
            )
        return Answers(tuple(findings))

    def worst(self, measured: Measured[SeedSearch, FoundSeed]) -> list[tuple[Image.Image, str]]:
        """Draw the seeds with the outline of what grew, and the label's innermost points."""
        cases = measured.built.cases
        numbers = {case.name: k for k, case in enumerate(cases.each)}
        findings = sorted(measured.answers.findings, key=lambda each: each.figures["dice"])
        shown: list[tuple[Image.Image, str]] = []
        for each in findings[:MOST_PICTURES]:
            mask = cases.masks[numbers[each.name]][each.label]
            inner = _at(each.case, innermost(mask))
            overlay = Overlay(
                each.seed_mm,
                found=[each.seed_mm],
                truth=[inner],
                regions=((mask, TRUTH), (each.region, FOUND)),
            )
            text = f"{each.name}, {each.label}: Dice {each.figures['dice']:.2f}"
            shown.append((draw_case(each.case, overlay), text))
        return shown

    def row(self, finding: FoundSeed) -> dict[str, str]:
        """Write a seed as a row of a table."""
        return {
            "case": finding.name,
            "label": finding.label,
            "seed": ", ".join(f"{value:.1f}" for value in finding.world_mm),
            "region": f"{finding.size_mm:.0f} mm{finding.region.ndim}",
            "spread": f"{finding.spread_mm:.2f}",
        }

    def write(
        self, folder: Path, names: Sequence[str], findings: Sequence[FoundSeed]
    ) -> list[Path]:
        """Write seeds as JSON, table and markups, and each region as a label image."""
        written = super().write(folder, names, findings)
        written += write_marks(folder, [(e.name, e.label, e.world_mm) for e in findings])
        for each in findings:
            ending = ".mha" if each.region.ndim == 2 else ".nii.gz"
            written.append(folder / f"{each.name}_{each.label}_region{ending}")
            write_region(written[-1], each.region, each.case)
        written.append(folder / "predictions.csv")
        write_table(
            written[-1],
            ["case", "landmark", "x_mm", "y_mm", "z_mm", "spread_mm"],
            ([e.name, e.label, *e.world_mm, e.spread_mm] for e in findings),
        )
        return written

    def frames(self, player: Player[SeedSearch], followed: Followed) -> list[Image.Image]:
        """Draw the seed, its path and what grows from it over the image."""
        task, steps = player.built.task, followed.steps
        case = player.built.cases.each[int(steps["case"][0])]
        places = task.native(steps) + middle_of(case)

        def draw(step: int, level: int, colour: Colour) -> Image.Image:  # noqa: ARG001
            overlay = Overlay(
                places[step],
                found=[places[step]],
                path=places[: step + 1],
                regions=((task.region(steps[step : step + 1]), colour),),
                colour=colour,
            )
            return draw_case(case, overlay)

        rungs = [f"{step:g} mm steps" for step in task.settings.steps_mm]
        label = player.built.labels[int(steps["head"][0])]
        actions = _ACTIONS[task.dim]
        return draw_frames(steps["level"], followed.values, draw, rungs, actions, label=label)


def _at(case: AnyCase, pixel: NDArray[np.int64]) -> NDArray[np.float64]:
    """Place a pixel (x, y, z) of the working grid, as the case's landmarks are given."""
    if isinstance(case, PictureCase):
        return np.asarray(pixel * case.picture.spacing_mm)
    return case.volume.index_to_world(pixel.astype(np.float64))


KIND: Final = SeedKind()
