"""Targets that values are regressed to: returns with a target network, or all rewards at once.

DQN or Double DQN (whether the network duels is the network's affair) over a slow or
a copied target network. Tasks know the rewards of all actions, so an update may
regress those instead (path supervision, no bootstrap). Nothing here acts, draws or
takes a gradient step.
Sources: Mnih et al., Nature 2015; van Hasselt et al., AAAI 2016.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from common.settings import LearnerSettings
from site_client.agent.network import device_of, to_tensors
from site_client.agent.task import Situations, Task


class Objective:
    """Losses of an online network on a task's transitions, and its target network.

    Args:
        task: what is searched for.
        online: the network that is trained.
        settings: discount, kind of loss and of target.

    Attributes:
        target: starts as a copy of the online network.
    """

    def __init__(self, task: Task, online: nn.Module, settings: LearnerSettings) -> None:
        self._task = task
        self._online = online
        self._device = device_of(online)
        self._settings = settings
        self.target: nn.Module = copy.deepcopy(online).requires_grad_(requires_grad=False)

    def of_returns(self, s_tm1: Situations) -> tuple[Tensor, Tensor]:
        """Losses of the values of the actions taken, against their returns.

        Returns:
            (float32[n] losses with a gradient, float32[n] absolute errors); agents are
            averaged.
        """
        actions = self._moved(s_tm1["action"].astype(np.int64))
        values = self._values(s_tm1).gather(-1, actions[..., None])[..., 0]
        return self._losses(values, self.returns(s_tm1))

    def of_all_rewards(self, s_tm1: Situations) -> tuple[Tensor, Tensor]:
        """Losses of the values of all actions, against what each would earn at once.

        Returns:
            as `of_returns`; actions are averaged, too.
        """
        return self._losses(self._values(s_tm1), self._moved(self._task.rewards_of_all(s_tm1)))

    @torch.no_grad()
    def returns(self, s_tm1: Situations) -> Tensor:
        """float32[n[, agents]]: reward, plus the discounted value of what did not end."""
        s_t, rewards, ended = self._task.step(s_tm1)
        inputs = to_tensors(self._task.observe(s_t), s_t, self._device)
        values: Tensor = self.target(*inputs)
        if self._settings.double:
            best = self._online(*inputs).argmax(dim=-1)
            reached = values.gather(-1, best[..., None])[..., 0]
        else:
            reached = values.max(dim=-1).values
        returns = self._moved(rewards) + self._settings.gamma * reached
        if ended.any():
            over = np.flatnonzero(ended)
            returns[over] = self._moved(rewards[over])
        return returns

    @torch.no_grad()
    def move_target(self, updates: int) -> None:
        """Let the target follow, or copy the online network when its time has come.

        Args:
            updates: gradient steps so far, the latest included.
        """
        settings = self._settings
        if settings.target == "hard" and updates % settings.target_period:
            return
        share = settings.target_decay if settings.target == "ema" else 1.0
        pairs = zip(self.target.parameters(), self._online.parameters(), strict=True)
        for target, online in pairs:
            target.lerp_(online, share)

    def _values(self, situations: Situations) -> Tensor:
        seen = self._task.observe(situations)
        values: Tensor = self._online(*to_tensors(seen, situations, self._device))
        return values

    def _moved(self, array: NDArray[np.generic]) -> Tensor:
        """Give an array to where the network computes."""
        return torch.from_numpy(array).to(self._device)

    def _losses(self, values: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if self._settings.loss == "huber":
            losses = functional.smooth_l1_loss(values, targets, reduction="none")
        else:
            losses = functional.mse_loss(values, targets, reduction="none")
        errors = (values.detach() - targets).abs()
        if losses.ndim > 1:
            losses, errors = losses.flatten(1).mean(dim=1), errors.flatten(1).mean(dim=1)
        return losses, errors
