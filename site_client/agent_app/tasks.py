"""From cases to a task and a network that fits it, and from searches back to millimetres.

Whatever the kind of task, a found situation becomes a position in the patient's
world (LPS), which is what every file that is written holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import InputDataError, InternalError
from site_client.agent.evaluation import mean_parameters
from site_client.agent.networks import PLAIN, QNetwork, build_network, fastest
from site_client.agent.search import consensus
from site_client.agent.task import Situations, Task
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.landmark2d import Case2D, Landmark2D, build_cases_2d
from site_client.agent.tasks.landmark3d import Landmark3D, build_cases_3d
from site_client.agent.tasks.multi_agent import MultiAgent
from site_client.agent.tasks.points import PointSearch
from site_client.agent.tasks.registration import Registration
from site_client.agent.tasks.triplanar import TriplanarLandmark
from site_client.agent.tasks.views import Views
from site_client.agent_app.cases import Cases
from site_client.agent_app.config import Config
from site_client.agent_app.importing import RlMedicalCube
from site_client.agent_app.kinds import BOXES, LANDMARKS, REGISTRATIONS
from site_client.agent_app.searches import (
    MOTION_NAME,
    PLANE_NAME,
    build_boxes,
    build_plane,
    build_registration,
    middle_of,
)
from site_client.imaging.datasets2d import PictureCase


@dataclass(frozen=True, eq=False)
class Built:
    """A task over some cases.

    Attributes:
        task: what is searched.
        cases: the cases, numbered as in the task.
        teams: int64[heads, agents], which landmark each agent of each head looks for.
        names: of the heads of a search that is not for landmarks; None of one that is.
    """

    task: Task
    cases: Cases
    teams: NDArray[np.int64]
    names: tuple[str, ...] | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for every agent of every head."""
        if self.names is not None:
            return self.names
        names = self.cases.landmarks
        labels: list[str] = []
        for team in self.teams:
            alone = len(set(team.tolist())) == len(team)
            labels += [names[k] if alone else f"{names[k]} #{a + 1}" for a, k in enumerate(team)]
        return tuple(labels)

    def plane_mm(self, at: Situations) -> NDArray[np.float64]:
        """float64[n, agents, d]: positions of situations as acquired, as landmarks are given.

        LPS mm in volumes; mm from the first pixel in pictures.
        """
        places = self.task.parameters(at).astype(np.float64)
        places = places.reshape(len(at), len(self.teams[0]), -1)
        search = self.task.task if isinstance(self.task, MultiAgent) else self.task
        if isinstance(search, RlMedicalCube):
            case = np.repeat(at["case"].astype(np.int64), places.shape[1])
            flat = places.reshape(-1, 3).astype(np.float32)
            return search.world_mm(case, flat).reshape(places.shape)
        return np.asarray(places + _middles(self.cases)[at["case"].astype(np.int64)][:, None])

    def partner(self, case: int, landmark: int) -> int:
        """The landmark that is interchangeable with one and known in the case, or itself."""
        if not isinstance(self.task, PointSearch) or self.task.exchange is None:
            return landmark
        other = int(self.task.exchange.partner[landmark])
        marked = np.isfinite(self.cases.each[case].landmarks_mm[other]).all()
        return other if marked else landmark

    def world_mm(self, case: int, position: NDArray[np.float64]) -> NDArray[np.float64]:
        """float64[..., 3], LPS mm: a position in a case, given as its landmarks are."""
        each = self.cases.each[case]
        return each.picture.to_world(position) if isinstance(each, PictureCase) else position

    def answers(
        self, found: Situations, outlier_mads: float
    ) -> dict[tuple[int, int], NDArray[np.float64]]:
        """What all searches for a landmark in a case agree on.

        Args:
            found: situations [groups, starts] as acquired; the starts of a group share case
                and head.
            outlier_mads: see `consensus`.

        Returns:
            (case, landmark) to float64[d], given as landmarks are.
        """
        groups, starts = found.shape
        places = self.plane_mm(found.reshape(-1)).reshape(groups, starts, len(self.teams[0]), -1)
        answers: dict[tuple[int, int], NDArray[np.float64]] = {}
        for group in range(groups):
            case, head = int(found[group, 0]["case"]), int(found[group, 0]["head"])
            for landmark in np.unique(self.teams[head]):
                agents = self.teams[head] == landmark
                votes = places[group][:, agents].reshape(-1, places.shape[-1])
                answers[case, int(landmark)] = consensus(votes, outlier_mads)
        return answers


def build(cases: Cases, config: Config, *, known: bool = True) -> Built:
    """The configuration's task over some cases.

    Args:
        cases: with what is known of them.
        config: says what is looked for.
        known: false where nothing is: stand-ins take the place of truths.

    Raises:
        InputDataError: the cases or the settings do not fit each other.
    """
    kind = config.task.kind
    if kind in LANDMARKS:
        return _build_points(cases, config)
    if kind in BOXES:
        heads = np.arange(len(cases.landmarks))[:, None]
        return Built(build_boxes(cases, config), cases, heads, cases.landmarks)
    one = np.zeros((1, 1), dtype=np.int64)
    if kind in REGISTRATIONS:
        return Built(build_registration(cases, config), cases, one, (MOTION_NAME,))
    return Built(build_plane(cases, config, known=known), cases, one, (PLANE_NAME,))


def _build_points(cases: Cases, config: Config) -> Built:
    """A search for landmarks."""
    settings, pose = config.task, config.pose
    heads = np.arange(len(cases.landmarks))[:, None]
    if settings.kind == "landmark-3d":
        flat = TriplanarLandmark(
            cases.volumes,
            config.ladder,
            pose,
            roi=settings.roi,
            spacing_mm=settings.spacing_mm,
        )
        return Built(flat, cases, heads)
    strides = tuple(scale * settings.spacing_mm for scale in config.ladder.scales)
    ladder = Ladder(strides, config.ladder.steps_mm)
    views = Views(settings.roi, settings.zooms, settings.frames)
    finest = min(strides) * min(settings.zooms)
    couples = _couples(cases.landmarks, settings.interchangeable)
    if settings.kind == "landmark-2d":
        pictures = build_cases_2d((_case_2d(case) for case in cases.pictures), finest)
        return Built(Landmark2D(pictures, ladder, views, pose, couples), cases, heads)
    volumes = build_cases_3d(cases.volumes, finest)
    if settings.world == "rl-medical":
        cube: Landmark3D = RlMedicalCube(volumes, ladder, views, pose)
    else:
        cube = Landmark3D(volumes, ladder, views, pose, interchangeable=couples)
    if settings.kind == "landmark-3d-cube":
        return Built(cube, cases, heads)
    if len(heads) * settings.agents_per_landmark == 1:
        raise InputDataError(
            "one agent is no team",
            field="task.agents_per_landmark",
            expected="several landmarks, or several agents for one",
            advice="landmark-3d-cube searches alone",
        )
    teams = (
        heads.T
        if settings.agents_per_landmark == 1
        else np.repeat(heads, settings.agents_per_landmark, axis=1)
    )
    return Built(MultiAgent(cube, teams.tolist()), cases, teams)


def _couples(
    names: tuple[str, ...], wanted: tuple[tuple[str, str], ...]
) -> tuple[tuple[int, int], ...]:
    """Couples by number.

    Raises:
        InputDataError: a landmark that is not there.
    """
    for name in (name for couple in wanted for name in couple):
        if name not in names:
            raise InputDataError(
                "an interchangeable landmark is not among those looked for",
                field=f"task.interchangeable: {name}",
                expected=", ".join(names),
            )
    return tuple((names.index(first), names.index(second)) for first, second in wanted)


def new_network(built: Built, config: Config) -> QNetwork:
    """A network with first weights from the run's seed alone."""
    generator = torch.Generator().manual_seed(config.run.seed)
    execution = fastest() if config.run.execution == "fastest" else PLAIN
    return build_network(config.network, built.task, generator, execution)


def prior_of(built: Built) -> NDArray[np.float64]:
    """float64[heads, agents, d]: the mean truth over the cases as acquired, from their middles.

    NaN where no case has the landmark. The constant answer of a registration is that
    nothing has moved; its error is that before it is registered.
    """
    cases = built.cases
    if isinstance(built.task, Registration):
        return np.zeros((1, 1, built.task.size))
    if built.names is not None:
        return mean_parameters(built.task)[:, None]
    offsets = np.stack([c.landmarks_mm for c in cases.each]) - _middles(cases)[:, None]
    counts = np.isfinite(offsets).all(axis=2).sum(axis=0)
    total = np.nansum(offsets, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / counts[:, None]
    mean[counts == 0] = np.nan
    return np.asarray(mean[built.teams])


def as_parameters(built: Built, prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """A prior float64[heads, agents, d] with the axes of the task's parameters.

    Raises:
        InternalError: it is another task's.
    """
    if prior.shape[:2] != built.teams.shape:
        raise InternalError(
            "the constant predictor does not fit the task",
            expected=str(built.teams.shape),
            got=str(prior.shape[:2]),
        )
    return prior if built.task.agents > 1 else prior[:, 0]


def _middles(cases: Cases) -> NDArray[np.float64]:
    """float64[cases, d]: the middle of each image, given as landmarks are."""
    return np.stack([middle_of(case) for case in cases.each])


def _case_2d(case: PictureCase) -> Case2D:
    spacing = (case.picture.spacing_mm,) * 2
    return Case2D(case.name, case.picture.channels, spacing, case.landmarks_mm)
