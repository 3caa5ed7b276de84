"""A training round that is under way: when its time is up, and what is kept of it meanwhile.

The state is saved every minute within the round. A worker that was killed goes on from
there, bit for bit, also with the time that the round has taken already.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from common.plan import FederationPlan
from common.policy import Policy
from common.wire.bounds import gathered_per_update
from site_client.worker.experience import Federation
from site_client.worker.state import SavedStates

if TYPE_CHECKING:
    from site_client.agent.learner import Learner, SoFar

SAVED_EVERY_S: Final = 60.0
"""What a kill costs at most."""
_LEARNER, _MET, _DONE = "learner/", "met/", "done"


def least_updates(plan: FederationPlan, policy: Policy) -> int:
    """Fewest updates of a round that the site's door lets out, whatever time they take.

    An update of one gradient step would show what is in it; and too few transitions, or a
    table too large for them, would be refused at the door.
    """
    learner = plan.learner
    transitions = max(plan.limits.min_transitions, policy.floors.transitions)
    enough = math.ceil(transitions / gathered_per_update(plan))
    if plan.counts is not None:
        cells = plan.experience.rows * plan.experience.columns
        keys = max(transitions, math.ceil(cells / plan.limits.max_cells_per_input))
        in_an_update = learner.batch if plan.counts == "errors" else learner.searches
        enough = max(enough, math.ceil(keys / in_an_update))
    return max(1, int(policy.bounds.updates[0]), enough)


class RoundInHand:
    """One round of one learner.

    Args:
        learner: that trains; stands where the round begins.
        lookup: what it asks of the federation's experience.
        place: digest of what the round starts from.
        states: where the state is kept; None: it is not.
        train_s: seconds of training, 0 for no end but the updates.
        least: updates that are made however long they take.
        clock: seconds, from whenever.
    """

    def __init__(
        self,
        learner: Learner,
        lookup: Federation,
        place: str,
        states: SavedStates | None,
        *,
        train_s: float,
        least: int,
        clock: Callable[[], float],
    ) -> None:
        self._learner, self._known = learner, lookup
        self._place, self._states = place, states
        self._train_s, self._least, self._clock = train_s, least, clock
        self._spent = 0.0
        self._began = self._saved = clock()

    @property
    def seconds(self) -> float:
        """The time that the round has taken, also before a restart."""
        return self._spent + self._clock() - self._began

    def resume(self) -> SoFar | None:
        """Go on from what was kept of this very round; None where it has to begin."""
        from site_client.agent.learner import SoFar
        from site_client.agent.states import under

        state = None if self._states is None else self._states.load_within(self._place)
        if state is None:
            return None
        updates, transitions, loss, seconds = np.asarray(state[_DONE], np.float64).tolist()
        self._learner.load_state(under(_LEARNER, state))
        self._known.load_state(under(_MET, state))
        self._spent = seconds
        return SoFar(int(updates), int(transitions), loss)

    def goes_on(self, sofar: SoFar) -> bool:
        """Tell whether there is time for another update; save the state where it is due."""
        seconds = self.seconds
        if self._train_s and seconds >= self._train_s and sofar.updates >= self._least:
            return False
        if self._states is not None and self._clock() - self._saved >= SAVED_EVERY_S:
            self._save(self._states, sofar, seconds)
            self._saved = self._clock()
        return True

    def _save(self, states: SavedStates, sofar: SoFar, seconds: float) -> None:
        state: dict[str, NDArray[np.generic]] = {}
        state |= {f"{_LEARNER}{n}": a for n, a in self._learner.state_dict().items()}
        state |= {f"{_MET}{n}": a for n, a in self._known.state_dict().items()}
        state[_DONE] = np.array([sofar.updates, sofar.transitions, sofar.loss, seconds])
        states.save_within(self._place, state)
