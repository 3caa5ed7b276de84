"""Position-only replay: a transition is a situation and its action, 33 bytes and a 4-byte weight.

Observation, reward and next situation are recomputed from the volumes when a
transition is drawn. Rare-first drawing: the probability falls with how often
the transition's key was counted, and importance weights correct for it.
Transitions may not leave the site.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.errors import InternalError
from common.plan import Agent
from site_client.agent.environment import SITUATION, Situations


class Replay:
    """A ring of transitions, drawn with replacement in proportion to their weights."""

    def __init__(self, agent: Agent) -> None:
        self.capacity = agent.replay_capacity
        self._rare_first = agent.rare_first
        self._importance = agent.importance
        self._ring: Situations = np.zeros(self.capacity, SITUATION)
        self._weight = np.ones(self.capacity, np.float32)
        self.size = 0
        self._next = 0

    @property
    def transitions(self) -> Situations:
        """The transitions held, in ring order; a view."""
        return self._ring[: self.size]

    def add(self, taken: Situations, frequencies: NDArray[np.float64] | None = None) -> None:
        """Store transitions, overwriting the oldest; each counts as seen once unless told."""
        slots = (self._next + np.arange(len(taken))) % self.capacity
        self._ring[slots] = taken
        counts = np.ones(len(taken)) if frequencies is None else frequencies
        self._weight[slots] = self._weights_of(counts)
        self._next = int((self._next + len(taken)) % self.capacity)
        self.size = min(self.capacity, self.size + len(taken))

    def set_frequencies(self, counts: NDArray[np.float64]) -> None:
        """Set how often each held transition was counted: float64[size], ring order.

        Raises:
            InternalError: another length.
        """
        if len(counts) != self.size:
            raise InternalError(
                "frequencies do not fit the replay",
                expected=f"{self.size} values",
                got=str(len(counts)),
            )
        self._weight[: self.size] = self._weights_of(counts)

    def probabilities(self) -> NDArray[np.float64]:
        """float64[size]: chance of each held transition at the next draw."""
        weight = self._weight[: self.size].astype(np.float64)
        weight /= weight.sum()
        return weight

    def sample(self, rng: np.random.Generator, n: int) -> tuple[Situations, NDArray[np.float32]]:
        """Draw n transitions and their importance weights float32[n], the largest being 1.

        Source of the correction: Schaul et al., Prioritized Experience Replay, ICLR 2016.
        """
        if self._rare_first == 0:
            drawn = rng.integers(0, self.size, n)
            return self._ring[drawn], np.ones(n, np.float32)
        total = np.cumsum(self._weight[: self.size], dtype=np.float64)
        # `right`: a draw of exactly a boundary belongs to the next transition, never to a zero.
        drawn = np.searchsorted(total, rng.random(n) * total[-1], side="right")
        drawn = np.minimum(drawn, self.size - 1)
        correction = self._weight[drawn].astype(np.float64) ** -self._importance
        return self._ring[drawn], (correction / correction.max()).astype(np.float32)

    def _weights_of(self, counts: NDArray[np.float64]) -> NDArray[np.float32]:
        """count^-rare_first; an estimate below 1 counts as 1, for the transition was seen here."""
        weights: NDArray[np.float32] = (np.maximum(counts, 1.0) ** -self._rare_first).astype(
            np.float32
        )
        return weights

    def state_dict(self) -> dict[str, NDArray[np.generic] | int]:
        """Everything needed to go on exactly, as plain arrays and integers."""
        return {
            "transitions": np.frombuffer(self.transitions.tobytes(), np.uint8).copy(),
            "weights": self._weight[: self.size].copy(),
            "next": self._next,
        }

    def load_state(self, state: dict[str, NDArray[np.generic] | int]) -> None:
        """Go on from `state_dict`.

        Raises:
            InternalError: the state does not fit this capacity.
        """
        raw, weights, following = state["transitions"], state["weights"], state["next"]
        held = np.frombuffer(np.asarray(raw, np.uint8).tobytes(), SITUATION)
        if len(held) > self.capacity or len(held) != np.size(weights):
            raise InternalError(
                "the saved replay does not fit",
                expected=f"at most {self.capacity} transitions, one weight each",
                got=f"{len(held)} and {np.size(weights)}",
            )
        self.size = len(held)
        self._ring[: self.size] = held
        self._weight[: self.size] = weights
        self._next = int(np.asarray(following))
