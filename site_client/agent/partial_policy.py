"""Partial policies: an actor and a critic for every axis, all axes moved at once.

A network gives two numbers per axis, as it does for DQN: their difference is the
log-odds of going along the axis rather than against it, their mean is what the critic
expects of that axis. So an actor-critic has the parameters of a Q-network, and no others.
The reward of an axis is that of its own step, and the axes step one after the other.

States are remembered and actions are not: at a state drawn from the replay the policy acts
anew, which costs a step of the search and needs no correction for an older policy's choice.
Sources: Al & Yun, Partial Policy-Based Reinforcement Learning for Anatomical Landmark
Localization in 3D Medical Images, IEEE TMI 2020; Mnih et al., ICML 2016, for the entropy.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from common.settings import LearnerSettings
from site_client.agent.axes import move_all_axes
from site_client.agent.experience import Lookup, NewExperience
from site_client.agent.method import Watch, parts_of
from site_client.agent.network import device_of, get_weights, set_weights, to_tensors
from site_client.agent.networks.base import QNetwork
from site_client.agent.objective import Objective
from site_client.agent.replay import Replay
from site_client.agent.searches import Searches
from site_client.agent.states import State, under
from site_client.agent.task import Situations, Task


def by_axis(values: Tensor) -> Tensor:
    """[n[, agents], axes, 2] of a network's values [n[, agents], 2 * axes]."""
    return values.reshape(*values.shape[:-1], -1, 2)


class PartialPolicy:
    """Actor-critic with a policy per axis; see `Method`.

    Args:
        task: what is searched for, on which cases.
        network: trained in place by whoever asks.
        settings: how to learn.
        planned: updates that all schedules run over.
        rng: of exploration and sampling.
        watch: shown a copy of the states of every gradient step.
    """

    def __init__(
        self,
        task: Task,
        network: QNetwork,
        settings: LearnerSettings,
        planned: int,
        rng: np.random.Generator,
        watch: Watch | None,
    ) -> None:
        network.moves_all_axes = True
        self._task, self._online, self._settings = task, network, settings
        self._planned, self._rng, self._watch = planned, rng, watch
        self._searches = Searches(task, settings, rng)
        self._replay = Replay(task.situation, settings)
        self._objective = Objective(task, network, settings)

    @property
    def held(self) -> int:
        """See `Method`."""
        return self._replay.size

    def epsilon(self, progress: float) -> float:
        """See `Method`: the policy itself is random."""
        del progress
        return 0.0

    def begin(self) -> int:
        """Fill the replay by going anywhere; transitions gathered."""
        gathered = 0
        shape = (*self._searches.at["action"].shape, self._task.actions // 2)
        while self._replay.size < min(self._settings.warmup, self._replay.capacity):
            gathered += self._advance(self._rng.random(shape) < 0.5)
        return gathered

    @torch.no_grad()
    def gather(self, progress: float) -> int:
        """One step of every search, as the policy acts; returns the transitions gathered."""
        del progress
        return self._advance(self._act(_outputs(self._task, self._online, self._searches.at)))

    def backward(self, updates: int, progress: float) -> float:
        """See `Method`."""
        drawn = self._replay.sample(self._rng, self._settings.batch, progress)
        if self._watch is not None:
            self._watch(drawn.transitions.copy())
        n, total = len(drawn.transitions), 0.0
        supervised = self._settings.path_supervision_only or (
            updates < self._settings.warm_start * self._planned
        )
        for part in parts_of(n, self._online, self._task):
            s_tm1 = drawn.transitions[part]
            if supervised:
                losses = better_step_losses(self._task, self._online, s_tm1, self._settings.loss)
            else:
                losses = self._acted(s_tm1)
            loss = losses.sum() / (n * losses[0].numel())
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    def _acted(self, s_tm1: Situations) -> Tensor:
        """[n[, agents], axes]: losses of actor and critic at states where the policy acts now."""
        outputs = _outputs(self._task, self._online, s_tm1)
        with torch.no_grad():
            against = self._act(outputs)
            s_t, rewards, ended = move_all_axes(self._task, s_tm1, against)
            inputs = to_tensors(self._task.observe(s_t), s_t, outputs.device)
            expected = by_axis(self._objective.target(*inputs)).mean(dim=-1)
            going = self._on_device(~ended).view(-1, *(1,) * (expected.ndim - 1))
            r_t = self._on_device(rewards)
            returns = r_t + self._settings.gamma * expected * going
        critic = outputs.mean(dim=-1)
        logs = functional.log_softmax(outputs, dim=-1)
        chosen = self._on_device(against.astype(np.int64))[..., None]
        advantage = returns - critic.detach()
        actor = -logs.gather(-1, chosen)[..., 0] * advantage
        entropy = -(logs.exp() * logs).sum(dim=-1)
        return (
            _error(critic, returns, self._settings.loss) + actor - self._settings.entropy * entropy
        )

    def _act(self, outputs: Tensor) -> NDArray[np.bool_]:
        """bool[n[, agents], axes]: whether each policy, asked once, goes against its axis."""
        chances = outputs.detach().softmax(dim=-1)[..., 1].cpu().numpy()
        return np.asarray(self._rng.random(chances.shape) < chances)

    def _advance(self, against: NDArray[np.bool_]) -> int:
        """Move all searches and remember where they were."""
        states = self._searches.at.copy()
        states["action"] = 0
        moved = move_all_axes(self._task, states, against)
        self._searches.arrive(moved.reached, moved.ended)
        self._replay.add(states)
        return len(states)

    def _on_device(self, array: NDArray[np.generic]) -> Tensor:
        """Give an array to where the network computes."""
        return torch.from_numpy(array).to(device_of(self._online))

    def step_made(self, updates: int) -> None:
        """See `Method`."""
        self._objective.move_target(updates)

    def load(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """See `Method`; what is remembered stays, and the target becomes the average."""
        set_weights(self._objective.target, weights)

    def ask(self, lookup: Lookup | None, *, looked_up: bool) -> None:
        """See `Method`: what is drawn does not depend on how rare or wrong it is."""

    def new_experience(self) -> NewExperience:
        """See `Method`: no experience is counted."""
        return NewExperience(np.empty(0, np.uint64), np.empty(0, np.int64))

    def state_dict(self) -> State:
        """See `Method`."""
        state: State = {f"replay/{k}": v for k, v in self._replay.state_dict().items()}
        state |= self._searches.state_dict()
        return state | {f"target/{k}": v for k, v in get_weights(self._objective.target).items()}

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """See `Method`."""
        self._searches.load_state(state)
        self._replay.load_state(under("replay/", state))
        target = under("target/", state)
        set_weights(
            self._objective.target, {k: np.asarray(v, np.float32) for k, v in target.items()}
        )


def better_step_losses(task: Task, network: QNetwork, situations: Situations, loss: str) -> Tensor:
    """Give [n[, agents], axes]: losses against the better step of each axis, and its reward.

    Args:
        task: knows the rewards of both.
        network: whose values are a policy per axis.
        situations: where.
        loss: of the critic, ``huber`` or ``squared``.
    """
    outputs = _outputs(task, network, situations)
    rewards = by_axis(torch.from_numpy(task.rewards_of_all(situations)).to(outputs.device))
    best = rewards.max(dim=-1)
    logs = functional.log_softmax(outputs, dim=-1)
    actor = -logs.gather(-1, best.indices[..., None])[..., 0]
    return _error(outputs.mean(dim=-1), best.values, loss) + actor


def _outputs(task: Task, network: QNetwork, situations: Situations) -> Tensor:
    """Two numbers per axis, [n[, agents], axes, 2], of a network that looks at situations."""
    seen = task.observe(situations)
    return by_axis(network(*to_tensors(seen, situations, device_of(network))))


def _error(values: Tensor, targets: Tensor, loss: str) -> Tensor:
    """Losses of a critic, one each."""
    if loss == "huber":
        return functional.smooth_l1_loss(values, targets, reduction="none")
    return functional.mse_loss(values, targets, reduction="none")
