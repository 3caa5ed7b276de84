"""The learner of any task: gathers and learns, as often as it is asked to.

Its `Method` says what is gathered and which way a gradient goes. Given the same task,
first weights, settings, seed and calls, the weights are equal bit for bit, also when the
state was saved and loaded in between, and ``train(a)`` followed by ``train(b)`` is
``train(a + b)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.errors import InternalError
from common.model import Weights
from common.settings import LearnerSettings
from site_client.agent import schedules
from site_client.agent.displacement import Displacement
from site_client.agent.experience import Keys, Lookup, NewExperience
from site_client.agent.method import Method, Watch
from site_client.agent.network import get_weights, set_weights, use_deterministic_torch
from site_client.agent.networks.base import QNetwork
from site_client.agent.optimiser_state import load_optimizer, optimizer_state
from site_client.agent.partial_policy import PartialPolicy
from site_client.agent.q_learning import QLearning
from site_client.agent.states import State, rng_words, set_rng_words, under
from site_client.agent.task import Task, by_displacement

Progress = Callable[[int, int], None]
GoesOn = Callable[["SoFar"], bool]


@dataclass(frozen=True)
class TrainingReport:
    """The figures of one call of `Learner.train`; numbers only.

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


@dataclass(frozen=True)
class SoFar:
    """The part of a call of `Learner.train` that is done.

    Attributes:
        updates: gradient steps.
        transitions: gathered.
        loss: sum over the steps.
    """

    updates: int = 0
    transitions: int = 0
    loss: float = 0.0


class Learner:
    """Trains one network on one task.

    Args:
        task: what is searched for, on which cases.
        network: takes (observations float32[n[, agents], *shape] in 0..1, level int64[n],
            head int64[n]) to values float32[n[, agents], actions]; its weights are the
            first weights, and it is trained in place.
        settings: how to learn.
        seed: of exploration and sampling; the sites of a federation differ in it.
        planned_updates: what all schedules run over; the settings' updates unless told.
        progress: called with (updates done, updates of this call); may raise to leave.
        keys: names transitions for whoever counts them (`new_experience`). A learner
            without it names them only where its replay asks what is known of them.
        watch: shown a copy of the transitions of every gradient step; it has no say in it.
        threads: of torch; another number gives other weights.

    Raises:
        InternalError: the task is not stepped as the settings' method learns.
    """

    def __init__(
        self,
        task: Task,
        network: nn.Module,
        settings: LearnerSettings,
        seed: int,
        *,
        planned_updates: int | None = None,
        progress: Progress | None = None,
        keys: Keys | None = None,
        watch: Watch | None = None,
        threads: int = 1,
    ) -> None:
        use_deterministic_torch(threads)
        self._threads = threads
        self._task = task
        self._settings = settings
        self._planned = max(1, settings.updates if planned_updates is None else planned_updates)
        self._progress = progress
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._online = network
        self._method = self._method_with(keys, watch)
        self._optimizer = torch.optim.Adam(
            network.parameters(), lr=settings.learning_rate, fused=True
        )
        self._updates = 0

    def _method_with(self, keys: Keys | None, watch: Watch | None) -> Method:
        """Make the settings' method; see `Learner` for what may be wrong."""
        task, network, settings, rng = self._task, self._online, self._settings, self._rng
        if settings.method == "dqn" and not by_displacement(task):
            return QLearning(task, network, settings, self._planned, rng, keys, watch)
        if (
            settings.method == "partial-policy"
            and not by_displacement(task)
            and isinstance(network, QNetwork)
        ):
            return PartialPolicy(task, network, settings, self._planned, rng, watch)
        if (
            settings.method == "displacement"
            and by_displacement(task)
            and isinstance(network, QNetwork)
        ):
            return Displacement(task, network, settings, rng, watch)
        raise InternalError(
            "the task is not stepped as its learner learns",
            expected=f"a task and a network for {settings.method}",
            got=type(task).__name__,
        )

    @property
    def network(self) -> nn.Module:
        """The online network itself, as it is now."""
        return self._online

    @property
    def updates(self) -> int:
        """Gradient steps so far."""
        return self._updates

    @property
    def progress(self) -> float:
        """Share of the planned updates that is done; may pass 1."""
        return self._updates / self._planned

    @property
    def epsilon(self) -> float:
        """Share of random actions now."""
        return self._method.epsilon(self.progress)

    @property
    def learning_rate(self) -> float:
        """Adam's learning rate now."""
        return schedules.learning_rate(self._settings, self.progress)

    def load(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Continue from averaged weights; what is remembered and the optimiser stay.

        Raises:
            InputDataError: the weights are another network's.
        """
        set_weights(self._online, weights)
        self._method.load(weights)

    def weights(self) -> Weights:
        """A copy of the online network's weights."""
        return get_weights(self._online)

    def new_experience(self) -> NewExperience:
        """Keys of the transitions gathered since the last call.

        Of ``wrong-first`` replay: of the transitions replayed since then, and their errors.
        """
        return self._method.new_experience()

    def train(
        self,
        updates: int,
        lookup: Lookup | None = None,
        *,
        sofar: SoFar | None = None,
        goes_on: GoesOn | None = None,
    ) -> TrainingReport:
        """Gather and learn.

        Args:
            updates: gradient steps.
            lookup: what the whole federation knows of each key, uint64[n] to float64[n]:
                for rare-first replay its estimated count, for wrong-first its mean error;
                asked at once about what is held, then about what is gathered. Without
                it, what this learner met by itself counts, exactly.
            sofar: what of this very call was done before the state was saved that has been
                loaded since; the steps that are left are made, and the report is of all.
            goes_on: asked after every step; no ends the call with the steps made.
        """
        # Somebody else may have evaluated in between.
        use_deterministic_torch(self._threads)
        self._method.ask(lookup, looked_up=sofar is not None)
        if sofar is None:
            sofar = SoFar(transitions=self._method.begin())
        while sofar.updates < updates:
            gathered = self._method.gather(self.progress)
            loss = self._update()
            sofar = SoFar(sofar.updates + 1, sofar.transitions + gathered, sofar.loss + loss)
            if self._progress is not None:
                self._progress(sofar.updates, updates)
            if goes_on is not None and not goes_on(sofar):
                break
        self._method.ask(None, looked_up=True)
        return TrainingReport(
            updates=sofar.updates,
            updates_total=self._updates,
            transitions=sofar.transitions,
            replay_size=self._method.held,
            images=len(self._task),
            loss_mean=sofar.loss / sofar.updates if sofar.updates else float("nan"),
            epsilon=self.epsilon,
            learning_rate=self.learning_rate,
        )

    def _update(self) -> float:
        """One gradient step; returns its loss."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate
        self._optimizer.zero_grad()
        loss = self._method.backward(self._updates, self.progress)
        nn.utils.clip_grad_norm_(self._online.parameters(), self._settings.gradient_clip)
        self._optimizer.step()
        self._updates += 1
        self._method.step_made(self._updates)
        return loss

    def state_dict(self) -> State:
        """Everything needed to go on exactly, as a flat dict of plain numpy arrays."""
        state = self._method.state_dict()
        state["rng"] = rng_words(self._rng)
        state["updates"] = np.asarray(self._updates)
        state |= {f"online/{k}": v for k, v in get_weights(self._online).items()}
        return state | optimizer_state(self._optimizer, self._online)

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on from `state_dict`, with the same task and settings.

        Raises:
            InternalError: the state belongs to another task or other settings.
            InputDataError: its weights are another network's.
        """
        self._method.load_state(state)
        set_rng_words(self._rng, np.asarray(state["rng"], np.uint64))
        self._updates = int(state["updates"])
        online = under("online/", state)
        set_weights(self._online, {k: np.asarray(v, np.float32) for k, v in online.items()})
        load_optimizer(self._optimizer, self._online, state)
