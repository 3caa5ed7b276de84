"""The DQN learner of one site: acts, remembers, learns, round after round.

One gradient step follows every lockstep of the searches. Targets are Double DQN
over an exponential-moving-average network, the loss is Huber's with importance
weights. A plan may ask for a warm start: the rewards of all actions are known
here, so the first updates may regress them all at once. Given the same plan,
cases, seed and calls, the weights are equal bit for bit, also when the state was
saved and loaded in between.
Sources: Mnih et al., Nature 2015; van Hasselt et al., AAAI 2016.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from common.errors import InternalError
from common.keys import ExperienceCodec
from common.model import Weights, initial_weights
from common.plan import FederationPlan
from site_client.agent.environment import ACTIONS, SITUATION, Scans, Searches, Situations
from site_client.agent.network import TriplanarQ, get_weights, set_weights, to_tensors
from site_client.agent.replay import Replay
from site_client.imaging.dataset import Case

Frequencies = Callable[[NDArray[np.uint64]], NDArray[np.float64]]
Progress = Callable[[int, int], None]
State = dict[str, NDArray[np.generic]]

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class TrainingReport:
    """What one call of `Learner.train` did; numbers only.

    Attributes:
        updates: gradient steps of this call.
        updates_total: gradient steps so far.
        transitions: transitions gathered in this call.
        replay_size: transitions held.
        images: cases trained on.
        loss_mean: mean loss of this call, NaN without updates.
        epsilon: exploration at the end.
        learning_rate: Adam's at the end.
    """

    updates: int
    updates_total: int
    transitions: int
    replay_size: int
    images: int
    loss_mean: float
    epsilon: float
    learning_rate: float

    def as_dict(self) -> dict[str, int | float]:
        """The same for JSON."""
        return asdict(self)


def use_deterministic_torch() -> None:
    """One thread and deterministic kernels: sums in another order give other weights."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)


class Learner:
    """Trains one site's Q-network on its cases.

    Args:
        plan: the federation plan.
        cases: the site's cases; their voxels are copied into one buffer.
        seed: of this site's exploration and sampling; sites should differ.
        progress: called with (updates done, updates of this call).
    """

    def __init__(
        self,
        plan: FederationPlan,
        cases: Sequence[Case],
        seed: int,
        progress: Progress | None = None,
    ) -> None:
        use_deterministic_torch()
        self._plan = plan
        self._agent = plan.agent
        self._planned = max(1, plan.agent.updates * plan.rounds.training)
        self._progress = progress
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._scans = Scans(cases, plan)
        self._searches = Searches(self._scans, plan.agent, self._rng)
        self._replay = Replay(plan.agent)
        self._codec = ExperienceCodec(
            landmarks=len(plan.task.landmarks),
            levels=len(plan.agent.scales),
            actions=ACTIONS,
            position_bins=plan.experience.position_bins,
            reward_bins=plan.experience.reward_bins,
        )
        self._online = TriplanarQ(plan)
        self._target = TriplanarQ(plan).requires_grad_(requires_grad=False)
        self._optimizer = torch.optim.Adam(
            self._online.parameters(), lr=plan.agent.learning_rate, fused=True
        )
        self._updates = 0
        self._new_keys: list[NDArray[np.uint64]] = []
        self._frequencies: Frequencies | None = None
        self.load(initial_weights(plan))

    def load(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Continue from averaged weights; replay and optimiser stay.

        The target network becomes the average too: it bootstraps at once from what
        all sites know. Moving it by the same change instead, so that its lag stays,
        made no measurable difference and would keep a site's own past in its targets.

        Raises:
            InputDataError: the weights are not this plan's.
        """
        set_weights(self._online, weights, self._plan)
        set_weights(self._target, weights, self._plan)

    def weights(self) -> Weights:
        """A copy of the online network's weights."""
        return get_weights(self._online)

    def new_experience_keys(self) -> NDArray[np.uint64]:
        """uint64[n]: keys of the transitions gathered since the last call."""
        keys = np.concatenate([np.empty(0, np.uint64), *self._new_keys])
        self._new_keys = []
        return keys

    def train(self, updates: int, frequencies: Frequencies | None = None) -> TrainingReport:
        """Act and learn.

        Args:
            updates: gradient steps.
            frequencies: estimated count of each key in the whole federation, uint64[n]
                to float64[n]; transitions are then drawn rare-first. None draws
                what is gathered now as if seen once.
        """
        self._frequencies = frequencies
        if frequencies is not None and self._replay.size:
            self._replay.set_frequencies(frequencies(self._keys(self._replay.transitions)))
        gathered = 0
        while self._replay.size < min(self._agent.warmup, self._replay.capacity):
            gathered += self._collect(epsilon=1.0)
        loss = 0.0
        for done in range(1, updates + 1):
            gathered += self._collect(self.epsilon)
            loss += self._update()
            if self._progress is not None:
                self._progress(done, updates)
        self._frequencies = None
        return TrainingReport(
            updates=updates,
            updates_total=self._updates,
            transitions=gathered,
            replay_size=self._replay.size,
            images=len(self._scans),
            loss_mean=loss / updates if updates else float("nan"),
            epsilon=self.epsilon,
            learning_rate=self.learning_rate,
        )

    @property
    def epsilon(self) -> float:
        """Share of random actions: from 1 to ``epsilon_end`` over half the planned updates."""
        done = min(1.0, 2 * self._updates / self._planned)
        return 1 - (1 - self._agent.epsilon_end) * done

    @property
    def learning_rate(self) -> float:
        """Adam's learning rate: linearly to a tenth over the planned updates."""
        return self._agent.learning_rate * (1 - 0.9 * min(1.0, self._updates / self._planned))

    def _keys(self, taken: Situations) -> NDArray[np.uint64]:
        """uint64[n]: what a transition is called in the experience sketch."""
        reached, rewards = self._scans.step(taken)
        keys: NDArray[np.uint64] = self._codec.encode(
            taken["landmark"].astype(np.int64),
            taken["level"].astype(np.int64),
            # The codec names its digits z, y, x, as arrays are indexed.
            self._scans.fractions(taken)[:, ::-1],
            taken["action"].astype(np.int64),
            rewards.astype(np.float64),
            self._scans.fractions(reached)[:, ::-1],
        )
        return keys

    @torch.no_grad()
    def _collect(self, epsilon: float) -> int:
        """One epsilon-greedy step of every search; returns the transitions gathered."""
        at = self._searches.at
        actions = self._rng.integers(0, ACTIONS, len(at))
        greedy = np.flatnonzero(self._rng.random(len(at)) >= epsilon)
        if greedy.size:
            chosen = at[greedy]
            values = self._online(*to_tensors(self._scans.observe(chosen), chosen))
            actions[greedy] = values.argmax(dim=1).numpy()
        taken, _ = self._searches.advance(actions)
        keys = self._keys(taken)
        self._new_keys.append(keys)
        self._replay.add(taken, None if self._frequencies is None else self._frequencies(keys))
        return len(taken)

    def _update(self) -> float:
        """One gradient step; returns its loss."""
        s_tm1, importance = self._replay.sample(self._rng, self._agent.batch)
        values = self._online(*to_tensors(self._scans.observe(s_tm1), s_tm1))
        if self._updates < self._agent.warm_start * self._planned:
            rewards = torch.from_numpy(self._scans.rewards_of_all(s_tm1))
            losses = functional.smooth_l1_loss(values, rewards, reduction="none").mean(dim=1)
        else:
            actions = torch.from_numpy(s_tm1["action"].astype(np.int64))
            chosen = values.gather(1, actions[:, None])[:, 0]
            losses = functional.smooth_l1_loss(chosen, self._returns(s_tm1), reduction="none")
        loss = (losses * torch.from_numpy(importance)).mean()
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._online.parameters(), self._agent.gradient_clip)
        self._optimizer.step()
        with torch.no_grad():
            pairs = zip(self._target.parameters(), self._online.parameters(), strict=True)
            for target, online in pairs:
                target.lerp_(online, self._agent.target_decay)
        self._updates += 1
        return float(loss.detach())

    @torch.no_grad()
    def _returns(self, s_tm1: Situations) -> torch.Tensor:
        """float32[n]: reward plus discounted value of what is reached; nothing is terminal."""
        s_t, rewards = self._scans.step(s_tm1)
        inputs = to_tensors(self._scans.observe(s_t), s_t)
        values: torch.Tensor = self._target(*inputs)
        if self._agent.double:
            best = self._online(*inputs).argmax(dim=1)
            reached = values.gather(1, best[:, None])[:, 0]
        else:
            reached = values.max(dim=1).values
        return torch.from_numpy(rewards) + self._agent.gamma * reached

    def state_dict(self) -> State:
        """Everything needed to go on exactly, as a flat dict of plain numpy arrays."""
        state: State = {f"replay/{k}": np.asarray(v) for k, v in self._replay.state_dict().items()}
        state["searches/at"] = np.frombuffer(self._searches.at.tobytes(), np.uint8).copy()
        state["searches/age"] = self._searches.age.copy()
        state["rng"] = _rng_words(self._rng)
        state["updates"] = np.asarray(self._updates)
        state["new_keys"] = np.concatenate([np.empty(0, np.uint64), *self._new_keys])
        for prefix, network in (("online", self._online), ("target", self._target)):
            state.update({f"{prefix}/{k}": v for k, v in get_weights(network).items()})
        for name, parameter in self._online.named_parameters():
            moments = self._optimizer.state.get(parameter, {})
            for moment in _MOMENTS:
                if moment in moments:
                    state[f"adam/{moment}/{name}"] = moments[moment].numpy().copy()
        return state

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on from `state_dict`, with the same plan and cases.

        Raises:
            InternalError: the state belongs to another plan.
            InputDataError: its weights are not this plan's.
        """
        at = np.frombuffer(np.asarray(state["searches/at"], np.uint8).tobytes(), SITUATION)
        if len(at) != self._agent.searches or int(at["case"].max()) >= len(self._scans):
            raise InternalError(
                "the saved state does not fit",
                expected=f"{self._agent.searches} searches over {len(self._scans)} cases",
                got=f"{len(at)} searches",
            )
        self._searches.at = at.copy()
        self._searches.age = np.array(state["searches/age"], dtype=np.int64)
        self._replay.load_state(
            {k.removeprefix("replay/"): v for k, v in state.items() if k.startswith("replay/")}
        )
        _set_rng_words(self._rng, np.asarray(state["rng"], np.uint64))
        self._updates = int(state["updates"])
        self._new_keys = [np.array(state["new_keys"], dtype=np.uint64)]
        for prefix, network in (("online/", self._online), ("target/", self._target)):
            set_weights(
                network,
                {
                    k.removeprefix(prefix): np.asarray(v, np.float32)
                    for k, v in state.items()
                    if k.startswith(prefix)
                },
                self._plan,
            )
        self._optimizer.state.clear()
        for name, parameter in self._online.named_parameters():
            moments = {
                moment: torch.from_numpy(np.array(state[f"adam/{moment}/{name}"]))
                for moment in _MOMENTS
                if f"adam/{moment}/{name}" in state
            }
            if moments:
                self._optimizer.state[parameter] = moments


def _rng_words(rng: np.random.Generator) -> NDArray[np.uint64]:
    """uint64[6]: the state of a PCG64 generator."""
    outer = rng.bit_generator.state
    inner, low = outer["state"], (1 << 64) - 1
    words = [inner["state"] >> 64, inner["state"] & low, inner["inc"] >> 64, inner["inc"] & low]
    return np.array([*words, outer["has_uint32"], outer["uinteger"]], dtype=np.uint64)


def _set_rng_words(rng: np.random.Generator, words: NDArray[np.uint64]) -> None:
    """Put a PCG64 generator back to `_rng_words`."""
    state_high, state_low, inc_high, inc_low, has_uint32, uinteger = (int(w) for w in words)
    rng.bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": state_high << 64 | state_low, "inc": inc_high << 64 | inc_low},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
