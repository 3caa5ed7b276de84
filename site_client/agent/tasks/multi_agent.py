"""Several agents in one image: each after its own landmark, or all after the same.

The agents of a team share case, level and pose, and move at once. They stop
together: a level is left when the whole team is done with it, which is what
gives a row one level. Agents that look for the same landmark are a poll: outliers
are rejected, and the mean of the others is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from site_client.agent.search import consensus
from site_client.agent.task import Outcome, Situations
from site_client.agent.tasks.geometry import draw_levels
from site_client.agent.tasks.points import PointSearch
from site_client.agent.tasks.poses import Poses, draw_poses, native_poses

Scalar = TypeVar("Scalar", bound=np.generic)

# Votes further from the middle than this many times the median distance do not count.
_REJECTED_BEYOND = 2.5


class MultiAgent:
    """A team of point searches.

    Args:
        task: the search of one agent, in images or in volumes.
        teams: landmark that each agent of each team looks for; one row per team (a head of
            the network), equally long. ``[[0, 1, 2]]`` are three agents for three
            landmarks, ``[[4, 4, 4, 4, 4]]`` five for one.

    Raises:
        InputDataError: no team, teams of different size, an unknown landmark, or no case that
            has all the landmarks of a team.
    """

    def __init__(self, task: PointSearch, teams: Sequence[Sequence[int]]) -> None:
        sizes = {len(team) for team in teams}
        in_range = all(0 <= landmark < task.heads for team in teams for landmark in team)
        if len(sizes) != 1 or not 1 <= min(sizes) <= 64 or not in_range or len(teams) > 255:
            raise InputDataError(
                "no such team",
                field="teams",
                expected=f"equally many landmarks of 0 to {task.heads - 1} in each",
                got=f"{len(teams)} teams",
            )
        self.task = task
        self.teams = np.array(teams, dtype=np.int64)
        self.heads, self.agents = self.teams.shape
        self.shape, self.actions, self.levels = task.shape, task.actions, task.levels
        self.unit, self.reach_mm = task.unit, task.reach_mm
        each: list[tuple[str, str, tuple[int, ...]]] = [
            ("action", "u1", (self.agents,)),
            ("position", "<f4", (self.agents, task.dim)),
        ]
        if task.views.frames > 1:
            each.append(("past", "u1", (self.agents, task.views.frames - 1)))
        shared = [("case", "<u2"), ("head", "u1"), ("level", "u1")]
        pose = ("pose", task.situation["pose"].base, task.situation["pose"].shape)
        # A structured dtype takes its fields with and without shapes.
        self.situation: np.dtype[np.void] = np.dtype([*shared, *each, pose])
        present = np.isfinite(task.targets_mm[:, self.teams]).all(axis=(2, 3))
        self._pairs = np.argwhere(present)
        if not len(self._pairs):
            raise InputDataError(
                "nothing to search", expected="a case with all the landmarks of a team"
            )

    def __len__(self) -> int:
        return len(self.task)

    def draw(self, rng: np.random.Generator, n: int) -> Situations:
        """Training starts, each agent's drawn as if it were alone."""
        situations = np.zeros(n, self.situation)
        situations["case"], situations["head"] = self._pairs[rng.integers(0, len(self._pairs), n)].T
        finer = self.reach_mm is not None
        situations["level"] = draw_levels(rng, n, self.levels, finer=finer)
        situations["pose"] = draw_poses(rng, self.task.poses, n, self.task.dim)
        alone = self._alone(situations)
        self.task.draw_positions(rng, alone)
        return self._joined(situations, alone)

    def starts(self, rng: np.random.Generator, repeats: int, *, posed: bool) -> Situations:
        """Every case and team it has all landmarks of, `repeats` times, adjacent, level 0."""
        n, dim = len(self._pairs), self.task.dim
        poses = draw_poses(rng, self.task.poses, n, dim) if posed else native_poses(n, dim)
        situations = np.zeros(n * repeats, self.situation)
        situations["case"], situations["head"] = np.repeat(self._pairs, repeats, axis=0).T
        situations["pose"] = np.repeat(poses, repeats, axis=0)
        alone = self._alone(situations)
        self.task.start_positions(rng, alone)
        return self._joined(situations, alone)

    def observe(self, situations: Situations) -> NDArray[np.uint8]:
        """uint8[n, agents, *shape]."""
        return self._split(self.task.observe(self._alone(situations)))

    def step(self, situations: Situations) -> Outcome:
        """Every agent takes its action."""
        reached, rewards, _ = self.task.step(self._alone(situations))
        return Outcome(
            self._joined(situations.copy(), reached),
            self._split(rewards),
            np.zeros(len(situations), dtype=bool),
        )

    def rewards_of_all(self, situations: Situations) -> NDArray[np.float32]:
        """float32[n, agents, actions]."""
        return self._split(self.task.rewards_of_all(self._alone(situations)))

    def parameters(self, situations: Situations) -> NDArray[np.float32]:
        """float32[n, agents, d]: positions, posed mm."""
        return np.array(situations["position"])

    def move_to(self, situations: Situations, parameters: NDArray[np.float32]) -> None:
        """Put the agents elsewhere, in place."""
        situations["position"] = parameters
        if self.task.views.frames > 1:
            situations["past"] = 0

    def pull_inside(self, situations: Situations) -> None:
        """Move agents that lie outside their image onto its border, in place."""
        alone = self._alone(situations)
        self.task.pull_inside(alone)
        self._joined(situations, alone)

    def targets(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, agents, d]: where each agent's landmark is, posed mm."""
        return self._split(self.task.targets(self._alone(situations)))

    def errors(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, agents]: distance to each agent's landmark, mm of the posed frame."""
        return self._split(self.task.errors(self._alone(situations)))

    def fractions(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 3]: the middle of the team."""
        return np.asarray(self._split(self.task.fractions(self._alone(situations))).mean(axis=1))

    def steps_away(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, d]: the way of the first agent from its landmark, in steps of the level."""
        return self._split(self.task.steps_away(self._alone(situations)))[:, 0]

    def consensus(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, agents, d]: what all agents after the same landmark agree on, posed mm."""
        positions = situations["position"].astype(np.float64)
        agreed = np.empty_like(positions)
        for row in range(self.heads):
            of_team = situations["head"] == row
            for landmark in np.unique(self.teams[row]):
                same = self.teams[row] == landmark
                votes = positions[np.ix_(of_team, same)]
                agreed[np.ix_(of_team, same)] = consensus(votes, _REJECTED_BEYOND)[:, None]
        return agreed

    def report(self, situations: Situations) -> dict[str, NDArray[np.float64]]:
        """Distance of the consensus to the landmarks, mean over them, in the patient's mm."""
        gap = np.linalg.norm(self.consensus(situations) - self.targets(situations), axis=2)
        # A landmark with many agents counts as much as one with a single agent.
        weights = np.array([[1 / (team == one).sum() for one in team] for team in self.teams])
        weights /= weights.sum(axis=1, keepdims=True)
        mean = (gap * weights[situations["head"]]).sum(axis=1)
        return {"consensus_native_error_mm": mean / Poses.of(situations["pose"]).scale}

    def _alone(self, situations: Situations) -> Situations:
        """Each agent as a situation of its own, those of a team adjacent."""
        alone = np.zeros((len(situations), self.agents), self.task.situation)
        for name in ("case", "level"):
            alone[name] = situations[name][:, None]
        alone["pose"] = situations["pose"][:, None]
        alone["head"] = self.teams[situations["head"]]
        for name in ("action", "position", "past"):
            if name in (self.situation.names or ()):
                alone[name] = situations[name]
        flat: Situations = alone.reshape(-1)
        return flat

    def _joined(self, situations: Situations, alone: Situations) -> Situations:
        """Write the agents' places back into their teams, in place."""
        situations["position"] = self._split(alone["position"])
        if self.task.views.frames > 1:
            situations["past"] = self._split(alone["past"])
        return situations

    def _split(self, rows: NDArray[Scalar]) -> NDArray[Scalar]:
        return rows.reshape(-1, self.agents, *rows.shape[1:])
