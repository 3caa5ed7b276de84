"""The learner of any task: acts, remembers, learns, as often as it is asked to.

One gradient step follows every lockstep of the searches; `Objective` says towards
what. Given the same task, first weights, settings, seed and calls, the weights are
equal bit for bit, also when the state was saved and loaded in between, and
``train(a)`` followed by ``train(b)`` is ``train(a + b)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.errors import InternalError
from common.model import Weights
from common.settings import LearnerSettings
from site_client.agent import schedules
from site_client.agent.experience import Keys, Knowledge, Known, NewExperience
from site_client.agent.keys import ExperienceKeys, codec_of
from site_client.agent.network import (
    device_of,
    get_weights,
    set_weights,
    to_tensors,
    use_deterministic_torch,
)
from site_client.agent.networks.base import QNetwork
from site_client.agent.objective import Objective
from site_client.agent.replay import Drawn, Replay
from site_client.agent.searches import Searches
from site_client.agent.states import (
    State,
    load_optimizer,
    optimizer_state,
    rng_words,
    set_rng_words,
    under,
)
from site_client.agent.task import Situations, Task

Progress = Callable[[int, int], None]
Watch = Callable[[Situations], None]
GoesOn = Callable[["SoFar"], bool]

# What is known of what is held grows old as more is met; it is looked up again this often.
_UPDATES_PER_LOOK = 100


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
    """Trains one Q-network on one task.

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
        self._watch = watch
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._searches = Searches(task, settings, self._rng)
        self._replay = Replay(task.situation, settings)
        self._knowledge = Knowledge(
            self._replay,
            keys or ExperienceKeys(task, codec_of(task)),
            tells=keys is not None,
        )
        self._online = network
        self._objective = Objective(task, network, settings)
        self._optimizer = torch.optim.Adam(
            network.parameters(), lr=settings.learning_rate, fused=True
        )
        self._updates = 0

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
        return schedules.epsilon(self._settings, self.progress)

    @property
    def learning_rate(self) -> float:
        """Adam's learning rate now."""
        return schedules.learning_rate(self._settings, self.progress)

    def load(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Continue from averaged weights; replay and optimiser stay.

        The target network becomes the average too: it bootstraps at once from what
        all sites know. Moving it by the same change instead, so that its lag stays,
        made no measurable difference and would keep a site's own past in its targets.

        Raises:
            InputDataError: the weights are another network's.
        """
        set_weights(self._online, weights)
        set_weights(self._objective.target, weights)

    def weights(self) -> Weights:
        """A copy of the online network's weights."""
        return get_weights(self._online)

    def new_experience(self) -> NewExperience:
        """Keys of the transitions gathered since the last call.

        Of ``wrong-first`` replay: of the transitions replayed since then, and their errors.
        """
        return self._knowledge.new()

    def train(
        self,
        updates: int,
        known: Known | None = None,
        *,
        sofar: SoFar | None = None,
        goes_on: GoesOn | None = None,
    ) -> TrainingReport:
        """Act and learn.

        Args:
            updates: gradient steps.
            known: what the whole federation knows of each key, uint64[n] to float64[n]:
                for rare-first replay its estimated count, for wrong-first its mean error;
                asked at once about what is held, then about what is gathered. Without
                it, what this learner met by itself counts, exactly.
            sofar: what of this very call was done before the state was saved that has been
                loaded since; the steps that are left are made, and the report is of all.
            goes_on: asked after every step; no ends the call with the steps made.
        """
        # Somebody else may have evaluated in between.
        use_deterministic_torch(self._threads)
        self._knowledge.begin(known, looked_up=sofar is not None)
        if sofar is None:
            sofar = SoFar(transitions=self._warm_up())
        while sofar.updates < updates:
            gathered = self._collect(self.epsilon)
            loss = self._update()
            sofar = SoFar(sofar.updates + 1, sofar.transitions + gathered, sofar.loss + loss)
            if self._progress is not None:
                self._progress(sofar.updates, updates)
            if goes_on is not None and not goes_on(sofar):
                break
        self._knowledge.end()
        return TrainingReport(
            updates=sofar.updates,
            updates_total=self._updates,
            transitions=sofar.transitions,
            replay_size=self._replay.size,
            images=len(self._task),
            loss_mean=sofar.loss / sofar.updates if sofar.updates else float("nan"),
            epsilon=self.epsilon,
            learning_rate=self.learning_rate,
        )

    def _warm_up(self) -> int:
        """Fill the replay as far as it has to be; transitions gathered."""
        gathered = 0
        while self._replay.size < min(self._settings.warmup, self._replay.capacity):
            gathered += self._collect(epsilon=1.0)
        return gathered

    @torch.no_grad()
    def _collect(self, epsilon: float) -> int:
        """One epsilon-greedy step of every search; returns the transitions gathered."""
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

    def _update(self) -> float:
        """One gradient step; returns its loss."""
        if self._updates and self._updates % _UPDATES_PER_LOOK == 0:
            self._knowledge.look_again()
        drawn = self._replay.sample(self._rng, self._settings.batch, self.progress)
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate
        if self._watch is not None:
            self._watch(drawn.transitions.copy())
        self._optimizer.zero_grad()
        loss, errors = self._backward(drawn)
        nn.utils.clip_grad_norm_(self._online.parameters(), self._settings.gradient_clip)
        self._optimizer.step()
        self._knowledge.judge(drawn, errors)
        self._updates += 1
        self._objective.move_target(self._updates)
        return loss

    def _backward(self, drawn: Drawn) -> tuple[float, NDArray[np.floating]]:
        """Add the gradients of the mean loss; returns it and the absolute errors float[n].

        In parts where the network remembers too much of each row for all at once: the
        gradients of the parts add up to that of the whole.
        """
        n = len(drawn.transitions)
        at_once = n
        if isinstance(self._online, QNetwork) and self._online.gradient_rows is not None:
            at_once = max(1, self._online.gradient_rows // self._task.agents)
        total, errors = 0.0, []
        for begin in range(0, n, at_once):
            part = slice(begin, begin + at_once)
            batch = drawn.transitions[part]
            if self._path_supervised():
                losses, gaps = self._objective.of_all_rewards(batch)
            else:
                losses, gaps = self._objective.of_returns(batch)
            weighed = losses * torch.from_numpy(drawn.importance[part]).to(losses.device)
            loss = weighed.mean() if at_once >= n else weighed.sum() / n
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
            errors.append(gaps.cpu().numpy())
        return total, np.concatenate(errors)

    def _path_supervised(self) -> bool:
        """Tell whether this update regresses the immediate rewards of all actions."""
        settings = self._settings
        return settings.path_supervision_only or self._updates < settings.warm_start * self._planned

    def state_dict(self) -> State:
        """Everything needed to go on exactly, as a flat dict of plain numpy arrays."""
        state: State = {f"replay/{k}": v for k, v in self._replay.state_dict().items()}
        state |= self._knowledge.state_dict()
        state["searches/at"] = np.frombuffer(self._searches.at.tobytes(), np.uint8).copy()
        state["searches/age"] = self._searches.age.copy()
        state["rng"] = rng_words(self._rng)
        state["updates"] = np.asarray(self._updates)
        for prefix, network in (("online", self._online), ("target", self._objective.target)):
            state.update({f"{prefix}/{k}": v for k, v in get_weights(network).items()})
        state.update(optimizer_state(self._optimizer, self._online))
        return state

    def load_state(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on from `state_dict`, with the same task and settings.

        Raises:
            InternalError: the state belongs to another task or other settings.
            InputDataError: its weights are another network's.
        """
        self._searches.at = self._restored_searches(np.asarray(state["searches/at"], np.uint8))
        self._searches.age = np.array(state["searches/age"], dtype=np.int64)
        self._replay.load_state(under("replay/", state))
        self._knowledge.load_state(state)
        set_rng_words(self._rng, np.asarray(state["rng"], np.uint64))
        self._updates = int(state["updates"])
        for prefix, network in (("online/", self._online), ("target/", self._objective.target)):
            part = under(prefix, state)
            set_weights(network, {k: np.asarray(v, np.float32) for k, v in part.items()})
        load_optimizer(self._optimizer, self._online, state)

    def _restored_searches(self, raw: NDArray[np.uint8]) -> Situations:
        """The situations of saved searches.

        Raises:
            InternalError: other searches, or over other cases.
        """
        dtype, searches = self._task.situation, self._settings.searches
        count, rest = divmod(raw.size, dtype.itemsize)
        situations: Situations = np.frombuffer(raw.tobytes(), np.uint8)[
            : count * dtype.itemsize
        ].view(dtype)
        if rest or count != searches or int(situations["case"].max()) >= len(self._task):
            raise InternalError(
                "the saved state does not fit",
                expected=f"{searches} searches over {len(self._task)} cases",
                got=f"{count} searches",
            )
        return situations.copy()
