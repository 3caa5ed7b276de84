"""Films of searches for boxes, planes and motions: what is seen and moved, step by step.

A box is drawn over its image; a plane as the cut it makes and as the lines in which it
crosses three slices; of a motion the fixed image, the moving one as it lies once the
guess is undone, and both in squares: edges that go on from square to square are right.
Nothing is known of a truth here. These pictures show a patient's image: they are
written where a person asked for them, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from site_client.agent.networks import QNetwork
from site_client.agent.search import Values, action_values, greedy_search
from site_client.agent.settings import EvaluationSettings
from site_client.agent.task import Situations, Task
from site_client.agent.tasks.box import BoxSearch
from site_client.agent.tasks.plane import PlaneSearch
from site_client.agent.tasks.registration import Registration
from site_client.agent_app.cases import AnyCase, Cases
from site_client.agent_app.films import LEVEL_COLOURS, MOST_FRAMES
from site_client.agent_app.pictures import (
    FOUND,
    Overlay,
    as_picture,
    beside,
    caption,
    draw_case,
    titled,
)
from site_client.agent_app.searches import middle_of, plane_in_world
from site_client.imaging.dataset import Case

_BOX_ACTIONS: Final = {
    2: ("x+", "x-", "y+", "y-", "w+", "w-", "h+", "h-", "stop"),
    3: ("x+", "x-", "y+", "y-", "z+", "z-", "w+", "w-", "d+", "d-", "h+", "h-", "stop"),
}
_PLANE_ACTIONS: Final = ("turn+", "turn-", "tilt+", "tilt-", "off+", "off-")
_MOTION_ACTIONS: Final = {
    2: ("x+", "x-", "y+", "y-", "r+", "r-"),
    3: ("x+", "x-", "y+", "y-", "z+", "z-", "rx+", "rx-", "ry+", "ry-", "rz+", "rz-"),
}
# Of views: samples along each side, and squares along each side of the comparison.
_VIEW, _SQUARES = 190, 6


@dataclass(frozen=True, eq=False)
class Followed:
    """One search, step by step.

    Attributes:
        steps: situations[t], the last is where it ended.
        values: float32[t, actions], what each action promised.
    """

    steps: Situations
    values: NDArray[np.float32]


def follow(
    task: Task, policy: nn.Module | Values, start: Situations, settings: EvaluationSettings
) -> Followed:
    """Follow the search that begins at one situation, to its end."""
    visited: list[Situations] = [start.copy()]
    ended = greedy_search(task, policy, start, settings, visited)
    steps: Situations = np.concatenate([*visited, ended])
    return Followed(steps, action_values(task, policy, steps))


def best_start(
    task: BoxSearch, network: QNetwork, starts: Situations, settings: EvaluationSettings
) -> Situations:
    """Of starts all over an image, the one whose search ends where a trigger promises most."""
    ended = greedy_search(task, network, starts, settings)
    ended["level"] = task.levels - 1
    score = action_values(task, network, ended)[:, task.trigger]
    best = int(score.argmax())
    return starts[best : best + 1]


def box_frames(task: BoxSearch, case: AnyCase, followed: Followed) -> list[Image.Image]:
    """The box over its image; in volumes over the slices through its middle."""
    corners = task.native_boxes(followed.steps) + middle_of(case)
    actions = _BOX_ACTIONS[task.dim]
    last = len(followed.steps) - 1
    pictures: list[Image.Image] = []
    for step in _chosen(followed):
        level = int(followed.steps["level"][step])
        overlay = Overlay(
            middle=corners[step].mean(axis=0),
            boxes=[corners[step]],
            colour=FOUND if step == last else _colour(level),
        )
        rung = f"{task.settings.steps[level]:g} of its size a step"
        line = _line(step, last, level, task.levels, rung)
        pictures.append(_captioned(draw_case(case, overlay), line, actions, followed, step))
    return pictures


def plane_frames(task: PlaneSearch, case: Case, followed: Followed) -> list[Image.Image]:
    """The cut in the plane, and where it crosses the slices through its nearest point."""
    stride = _stride_mm(case)
    strides = np.full(len(followed.steps), stride)
    cuts = task.look(followed.steps, strides, _VIEW)[:, 1]
    if abs(task.settings.normal[2]) < max(np.abs(task.settings.normal)):
        # The rows of an upright plane run towards the head.
        cuts = cuts[:, ::-1]
    last = len(followed.steps) - 1
    pictures: list[Image.Image] = []
    for step in _chosen(followed):
        at = followed.steps[step : step + 1]
        level = int(at["level"][0])
        plane = plane_in_world(task, at, case)
        colour = FOUND if step == last else _colour(level)
        slices = draw_case(case, Overlay(plane[0], plane=plane, colour=colour), _VIEW)
        cut = titled(as_picture(cuts[step]), "in the plane")
        s = task.settings
        rung = f"{s.angles_deg[level]:g} deg or {s.offsets_mm[level]:g} mm a step"
        line = _line(step, last, level, task.levels, rung)
        picture = beside([cut, slices])
        pictures.append(_captioned(picture, line, _PLANE_ACTIONS, followed, step))
    return pictures


def motion_frames(task: Registration, case: AnyCase, followed: Followed) -> list[Image.Image]:
    """The fixed image, the moving one with the guess undone, and both in squares."""
    strides = np.full(len(followed.steps), _stride_mm(case))
    views = task.look(followed.steps, strides, _VIEW)
    half = views.shape[1] // 2
    last = len(followed.steps) - 1
    pictures: list[Image.Image] = []
    for step in _chosen(followed):
        level = int(followed.steps["level"][step])
        fixed, moving = views[step, :half], views[step, half:]
        both = np.where(_squares(), fixed, moving)
        s = task.settings
        rows = [
            _row(each, title, upright=task.dim == 3)
            for each, title in ((fixed, "fixed"), (moving, "moving, undone"), (both, "both"))
        ]
        picture = (
            beside([row[0] for row in rows])
            if half == 1
            else beside([beside(row) for row in rows], below=True)
        )
        rung = f"{s.translations_mm[level]:g} mm or {s.rotations_deg[level]:g} deg a step"
        line = _line(step, last, level, task.levels, rung)
        actions = _MOTION_ACTIONS[task.dim]
        pictures.append(_captioned(picture, line, actions, followed, step))
    return pictures


def films_of(
    task: Task,
    network: QNetwork,
    cases: Cases,
    labels: Sequence[str],
    starts: Sequence[Situations],
    settings: EvaluationSettings,
) -> Iterator[tuple[str, list[Image.Image]]]:
    """A film of each start: ``<case>_<label>`` and its pictures, one at a time.

    Args:
        task: over the cases.
        network: what searches.
        cases: the images.
        labels: of the heads.
        starts: single situations as acquired.
        settings: of the search.
    """
    for start in starts:
        case = cases.each[int(start["case"][0])]
        followed = follow(task, network, start, settings)
        if isinstance(task, BoxSearch):
            pictures = box_frames(task, case, followed)
        elif isinstance(task, PlaneSearch) and isinstance(case, Case):
            pictures = plane_frames(task, case, followed)
        elif isinstance(task, Registration):
            pictures = motion_frames(task, case, followed)
        else:
            continue
        yield f"{case.name}_{labels[int(start['head'][0])]}", pictures


def _chosen(followed: Followed) -> NDArray[np.int64]:
    """int64[k]: steps that are shown; the first and the last are."""
    last = len(followed.steps) - 1
    return np.unique(np.linspace(0, last, MOST_FRAMES).astype(np.int64))


def _colour(level: int) -> tuple[int, int, int]:
    return LEVEL_COLOURS[level % len(LEVEL_COLOURS)]


def _line(step: int, last: int, level: int, levels: int, rung: str) -> str:
    return f"step {step} of {last}   level {level + 1} of {levels}: {rung}"


def _captioned(
    picture: Image.Image, line: str, actions: Sequence[str], followed: Followed, step: int
) -> Image.Image:
    return caption(picture, line, actions, [float(value) for value in followed.values[step]])


def _stride_mm(case: AnyCase) -> float:
    """A stride at which a view shows all of an image."""
    if isinstance(case, Case):
        return float(case.volume.size.max() * case.volume.spacing_mm / _VIEW)
    return float(case.picture.extent_mm.max() / _VIEW)


def _squares() -> NDArray[np.bool_]:
    """bool[view, view]: every other square."""
    side = np.arange(_VIEW) * _SQUARES // _VIEW
    return np.asarray((side[:, None] + side) % 2 == 0)


def _row(views: NDArray[np.uint8], title: str, *, upright: bool) -> list[Image.Image]:
    """Views as pictures, the first with a title; cuts that hold the patient's axis head up."""
    shown = [view[::-1] if upright and k < 2 else view for k, view in enumerate(views)]
    return [titled(as_picture(view), title if k == 0 else "") for k, view in enumerate(shown)]
