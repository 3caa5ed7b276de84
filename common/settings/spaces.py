"""Sizes of a search, from its settings alone: what a network is shown and asked.

A site knows them from its images, too; that both agree is tested, and verified before
anything is trained.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from common.settings.agent import LadderSettings, LearnerSettings
from common.settings.misfit import MisfitError
from common.settings.searches import (
    BoxSettings,
    CentrelineSettings,
    GlimpseSettings,
    GrowingSettings,
    PlaneSettings,
    RegistrationSettings,
)


class TaskSizes(Protocol):
    """The part of a task section that decides sizes."""

    @property
    def landmarks(self) -> tuple[str, ...]:
        """Names of what is looked for."""

    @property
    def spacing_mm(self) -> float:
        """Of the working grid."""

    @property
    def roi(self) -> int:
        """Side of what is seen, samples."""

    @property
    def zooms(self) -> tuple[float, ...]:
        """Strides seen at once."""

    @property
    def frames(self) -> int:
        """Positions seen at once."""

    @property
    def channels(self) -> int:
        """Values of a pixel; 0 where nobody has said."""

    @property
    def agents_per_landmark(self) -> int:
        """Agents that look for each landmark."""

    @property
    def team(self) -> tuple[str, ...]:
        """The landmark of each agent of a mixed team; none where all teams are alike."""

    @property
    def more_planes(self) -> tuple[tuple[str, ...], ...]:
        """Further planes, by the landmarks that lie in each."""

    @property
    def crops(self) -> int:
        """Cropped copies of every training image; with any, landmarks may be absent."""


class Settings(Protocol):
    """The part of an agent's settings that decides sizes."""

    @property
    def task(self) -> TaskSizes:
        """The task section."""

    @property
    def ladder(self) -> LadderSettings:
        """Of landmarks."""

    @property
    def learner(self) -> LearnerSettings:
        """Says whether a search goes by steps or by displacements."""

    @property
    def box(self) -> BoxSettings:
        """Of boxes."""

    @property
    def plane(self) -> PlaneSettings:
        """Of planes."""

    @property
    def registration(self) -> RegistrationSettings:
        """Of motions."""

    @property
    def centreline(self) -> CentrelineSettings:
        """Of traces."""

    @property
    def glimpse(self) -> GlimpseSettings:
        """Of glimpses."""

    @property
    def growing(self) -> GrowingSettings:
        """Of seeds."""


@dataclass(frozen=True)
class Space:
    """The sizes that decide a network's shape, and the names of what it answers for.

    Attributes:
        shape: (channels, *roi) of one agent's observation.
        actions: size of the action set; the axes where the action is a displacement.
        levels: rungs of the ladder.
        labels: a name for every agent of every head, those of a head adjacent.
        views_mm: side of the narrowest view, by level.
        agents: agents that search together.
        reach_mm: unit of a displacement by level; none where a search goes by steps.
        absence: axes of a place, where a landmark may be reported as absent; otherwise 0.
    """

    shape: tuple[int, ...]
    actions: int
    levels: int
    labels: tuple[str, ...]
    views_mm: tuple[float, ...]
    agents: int = 1
    reach_mm: tuple[float, ...] = ()
    absence: int = 0

    @property
    def heads(self) -> int:
        """Number of different things that are looked for."""
        return len(self.labels) // self.agents


def three_cuts(settings: Settings) -> Space:
    """Landmarks by three orthogonal cuts."""
    return _points(settings, (3, settings.task.roi, settings.task.roi), 3)


def cube(settings: Settings) -> Space:
    """Landmarks by a cube, at several zooms and of several frames."""
    task = settings.task
    shape = (len(task.zooms) * task.frames, *(task.roi,) * 3)
    return _points(settings, shape, 3)


def picture(settings: Settings) -> Space:
    """Landmarks in an image of one channel or several."""
    task = settings.task
    seen = max(1, task.channels) * len(task.zooms) * task.frames
    return _points(settings, (seen, task.roi, task.roi), 2)


def _points(settings: Settings, shape: tuple[int, ...], dim: int) -> Space:
    """Landmarks in images of ``dim`` axes, by steps or by displacements."""
    labels, views, reach = settings.task.landmarks, _views(settings), reach_mm(settings)
    actions = dim if reach else 2 * dim
    absence = dim if settings.task.crops else 0
    return Space(shape, actions, len(views), labels, views, reach_mm=reach, absence=absence)


def _views(settings: Settings) -> tuple[float, ...]:
    """Side of what a ladder's levels see, mm, at the narrowest zoom."""
    side = settings.task.roi * settings.task.spacing_mm * min(settings.task.zooms)
    return tuple(scale * side for scale in settings.ladder.scales)


def reach_mm(settings: Settings) -> tuple[float, ...]:
    """Give the unit of a displacement by level; none where a search goes by steps.

    A finer level begins within two steps of the coarser one, so that is how far its landmark
    can be. On the coarsest it may be anywhere: the side of the narrowest view is a unit.
    """
    if settings.learner.method != "displacement":
        return ()
    steps, view = settings.ladder.steps_mm, _views(settings)[0]
    return (max(view, 2 * steps[0]), *(2 * step for step in steps[:-1]))


def team(settings: Settings) -> Space:
    """Landmarks by agents that search a volume together.

    Raises:
        MisfitError: a single agent, which is no team: no site could build its search.
    """
    alone, together = cube(settings), settings.task.agents_per_landmark
    names = settings.task.landmarks
    if mixed := settings.task.team:
        return replace(alone, labels=mixed_labels(mixed), agents=len(mixed))
    if len(names) * together == 1:
        raise MisfitError(
            "task.agents_per_landmark",
            "several agents for one landmark; landmark-3d-cube searches alone",
            "one agent",
        )
    agents = max(1, len(names)) if together == 1 else together
    return replace(alone, labels=team_labels(names, together), agents=agents)


def team_labels(names: tuple[str, ...], together: int) -> tuple[str, ...]:
    """Name every agent of every team; with numbers where several look for the same.

    Args:
        names: of the landmarks.
        together: agents that look for each.
    """
    if together == 1:
        return names
    return tuple(f"{name} #{agent + 1}" for name in names for agent in range(together))


def mixed_labels(team: tuple[str, ...]) -> tuple[str, ...]:
    """Name every agent of a mixed team; with numbers where several look for the same.

    Args:
        team: the landmark of each.
    """
    return tuple(
        name if team.count(name) == 1 else f"{name} #{team[:k].count(name) + 1}"
        for k, name in enumerate(team)
    )


def box(settings: Settings, dim: int) -> Space:
    """Boxes in images of ``dim`` axes; one action stops."""
    task, section = settings.task, settings.box
    views = len(section.contexts) * (max(1, task.channels) if dim == 2 else 3)
    levels = len(section.steps)
    # Around the smallest box; the widest of its views shows something of the image.
    narrowest = (max(section.contexts) * section.smallest_mm,) * levels
    return Space((views, task.roi, task.roi), 4 * dim + 1, levels, task.landmarks, narrowest)


def turned_box(settings: Settings) -> Space:
    """Boxes in images that also turn: two actions more."""
    straight = box(settings, 2)
    return replace(straight, actions=straight.actions + 2)


def plane(settings: Settings) -> Space:
    """View planes: three parallel cuts and two across."""
    task = settings.task
    views = tuple(stride * task.roi for stride in settings.plane.strides_mm)
    return Space((5, task.roi, task.roi), 6, len(views), plane_labels(settings), views)


def plane_labels(settings: Settings) -> tuple[str, ...]:
    """Name the planes; with numbers where there are several."""
    count = 1 + len(settings.task.more_planes)
    return ("plane",) if count == 1 else tuple(f"plane {k + 1}" for k in range(count))


def registration(settings: Settings, dim: int) -> Space:
    """Rigid motions of images of ``dim`` axes: the fixed one's view and the moving one's."""
    task = settings.task
    views, motions = (2 * max(1, task.channels), 3) if dim == 2 else (6, 6)
    sides = tuple(stride * task.roi for stride in settings.registration.strides_mm)
    return Space((views, task.roi, task.roi), 2 * motions, len(sides), ("motion",), sides)


def centreline(settings: Settings, dim: int) -> Space:
    """Traces in images of ``dim`` axes: straight on, a turn to each side, and stop."""
    task, strides = settings.task, settings.centreline.strides_mm
    views = len(strides) * (max(1, task.channels) if dim == 2 else 3)
    shape = (views, task.roi, task.roi)
    return Space(shape, 2 * dim, 1, ("centreline",), (min(strides) * task.roi,))


def seed(settings: Settings, dim: int) -> Space:
    """Seeds in images of ``dim`` axes."""
    task, section = settings.task, settings.growing
    views = len(section.contexts) * (max(1, task.channels) if dim == 2 else 3)
    narrowest = min(section.contexts) * task.roi
    sides = tuple(stride * narrowest for stride in section.strides_mm)
    return Space((views, task.roi, task.roi), 2 * dim, len(sides), task.landmarks, sides)


def tracking(settings: Settings) -> Space:
    """Landmarks in sequences: the frame, and the one before where its landmark was."""
    alone = picture(settings)
    return replace(alone, shape=(2 * alone.shape[0], *alone.shape[1:]))


def glimpses(settings: Settings) -> Space:
    """Places in large images: four steps, two changes of magnification, and a declaration."""
    task = settings.task
    side = task.roi * task.spacing_mm
    sides = tuple(scale * side for scale in settings.glimpse.scales)
    shape = (max(1, task.channels), task.roi, task.roi)
    return Space(shape, 7, len(sides), task.landmarks, sides)
