"""Position-only replay: a transition is a situation and its action, some 33 bytes.

Observation, reward and next situation are recomputed from the images when a
transition is drawn, so there are no frames that could straddle two episodes, and
none to overwrite. All kinds of replay share one ring; all but the uniform one keep
a 4-byte weight per transition and draw in proportion to it, with replacement.
Transitions may not leave the site.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.errors import InternalError
from common.settings import LearnerSettings
from site_client.agent.states import State
from site_client.agent.task import Situations

Kind = Literal["uniform", "prioritised", "rare-first", "wrong-first"]
ASKING: Final[frozenset[Kind]] = frozenset({"rare-first", "wrong-first"})
"""The kinds that weigh a transition by what is known of its experience."""

_BLOCK = 256
_LEAST_PRIORITY = 1e-3


class Drawn(NamedTuple):
    """A batch out of the replay.

    Attributes:
        slots: int64[n], where in the ring.
        transitions: the situations with the actions taken there.
        importance: float32[n], weights that correct the drawing; the largest is 1.
    """

    slots: NDArray[np.int64]
    transitions: Situations
    importance: NDArray[np.float32]


class BlockSums:
    """Non-negative weights that can be changed and drawn from in O(√capacity).

    Sums over blocks are kept beside the weights and always computed afresh from
    them, so rounding does not accumulate as it does in a tree of running sums.
    """

    def __init__(self, capacity: int) -> None:
        blocks = -(-capacity // _BLOCK)
        self.values = np.zeros(blocks * _BLOCK, np.float32)
        self._sums = np.zeros(blocks)

    def set(self, slots: NDArray[np.int64], weights: NDArray[np.float32]) -> None:
        """Give slots int64[n] their weights float32[n]; of a repeated slot the last counts."""
        self.values[slots] = weights
        touched = np.unique(slots // _BLOCK)
        self._sums[touched] = self.values.reshape(-1, _BLOCK)[touched].sum(axis=1, dtype=np.float64)

    def draw(self, rng: np.random.Generator, n: int) -> NDArray[np.int64]:
        """int64[n]: slots drawn in proportion to their weights, never one of weight 0."""
        total = np.cumsum(self._sums)
        points = rng.random(n) * total[-1]
        # `right`: a draw of exactly a boundary belongs to the next block, never to an empty one.
        block = np.searchsorted(total, points, side="right")
        block = np.minimum(block, np.flatnonzero(self._sums)[-1])
        rest = points - (total[block] - self._sums[block])
        inside = np.cumsum(self.values.reshape(-1, _BLOCK)[block], axis=1, dtype=np.float64)
        # Rounding may leave the rest a hair outside of its block.
        rest = np.clip(rest, 0.0, np.nextafter(inside[:, -1], 0.0))
        return np.asarray(block * _BLOCK + (inside <= rest[:, None]).sum(axis=1), dtype=np.int64)


class Replay:
    """A ring of transitions, drawn uniformly or in proportion to their weights.

    Args:
        dtype: of a situation.
        settings: the kind of replay, its capacity and its exponents.
    """

    def __init__(self, dtype: np.dtype[np.void], settings: LearnerSettings) -> None:
        self.capacity = settings.replay_capacity
        self.kind: Kind = settings.replay
        self._settings = settings
        self._ring: Situations = np.zeros(self.capacity, dtype)
        self._weights = None if self.kind == "uniform" else BlockSums(self.capacity)
        self._largest = 1.0
        self.size = 0
        self._next = 0

    @property
    def transitions(self) -> Situations:
        """The transitions held, in ring order; a view."""
        return self._ring[: self.size]

    @property
    def bytes_per_transition(self) -> float:
        """Memory that one transition costs, the sums over blocks included."""
        weights = 0 if self._weights is None else self._weights.values.nbytes
        return (self._ring.nbytes + weights) / self.capacity

    def add(self, situations: Situations, values: NDArray[np.float64] | None = None) -> None:
        """Store transitions, overwriting the oldest.

        Args:
            situations: situations with their actions.
            values: for ``rare-first``, how often each was counted; once unless told. For
                ``wrong-first``, the mean error of its experience; 1 unless told. A
                prioritised transition is drawn as if its error were the largest seen.
        """
        slots = (self._next + np.arange(len(situations))) % self.capacity
        self._ring[slots] = situations
        if self._weights is not None:
            if self.kind == "prioritised":
                weights = np.full(len(situations), self._largest, np.float32)
            else:
                weights = self._weighed(np.ones(len(situations)) if values is None else values)
            self._weights.set(slots, weights)
        self._next = int((self._next + len(situations)) % self.capacity)
        self.size = min(self.capacity, self.size + len(situations))

    def set_known(self, values: NDArray[np.float64]) -> None:
        """Set what is known of each held transition, as in `add`: float64[size], ring order.

        Replays that do not draw by experience take no notice.

        Raises:
            InternalError: another length.
        """
        if len(values) != self.size:
            raise InternalError(
                "what is known does not fit the replay",
                expected=f"{self.size} values",
                got=str(len(values)),
            )
        if self._weights is not None and self.kind in ASKING:
            self._weights.set(np.arange(self.size), self._weighed(values))

    def set_errors(self, slots: NDArray[np.int64], errors: NDArray[np.floating]) -> None:
        """Tell a prioritised replay the absolute errors float[n] found for drawn slots."""
        if self._weights is None or self.kind != "prioritised":
            return
        priorities = self._priorities(errors)
        self._largest = max(self._largest, float(priorities.max(initial=0.0)))
        self._weights.set(slots, priorities)

    def probabilities(self) -> NDArray[np.float64]:
        """float64[size]: chance of each held transition at the next draw."""
        if self._weights is None:
            return np.full(self.size, 1 / max(1, self.size))
        weight = self._weights.values[: self.size].astype(np.float64)
        weight /= weight.sum()
        return weight

    def sample(self, rng: np.random.Generator, n: int, progress: float = 0.0) -> Drawn:
        """Draw n transitions with replacement.

        Args:
            rng: the source of randomness.
            n: how many.
            progress: 0..1, share of the planned updates that is done; a prioritised
                replay corrects its drawing fully at the end.

        Source of the correction: Schaul et al., Prioritized Experience Replay, ICLR 2016.
        """
        if self._weights is None:
            slots = rng.integers(0, self.size, n)
            return Drawn(slots, self._ring[slots], np.ones(n, np.float32))
        slots = self._weights.draw(rng, n)
        correction = self._weights.values[slots].astype(np.float64) ** -self._exponent(progress)
        importance = (correction / correction.max()).astype(np.float32)
        return Drawn(slots, self._ring[slots], importance)

    def _exponent(self, progress: float) -> float:
        if self.kind in ASKING:
            return self._settings.importance
        beta = self._settings.priority_beta
        return beta + (1 - beta) * min(1.0, progress)

    def _weighed(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """count^-rare_first, or the priority of a mean error.

        A count below 1 is an estimate's error, for the transition was seen here.
        """
        if self.kind == "wrong-first":
            return self._priorities(values)
        rarities = np.maximum(values, 1.0) ** -self._settings.rare_first
        return np.asarray(rarities, dtype=np.float32)

    def _priorities(self, errors: NDArray[np.floating]) -> NDArray[np.float32]:
        priorities = (np.abs(errors) + _LEAST_PRIORITY) ** self._settings.priority_alpha
        return np.asarray(priorities, dtype=np.float32)

    def state_dict(self) -> State:
        """Everything needed to go on exactly, as plain arrays."""
        weights = np.empty(0, np.float32) if self._weights is None else self._weights.values
        return {
            "transitions": np.frombuffer(self.transitions.tobytes(), np.uint8).copy(),
            "weights": weights[: self.size].copy(),
            "next": np.asarray(self._next),
            "largest": np.asarray(self._largest),
        }

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on from `state_dict`.

        Raises:
            InternalError: the state is of another task, capacity or kind of replay.
        """
        raw = np.asarray(state["transitions"], np.uint8)
        weights = np.asarray(state["weights"], np.float32)
        size, rest = divmod(raw.size, self._ring.itemsize)
        if rest or size > self.capacity or len(weights) != (0 if self._weights is None else size):
            raise InternalError(
                "the saved replay does not fit",
                expected=f"at most {self.capacity} transitions of {self.kind} replay",
                got=f"{size} and {len(weights)} weights",
            )
        self.size = size
        self._ring[:size] = np.frombuffer(raw.tobytes(), self._ring.dtype)
        if self._weights is not None:
            self._weights = BlockSums(self.capacity)
            self._weights.set(np.arange(size), weights)
        self._next = int(np.asarray(state["next"]))
        self._largest = float(np.asarray(state["largest"]))
