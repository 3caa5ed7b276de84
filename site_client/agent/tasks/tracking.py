"""Landmarks followed through sequences: each frame is searched from the answer in the one before.

Frames of a sequence are cases; the landmark is given in the first. A situation remembers
where it was in the frame before, and sees that place of that frame beside its own: what
it follows need not look as anything it was trained on did. The parameters are the way
from the landmark in the first frame, so that the answer that never looks is the mean way.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common.errors import InputDataError
from common.settings import PoseSettings
from site_client.agent.task import Situations
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.landmark2d import Cases2D, Landmark2D
from site_client.agent.tasks.poses import Poses
from site_client.agent.tasks.views import Views


class Tracking(Landmark2D):
    """Search for landmarks in frames.

    An observation has the channels of a landmark search, then the same of the frame before
    around the place that was found there.

    Args:
        cases: frames, those of a sequence in their order.
        sequences: a name per frame; frames of equal names follow each other.
        ladder: strides and steps.
        views: what is seen at a position.
        poses: extent of the random pose, equal for all frames of a sequence.
        reach_mm: one per level, where the action is a displacement.

    Raises:
        InputDataError: no landmark in any frame.
    """

    def __init__(
        self,
        cases: Cases2D,
        sequences: Sequence[str],
        ladder: Ladder,
        views: Views | None = None,
        poses: PoseSettings | None = None,
        reach_mm: Sequence[float] = (),
    ) -> None:
        super().__init__(cases, ladder, views, poses, reach_mm=reach_mm)
        self.shape = (2 * self.shape[0], *self.shape[1:])
        self.situation = np.dtype([*self.situation.descr, ("before", "<f4", 2), ("track", "<u4")])
        latest: dict[str, int] = {}
        first: dict[str, int] = {}
        self._before, self._first = (np.zeros(len(cases), np.int64) for _ in range(2))
        self._number = np.zeros(len(cases), np.int64)
        for case, name in enumerate(sequences):
            # A frame that none comes before follows itself.
            self._before[case] = latest.get(name, case)
            self._first[case] = first.setdefault(name, case)
            self._number[case] = self._number[latest[name]] + 1 if name in latest else 0
            latest[name] = case
        of, head = self._pairs.T
        present = np.asarray(np.isfinite(self.targets_mm).all(axis=2))
        followed = present[self._first[of], head] & present[self._before[of], head]
        if not followed.any():
            raise InputDataError(
                "nothing to follow", expected="landmarks in the first frame of a sequence"
            )
        self._pairs = self._pairs[followed]
        self._shares = np.cumsum(np.full(len(self._pairs), 1 / len(self._pairs)))
        later = self._number[self._pairs[:, 0]] > 0
        # Single frames, as one subject's alone may be, are searched as if each followed itself.
        self._inside = self._pairs[later] if later.any() else self._pairs

    def draw_positions(self, rng: np.random.Generator, situations: Situations) -> None:
        """Training starts: about the place of the frame before, at finer levels the landmark."""
        n, fine = len(situations), self._steps[-1]
        before = self._marks(situations, self._before)
        situations["before"] = before + rng.uniform(-1, 1, (n, 2)) * fine
        super().draw_positions(rng, situations)
        coarse = situations["level"] == 0
        miss = rng.uniform(-1, 1, (n, 2)) * self._steps[0]
        situations["position"][coarse] = (situations["before"] + miss)[coarse]
        self.pull_inside(situations)

    def starts(self, rng: np.random.Generator, repeats: int, *, posed: bool) -> Situations:
        """Evaluation starts: every frame but the first, where the landmark was in the first.

        `hand_over` puts them where it was found in the frame before.
        """
        situations = super().starts(rng, repeats, posed=posed)
        groups = situations[::repeats]
        sequence = self._first[groups["case"]]
        _, leader, member = np.unique(sequence, return_index=True, return_inverse=True)
        situations["pose"] = np.repeat(groups["pose"][leader][member], repeats, axis=0)
        drawn = rng.integers(0, 2**24, len(leader)).astype(np.uint32)
        track = (drawn[member] << np.uint32(8)) + groups["head"]
        situations["track"] = np.repeat(track, repeats)
        self.start_positions(rng, situations)
        return situations

    def start_positions(self, rng: np.random.Generator, situations: Situations) -> None:
        """Put evaluation starts where the landmark is in the first frame, in place."""
        situations["before"] = self._marks(situations, self._first)
        miss = rng.uniform(-1, 1, (len(situations), 2)) * self._steps[-1]
        situations["position"] = situations["before"] + miss
        self.pull_inside(situations)

    def waves(self, groups: Situations) -> list[NDArray[np.int64]]:
        """List groups that are searched together: the second frames, the third ones, and so on."""
        number = self._number[groups["case"]]
        return [np.flatnonzero(number == k) for k in np.unique(number)]

    def hand_over(self, wave: Situations, agreed: Situations) -> Situations:
        """Begin where the search of the frame before ended.

        Args:
            wave: situations [groups, repeats].
            agreed: of all groups, those of earlier waves as they were found.

        Returns:
            the same situations elsewhere; those that nothing was searched before stay.
        """
        place = {
            (int(situation["track"]), int(situation["case"])): k
            for k, situation in enumerate(agreed)
        }
        moved = wave.copy()
        for row in moved:
            key = int(row["track"][0]), int(self._before[row["case"][0]])
            if key in place and key[1] != int(row["case"][0]):
                position = agreed["position"][place[key]]
                row["position"] += position - row["before"]
                row["before"] = position
        flat = moved.reshape(-1)
        self.pull_inside(flat)
        return flat.reshape(wave.shape)

    def observe(self, situations: Situations) -> NDArray[np.uint8]:
        """uint8[n, 2 x channels, roi, roi]."""
        earlier = situations.copy()
        earlier["case"] = self._before[situations["case"]]
        earlier["position"] = situations["before"]
        return np.concatenate([super().observe(situations), super().observe(earlier)], axis=1)

    def parameters(self, situations: Situations) -> NDArray[np.float32]:
        """float32[n, 2]: the way from the landmark in the first frame, posed mm."""
        way = situations["position"] - self._marks(situations, self._first)
        return np.asarray(way, np.float32)

    def move_to(self, situations: Situations, parameters: NDArray[np.float32]) -> None:
        """Put situations elsewhere, in place."""
        situations["position"] = self._marks(situations, self._first) + parameters

    def targets(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 2]: the parameters of where the landmark is."""
        return self.places(situations) - self._marks(situations, self._first)

    def steps_away(self, situations: Situations) -> NDArray[np.float64]:
        """float64[n, 2]: way from where the landmark is now, posed, in steps of the level."""
        gap = situations["position"] - self.places(situations)
        return np.asarray(gap / self._steps[situations["level"]][:, None])

    def report(self, situations: Situations) -> dict[str, NDArray[np.float64]]:
        """The distance in mm of the patient, and how far the landmark has moved, likewise."""
        moved = np.linalg.norm(self.targets(situations), axis=1)
        return super().report(situations) | {"moved_mm": moved / Poses.of(situations["pose"]).scale}

    def _marks(self, situations: Situations, of: NDArray[np.int64]) -> NDArray[np.float64]:
        """float64[n, 2]: true places in other frames of the sequences, posed mm."""
        marks = self.targets_mm[of[situations["case"]], situations["head"]]
        return Poses.of(situations["pose"]).posed(marks)
