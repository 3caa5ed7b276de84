"""Learning what each step is worth: searches act, a replay remembers, values are regressed.

`Objective` says towards what, and `Knowledge` what is known of what is remembered.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.settings import LearnerSettings
from site_client.agent import schedules
from site_client.agent.experience import Keys, Knowledge, Lookup, NewExperience
from site_client.agent.keys import ExperienceKeys, codec_of
from site_client.agent.method import Watch, parts_of
from site_client.agent.network import device_of, get_weights, set_weights, to_tensors
from site_client.agent.objective import Objective
from site_client.agent.replay import Drawn, Replay
from site_client.agent.searches import Searches
from site_client.agent.states import State, under
from site_client.agent.task import Situations, Task

# What is known of what is held grows old as more is met; it is looked up again this often.
_UPDATES_PER_LOOK = 100


class QLearning:
    """DQN and its variants, path supervision among them; see `Method`.

    Args:
        task: what is searched for, on which cases.
        network: gives the values of all actions; trained in place by whoever asks.
        settings: how to learn.
        planned: updates that all schedules run over.
        rng: of exploration and sampling.
        keys: names transitions for whoever counts them; None names them only where the
            replay asks what is known of them.
        watch: shown a copy of the transitions of every gradient step.
    """

    def __init__(
        self,
        task: Task,
        network: nn.Module,
        settings: LearnerSettings,
        planned: int,
        rng: np.random.Generator,
        keys: Keys | None,
        watch: Watch | None,
    ) -> None:
        self._task = task
        self._online = network
        self._settings = settings
        self._planned = planned
        self._rng = rng
        self._watch = watch
        self._searches = Searches(task, settings, rng)
        self._replay = Replay(task.situation, settings)
        self._knowledge = Knowledge(
            self._replay,
            keys or ExperienceKeys(task, codec_of(task)),
            tells=keys is not None,
        )
        self._objective = Objective(task, network, settings)
        self._drawn: tuple[Drawn, NDArray[np.floating]] | None = None

    @property
    def held(self) -> int:
        """See `Method`."""
        return self._replay.size

    def epsilon(self, progress: float) -> float:
        """See `Method`."""
        return schedules.epsilon(self._settings, progress)

    def load(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """See `Method`; replay stays.

        The target network becomes the average too: it bootstraps at once from what
        all sites know. Moving it by the same change instead, so that its lag stays,
        made no measurable difference and would keep a site's own past in its targets.
        """
        set_weights(self._objective.target, weights)

    def new_experience(self) -> NewExperience:
        """See `Method`."""
        return self._knowledge.new()

    def ask(self, lookup: Lookup | None, *, looked_up: bool) -> None:
        """See `Method`."""
        self._knowledge.begin(lookup, looked_up=looked_up)

    def begin(self) -> int:
        """Fill the replay as far as it has to be; transitions gathered."""
        gathered = 0
        while self._replay.size < min(self._settings.warmup, self._replay.capacity):
            gathered += self._collect(epsilon=1.0)
        return gathered

    def gather(self, progress: float) -> int:
        """One epsilon-greedy step of every search; returns the transitions gathered."""
        return self._collect(self.epsilon(progress))

    def backward(self, updates: int, progress: float) -> float:
        """See `Method`."""
        if updates and updates % _UPDATES_PER_LOOK == 0:
            self._knowledge.look_again()
        drawn = self._replay.sample(self._rng, self._settings.batch, progress)
        if self._watch is not None:
            self._watch(drawn.transitions.copy())
        n, total, errors = len(drawn.transitions), 0.0, []
        supervised = self._path_supervised(updates)
        for part in parts_of(n, self._online, self._task):
            batch = drawn.transitions[part]
            if supervised:
                losses, gaps = self._objective.of_all_rewards(batch)
            else:
                losses, gaps = self._objective.of_returns(batch)
            weighed = losses * torch.from_numpy(drawn.importance[part]).to(losses.device)
            loss = weighed.mean() if len(batch) == n else weighed.sum() / n
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
            errors.append(gaps.cpu().numpy())
        self._drawn = drawn, np.concatenate(errors)
        return total

    def step_made(self, updates: int) -> None:
        """See `Method`."""
        if self._drawn is not None:
            self._knowledge.judge(*self._drawn)
        self._objective.move_target(updates)

    @torch.no_grad()
    def _collect(self, epsilon: float) -> int:
        """One step of every search, random actions among them; transitions gathered."""
        situations, rng = self._searches.at, self._rng
        actions = rng.integers(0, self._task.actions, situations["action"].shape)
        exploits = rng.random(actions.shape) >= epsilon
        rows = np.flatnonzero(exploits.reshape(len(situations), -1).any(axis=1))
        if rows.size:
            chosen = situations[rows]
            best = self._values_of(chosen).argmax(dim=-1).cpu()
            actions[rows] = np.where(exploits[rows], best.numpy(), actions[rows])
        transitions = self._searches.advance(actions).taken
        self._replay.add(transitions, self._knowledge.of_gathered(transitions))
        return len(transitions)

    def _values_of(self, situations: Situations) -> Tensor:
        seen = self._task.observe(situations)
        values: Tensor = self._online(*to_tensors(seen, situations, device_of(self._online)))
        return values

    def _path_supervised(self, updates: int) -> bool:
        """Tell whether this update regresses the immediate rewards of all actions."""
        settings = self._settings
        return settings.path_supervision_only or updates < settings.warm_start * self._planned

    def state_dict(self) -> State:
        """See `Method`."""
        state: State = {f"replay/{k}": v for k, v in self._replay.state_dict().items()}
        state |= self._knowledge.state_dict()
        state |= self._searches.state_dict()
        state |= {f"target/{k}": v for k, v in get_weights(self._objective.target).items()}
        return state

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """See `Method`."""
        self._searches.load_state(state)
        self._replay.load_state(under("replay/", state))
        self._knowledge.load_state(state)
        target = under("target/", state)
        set_weights(
            self._objective.target, {k: np.asarray(v, np.float32) for k, v in target.items()}
        )
