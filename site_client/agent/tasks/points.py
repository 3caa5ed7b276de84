"""Searches for points: all that landmark searches in images and in volumes have in common.

A situation holds a position in posed millimetres and, where the network sees a
short history, the last moves that led there: frames are cut again at the places
those moves came from. At the start of an episode, and after `move_to`, all frames
show the present place. Each case may have only some of the landmarks; a missing
one is never drawn, searched or evaluated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from common.settings import PoseSettings
from site_client.agent.task import MM, Outcome, Situations
from site_client.agent.tasks.exchange import Exchange
from site_client.agent.tasks.geometry import Ladder, draw_levels, misses, reaches, steps_of_actions
from site_client.agent.tasks.poses import Poses, draw_poses, native_poses, pose_length
from site_client.agent.tasks.views import Views
from site_client.imaging.pyramids import Pyramids

# Shares of the image in which searches begin: wide for training, narrower for evaluation.
_TRAINING_STARTS = (0.1, 0.9)
_EVALUATION_STARTS = (0.25, 0.75)
# A clinician may click on the rim of the last pixel: this share of the image counts as inside.
_RIM = 0.01


class PointSearch(ABC):
    """The parts of `Task` that do not depend on how an observation is cut.

    Args:
        images: what can be seen.
        targets: float64[cases, heads, d], mm from the middle of the image; NaN is missing.
        groups: a name per case (body region, modality); groups are drawn equally often,
            so that a large one does not drown a small one.
        ladder: strides and steps.
        views: what an observation shows.
        poses: extent of the random pose.
        interchangeable: couples of heads whose names are a convention (see `exchange`);
            each of a couple looks for what lies on its side in the posed frame.
        reach_mm: one per level, where the action is a displacement; none: steps of the ladder.
        may_lack: a landmark may lie outside of its image: it is then trained towards, and no
            search for it is evaluated.

    Attributes:
        absence: axes of a place where landmarks may lie outside of their images, otherwise 0.
        exchange: what is to be known of the couples; None without any.
        reach_mm: see there; None for a search by steps.

    Raises:
        InputDataError: nothing to look for, more than a situation can number, or couples
            that are none.
    """

    agents = 1
    unit = MM

    def __init__(
        self,
        images: Pyramids,
        targets: NDArray[np.float64],
        groups: Sequence[str],
        ladder: Ladder,
        views: Views,
        poses: PoseSettings,
        interchangeable: Sequence[tuple[int, int]] = (),
        reach_mm: Sequence[float] = (),
        *,
        may_lack: bool = False,
    ) -> None:
        self.images = images
        self.dim = images.dim
        self.absence = images.dim if may_lack else 0
        self.targets_mm = targets
        self.groups = tuple(groups)
        self.ladder = ladder
        self.views = views
        self.poses = poses
        self.heads = targets.shape[1]
        self.levels = len(ladder)
        self.reach_mm = reaches(reach_mm, self.levels)
        self.actions = 2 * self.dim if self.reach_mm is None else self.dim
        self.situation = _situation(self.dim, views.frames)
        present = np.asarray(np.isfinite(targets).all(axis=2))
        if not (0 < len(images) <= 65_535 and 0 < self.heads <= 255 and present.any()):
            raise InputDataError(
                "nothing to search",
                expected="1 to 65535 cases with 1 to 255 landmarks, at least one of them present",
                got=f"{len(images)} cases, {int(present.sum())} landmarks present in all",
            )
        self.shape: tuple[int, ...] = ()
        self._pairs = np.argwhere(present)
        self._inside = self._pairs[self._are_inside(self._pairs)]
        self.exchange = Exchange(interchangeable, targets, self._pairs) if interchangeable else None
        self._shares = np.cumsum(_shares(present, self.groups))
        self._steps = np.array(ladder.steps_mm, dtype=np.float32)
        self._strides = np.array(ladder.strides_mm)
        self._moves = steps_of_actions(self.dim)

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, rng: np.random.Generator, n: int) -> Situations:
        """Training starts; finer levels within two coarser steps of the landmark."""
        situations = np.zeros(n, self.situation)
        pick = np.searchsorted(self._shares, rng.random(n), side="right")
        situations["case"], situations["head"] = self._pairs[
            np.minimum(pick, len(self._pairs) - 1)
        ].T
        finer = self.reach_mm is not None
        situations["level"] = draw_levels(rng, n, self.levels, finer=finer)
        situations["pose"] = draw_poses(rng, self.poses, n, self.dim)
        self.draw_positions(rng, situations)
        return situations

    def draw_positions(self, rng: np.random.Generator, situations: Situations) -> None:
        """Put training starts at random places, in place."""
        n = len(situations)
        self._place(situations, rng.uniform(*_TRAINING_STARTS, (n, self.dim)))
        reach = 2 * self._steps[np.maximum(situations["level"], 1) - 1]
        closer = self.reach_mm is not None
        near = self.places(situations) + misses(rng, reach, self.dim, closer=closer)
        fine = situations["level"] > 0
        situations["position"][fine] = near[fine]
        self.pull_inside(situations)

    def starts(self, rng: np.random.Generator, repeats: int, *, posed: bool) -> Situations:
        """Every landmark that is in its image, `repeats` times from the middle half of it."""
        n = len(self._inside)
        poses = draw_poses(rng, self.poses, n, self.dim) if posed else native_poses(n, self.dim)
        if self.exchange is not None:
            poses[self.exchange.rows[:, 1]] = poses[self.exchange.rows[:, 0]]
        situations = np.zeros(n * repeats, self.situation)
        situations["case"], situations["head"] = np.repeat(self._inside, repeats, axis=0).T
        situations["pose"] = np.repeat(poses, repeats, axis=0)
        self.start_positions(rng, situations)
        return situations

    def start_positions(self, rng: np.random.Generator, situations: Situations) -> None:
        """Put evaluation starts into the middle half of their images, in place."""
        self._place(situations, rng.uniform(*_EVALUATION_STARTS, (len(situations), self.dim)))

    @abstractmethod
    def observe(self, situations: Situations) -> NDArray[np.uint8]:
        """uint8[n, *shape]."""

    def step(self, situations: Situations) -> Outcome:
        """Take each situation's action; a move out of the image is not made and earns -1."""
        positions, outside, rewards = self._after(
            situations, self._moves[situations["action"]][:, None]
        )
        reached = situations.copy()
        reached["position"] = positions[:, 0]
        if self.views.frames > 1:
            reached["past"][:, :-1] = situations["past"][:, 1:]
            reached["past"][:, -1] = np.where(outside[:, 0], 0, situations["action"] + 1)
        return Outcome(reached, rewards[:, 0], np.zeros(len(situations), dtype=bool))

    def rewards_of_all(self, situations: Situations) -> NDArray[np.float32]:
        """float32[n, actions]."""
        moves = np.broadcast_to(self._moves, (len(situations), *self._moves.shape))
        return self._after(situations, moves)[2]

    def parameters(self, situations: Situations) -> NDArray[np.float32]:
        """float32[n, d]: position, posed mm."""
        return np.array(situations["position"])

    def move_to(self, situations: Situations, parameters: NDArray[np.float32]) -> None:
        """Put situations elsewhere, in place; what was seen before is forgotten."""
        situations["position"] = parameters
        if self.views.frames > 1:
            situations["past"] = 0

    def targets(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, d]: the parameters of where the landmark is."""
        return self.places(situations)

    def places(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, d]: where the landmark each situation looks for is, posed mm.

        Of interchangeable ones, the one that lies on this one's side there.
        """
        pose = Poses.of(situations["pose"])
        if self.exchange is None:
            return pose.posed(self.targets_mm[situations["case"], situations["head"]])
        ends = pose.posed(self.exchange.ends(situations["case"], situations["head"]))
        return self.exchange.on_its_side(ends, situations["head"])

    def errors(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n]: distance to the landmark, mm of the posed frame."""
        return np.asarray(np.linalg.norm(situations["position"] - self.places(situations), axis=1))

    def native(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, d]: where each situation is, mm from the middle of its image as acquired."""
        return Poses.of(situations["pose"]).native(situations["position"])

    def fractions(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 3]; the third is 0 in an image of two dimensions."""
        place = np.zeros((len(situations), 3))
        within = self.images.fractions(self.native(situations), _cases(situations))
        place[:, : self.dim] = np.clip(within, 0, 1)
        return place

    def steps_away(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, d]: way from the landmark, posed, in steps of the level."""
        return np.asarray(
            (situations["position"] - self.places(situations))
            / self._steps[situations["level"]][:, None]
        )

    def report(self, situations: Situations) -> dict[str, NDArray[np.float64]]:
        """The distance in mm of the patient: a pose also enlarges."""
        scale = Poses.of(situations["pose"]).scale
        return {"native_error_mm": self.errors(situations) / scale}

    def _requests(
        self, situations: Situations
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """(case, middles [n, k, d], axes [n, k, d, d], gamma) of k = frames x zooms regions."""
        n, case, pose = len(situations), _cases(situations), Poses.of(situations["pose"])
        positions = situations["position"][:, None].astype(np.float64)
        if self.views.frames > 1:
            # Undone one after the other from the latest on: where the search was before.
            undone = -np.concatenate([np.zeros((1, self.dim)), self._moves])[
                situations["past"][:, ::-1]
            ]
            undone *= self._steps[situations["level"]].astype(np.float64)[:, None, None]
            earlier = (positions + np.cumsum(undone, axis=1))[:, ::-1]
            positions = np.concatenate([earlier, positions], axis=1)
        middles = self.images.index(pose.native(positions), case)
        zooms = np.array(self.views.zooms)
        strides = self._strides[situations["level"]][:, None] * zooms
        axes = strides[:, :, None, None] * np.eye(self.dim)
        axes = self.images.index_steps(pose.native_vectors(axes), case)
        frames, k = self.views.frames, len(zooms)
        return (
            case,
            np.repeat(middles, k, axis=1),
            np.broadcast_to(axes[:, None], (n, frames, k, self.dim, self.dim)).reshape(
                n, frames * k, self.dim, self.dim
            ),
            pose.gamma,
        )

    def _after(
        self, situations: Situations, moves: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]:
        """(positions [n, m, d], whether outside [n, m], rewards [n, m]) of m moves each."""
        pose, case = Poses.of(situations["pose"]), _cases(situations)
        step = self._steps[situations["level"]]
        here = situations["position"][:, None]
        there = here + moves * step[:, None, None]
        within = self.images.fractions(pose.native(there), case)
        outside = np.asarray(((within < 0) | (within > 1)).any(axis=2))
        there = np.where(outside[:, :, None], here, there)
        target = self.places(situations)[:, None]
        before = np.linalg.norm(here - target, axis=2)
        after = np.linalg.norm(there - target, axis=2)
        gain = (before - after) / step[:, None]
        return there, outside, np.where(outside, -1, np.clip(gain, -1, 1)).astype(np.float32)

    def agreed_errors(self, agreed: Situations) -> NDArray[np.float64]:
        """float64[groups]: as `errors`, of couples in the better of their two orders."""
        if self.exchange is None:
            return self.errors(agreed)
        truth = Poses.of(agreed["pose"]).posed(self.targets_mm[agreed["case"], agreed["head"]])
        return self.exchange.errors(agreed["position"], truth)

    def _are_inside(self, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool[n]: whether the landmarks int64[n, 2] of (case, head) lie in their images.

        All of them where none may be outside: the reader of the files has looked.
        """
        if not self.absence:
            return np.ones(len(pairs), dtype=bool)
        case, head = pairs.T
        within = self.images.fractions(self.targets_mm[case, head], case)
        return np.asarray((np.abs(within - 0.5) <= 0.5 + _RIM).all(axis=1))

    def _place(self, situations: Situations, fractions: NDArray[np.float64]) -> None:
        native = self.images.at_fractions(fractions, _cases(situations))
        situations["position"] = Poses.of(situations["pose"]).posed(native)

    def pull_inside(self, situations: Situations) -> None:
        """Move situations that lie outside their image onto its border."""
        within = self.images.fractions(self.native(situations), _cases(situations))
        outside = ((within < 0) | (within > 1)).any(axis=1)
        if outside.any():
            inner = situations[outside]
            # Slightly inside, so that rounding cannot put it out again.
            self._place(inner, np.clip(within[outside], 0.002, 0.998))
            situations[outside] = inner


def _cases(situations: Situations) -> NDArray[np.int64]:
    cases: NDArray[np.int64] = situations["case"].astype(np.int64)
    return cases


def _situation(dim: int, frames: int) -> np.dtype[np.void]:
    """One row: 23 bytes in two dimensions, 33 in three, and one per earlier frame."""
    fields: list[tuple[str, str] | tuple[str, str, int]] = [
        ("case", "<u2"),
        ("head", "u1"),
        ("level", "u1"),
        ("action", "u1"),
        ("pose", "<f2", pose_length(dim)),
        ("position", "<f4", dim),
    ]
    if frames > 1:
        # The moves that led here, latest last, as action + 1; 0 stayed where it was.
        fields.append(("past", "u1", (frames - 1,)))  # type: ignore[arg-type]
    return np.dtype(fields)


def _shares(present: NDArray[np.bool_], groups: Sequence[str]) -> NDArray[np.float64]:
    """float64[pairs]: how often each (case, landmark) is drawn.

    Groups are equally likely; within one, the landmarks that any of its cases has;
    of each landmark, the cases that have it.
    """
    names = np.array(groups)
    shares = np.zeros(present.shape)
    for name in np.unique(names):
        members = present & (names == name)[:, None]
        counts = members.sum(axis=0)
        if counts.any():
            shares += members / np.maximum(counts, 1) / (counts > 0).sum()
    within: NDArray[np.float64] = shares[present] / shares.sum()
    return within
