"""Rigid motions: where points of a fixed image lie in a moving one.

Motions are in millimetres of the patient (LPS; in pictures from the middle of the first
pixel). Files name cases: they stay where they were asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.errors import UsageError
from common.settings import AgentSettings
from site_client.agent.evaluation import Searched
from site_client.agent.search import Followed
from site_client.agent.task import Situations
from site_client.agent.tasks.contrasts import recontrasted
from site_client.agent.tasks.motions import Motion
from site_client.agent.tasks.registration import PairCase, Registration
from site_client.imaging.answers import write_rigid_transform
from site_client.imaging.case_sets import Cases, Progress, read_images, without_truth
from site_client.imaging.cases import AnyCase, around_middle, extent_of, middle_of, raster
from site_client.imaging.data_settings import DataSettings
from site_client.imaging.drawing import as_picture, beside, titled
from site_client.imaging.films import Colour, draw_frames
from site_client.imaging.pyramids import Raster
from site_client.imaging.sources import Source, Wanted, image_pairs
from site_client.kinds.kind import MOST_PICTURES, TaskKind
from site_client.kinds.values import Answers, Built, Measured, Player

_ACTIONS: Final = {
    2: ("x+", "x-", "y+", "y-", "r+", "r-"),
    3: ("x+", "x-", "y+", "y-", "z+", "z-", "rx+", "rx-", "ry+", "ry-", "rz+", "rz-"),
}
# Of views that are drawn: samples along each side, and squares along that of the comparison.
_VIEW, _SQUARES = 190, 6
# Where the spread is measured: so far from the middle along each axis.
_AROUND_MM: Final = 40.0


@dataclass(frozen=True, eq=False)
class FoundMotion:
    """The motion that the searches of a pair agree on.

    Attributes:
        name: the case's (of the fixed image).
        moving: the moving image's, where there are two; "" where one was moved.
        motion: where points of the fixed image lie in the moving one.
        spread_mm: mean distance of where single searches put points of the middle of the image
            from where what they agree on puts them.
        true: the motion that was drawn; None where none was.
        figures: registration error and rotation between the two; empty without one.
    """

    name: str
    moving: str
    motion: Motion
    spread_mm: float
    true: Motion | None
    figures: Mapping[str, float]

    def as_dict(self) -> dict[str, object]:
        """Write it for JSON."""
        return {
            "case": self.name,
            **self.motion.as_dict(),
            "angle_deg": round(self.motion.angle_deg, 4),
            "spread_mm": round(self.spread_mm, 4),
            **({} if self.true is None else {"true": self.true.as_dict()}),
            **{name: round(value, 4) for name, value in self.figures.items()},
        }


class RegistrationKind(TaskKind[Registration, FoundMotion]):
    """The rigid motion between two images, or between an image and itself."""

    figures = ("tre_mm", "rotation_deg")
    meaning = (
        "The error is the distance of translation and rotation from the drawn ones in mm, "
        "a degree weighed by the lever; the target registration error stands beside."
    )
    pictured = (
        "The pairs with the largest errors, the found motion undone. Edges that go on from square "
        "to square are right."
    )
    legend = ()

    def find_files(self, sought: Wanted, data: DataSettings) -> Source:
        """Find fixed and moving images."""
        return image_pairs(sought, data)

    def names(self, source: Source, config: AgentSettings) -> tuple[str, ...]:  # noqa: ARG002
        """List nothing: a motion needs no name."""
        return ()

    def cases(
        self,
        source: Source,
        names: Sequence[str],
        config: AgentSettings,
        progress: Progress,
        what: str = "reading images",
    ) -> Cases:
        """Read fixed images, and moving ones where there are any."""
        fixed = super().cases(source, names, config, progress, what)
        if not source.partners:
            return fixed
        files = [replace(f, image=source.partners[f.name]) for f in source.files]
        moving = read_images(source, files, (), config, progress, "reading moving images")
        return replace(fixed, moving=moving.each)

    def unknown_cases(
        self,
        images: Sequence[Path],
        names: Sequence[str],  # noqa: ARG002 - a motion has none
        config: AgentSettings,
        data: DataSettings,
        progress: Progress,
    ) -> Cases:
        """Read the fixed and the moving image, each from its own path: both may have one name.

        Raises:
            UsageError: another number of images than two.
        """
        refusal = "a registration is of two images"
        if len(images) != 2:
            raise UsageError(refusal, expected="FIXED MOVING", got=f"{len(images)} paths")
        sources = [self.find_files(Wanted((path,), need_truth=False), data) for path in images]
        each = [without_truth(source, (), config, progress) for source in sources]
        count = sum(len(cases) for cases in each)
        if count != 2:
            raise UsageError(refusal, expected="FIXED MOVING", got=f"{count} images")
        return replace(each[0], moving=each[1].each)

    def build(
        self, cases: Cases, config: AgentSettings, *, known: bool = True
    ) -> Built[Registration]:
        """Build a registration of each case with its moving image, or with itself.

        Where nothing is known, a search begins where ``registration.start`` says.
        """
        each: list[PairCase] = []
        for k, case in enumerate(cases.each):
            fixed = raster(case)
            if cases.moving:
                other = cases.moving[k]
                moving = raster(other)
                begin = middle_of(other) if known else _start_of(case, other, config)
                offset = begin - middle_of(case)
            else:
                pixels = recontrasted(fixed.pixels) if config.task.recontrast else fixed.pixels
                moving = Raster(pixels, fixed.spacing_mm, fixed.direction)
                offset = np.zeros(len(fixed.spacing_mm))
            each.append(PairCase(case.name, fixed, moving, offset, around_middle(case)))
        task = Registration(each, config.registration, config.pose, roi=config.task.roi)
        return Built.of(task, cases, ("motion",))

    def prior(self, built: Built[Registration]) -> NDArray[np.float64]:
        """Answer that nothing has moved; its error is that before the images are registered."""
        return np.zeros((1, 1, built.task.size))

    def starts(self, built: Built[Registration], repeats: int) -> Situations:
        """Draw starts; nothing was displaced: what is found is the motion between the files."""
        situations = super().starts(built, repeats)
        situations["truth"] = 0
        return situations

    def find(
        self, player: Player[Registration], searched: Searched | None = None
    ) -> Answers[FoundMotion]:
        """Give the motion of each pair."""
        known, cases, config = searched is not None, player.built.cases, player.config
        figures = {} if searched is None else player.built.task.report(searched.agreed)
        searched = searched or self.search(player)
        motions: list[FoundMotion] = []
        for k, agreed in enumerate(searched.agreed):
            number = int(agreed["case"])
            case, moving = cases.each[number], ""
            shift: NDArray[np.float64] | float = 0.0
            if not known:
                other = cases.moving[number]
                moving = other.name
                shift = middle_of(other) - _start_of(case, other, config)
            middle = middle_of(case)
            motion = Motion.found(agreed["motion"], middle, shift)
            axes = np.eye(len(motion.centre_mm))
            points = motion.centre_mm + _AROUND_MM * np.concatenate([axes, -axes])
            ends = searched.found[k]["motion"]
            places = [Motion.found(one, middle, shift).of(points) for one in ends]
            gap = np.linalg.norm(np.stack(places) - motion.of(points), axis=2)
            motions.append(
                FoundMotion(
                    name=case.name,
                    moving=moving,
                    motion=motion,
                    spread_mm=float(gap.mean()),
                    true=Motion.found(agreed["truth"], middle) if known else None,
                    figures={name: float(value[k]) for name, value in figures.items()},
                )
            )
        return Answers(tuple(motions))

    def worst(self, measured: Measured[Registration, FoundMotion]) -> list[tuple[Image.Image, str]]:
        """Draw both images as what was found lays them on each other."""
        searched = measured.report.native_searches
        if searched is None:
            return []
        task, cases = measured.built.task, measured.built.cases.each
        named = list(enumerate(measured.answers.findings))
        shown: list[tuple[Image.Image, str]] = []
        for k, each in sorted(named, key=lambda it: -it[1].figures["tre_mm"])[:MOST_PICTURES]:
            agreed = searched.agreed[k : k + 1]
            stride = np.array([extent_of(cases[int(agreed["case"][0])]) / _VIEW])
            told = f"{each.name}: target registration error {each.figures['tre_mm']:.1f} mm"
            shown.append((_laid_over(task, task.look(agreed, stride, _VIEW)[0]), told))
        return shown

    def row(self, finding: FoundMotion) -> dict[str, str]:
        """Write a motion as a row of a table."""
        return {
            "fixed": finding.name,
            "moving": finding.moving,
            "translation": ", ".join(f"{value:.1f}" for value in finding.motion.translation_mm),
            "turn (deg)": f"{finding.motion.angle_deg:.2f}",
            "spread (mm)": f"{finding.spread_mm:.2f}",
        }

    def write(
        self, folder: Path, names: Sequence[str], findings: Sequence[FoundMotion]
    ) -> list[Path]:
        """Write motions as JSON, and those of two images as ``.tfm``, which ITK opens."""
        written = super().write(folder, names, findings)
        for each in findings:
            if each.moving:
                written.append(folder / f"{each.name}_{each.moving}.tfm")
                motion = each.motion
                write_rigid_transform(
                    written[-1], motion.rotation, motion.translation_mm, motion.centre_mm
                )
        return written

    def film_name(self, built: Built[Registration], start: Situations) -> str:
        """Name the film of a pair by both images."""
        case = int(start["case"][0])
        return f"{built.cases.each[case].name}_{built.cases.moving[case].name}"

    def frames(self, player: Player[Registration], followed: Followed) -> list[Image.Image]:
        """Draw both images as the guess lays them on each other."""
        case = player.built.cases.each[int(followed.steps["case"][0])]
        return motion_frames(player.built.task, case, followed)


def motion_frames(task: Registration, case: AnyCase, followed: Followed) -> list[Image.Image]:
    """Draw the fixed image, the moving one with the guess undone, and both in squares.

    Edges that go on from square to square are right.
    """
    strides = np.full(len(followed.steps), extent_of(case) / _VIEW)
    views = task.look(followed.steps, strides, _VIEW)

    def draw(step: int, level: int, colour: Colour) -> Image.Image:  # noqa: ARG001
        return _laid_over(task, views[step])

    settings = task.settings
    rungs = [
        f"{move:g} mm or {turn:g} deg a step"
        for move, turn in zip(settings.translations_mm, settings.rotations_deg, strict=True)
    ]
    return draw_frames(followed.steps["level"], followed.values, draw, rungs, _ACTIONS[task.dim])


def _laid_over(task: Registration, views: NDArray[np.uint8]) -> Image.Image:
    """Draw what a guess shows: views uint8[n, y, x], half of the fixed image, half of the other."""
    half = len(views) // 2
    side = np.arange(_VIEW) * _SQUARES // _VIEW
    squares = (side[:, None] + side) % 2 == 0
    fixed, moving = views[:half], views[half:]
    both = np.where(squares, fixed, moving)
    rows = [
        _row(each, title, upright=task.dim == 3)
        for each, title in ((fixed, "fixed"), (moving, "moving, undone"), (both, "both"))
    ]
    if half == 1:
        return beside([row[0] for row in rows])
    return beside([beside(row) for row in rows], below=True)


def _row(views: NDArray[np.uint8], title: str, *, upright: bool) -> list[Image.Image]:
    """Make pictures of views, the first with a title; cuts that hold the body's axis head up."""
    shown = [view[::-1] if upright and k < 2 else view for k, view in enumerate(views)]
    return [titled(as_picture(view), title if k == 0 else "") for k, view in enumerate(shown)]


def _start_of(fixed: AnyCase, moving: AnyCase, config: AgentSettings) -> NDArray[np.float64]:
    """Say where the middle of the moving image is taken to be, in the fixed one's coordinates."""
    return middle_of(fixed if config.registration.start == "middle" else moving)


KIND: Final = RegistrationKind()
