"""The study in hand: one run's at a time, standing where the last recorded round left it.

A study is made anew when another run comes, when a round must be repeated, and after any
failure, for what failed may be broken inside. What it learned lies in ``worker/state``;
a round that was refused at the door is not built on. Nothing here leaves the site.
"""

from __future__ import annotations

import logging

from common.crypto.keyed import FederationKey
from common.policy import Policy
from common.wire.orders import Order
from site_client.heldout.parts import Parts
from site_client.site import SiteFolder
from site_client.worker.round_in_hand import least_updates
from site_client.worker.setup import make_study
from site_client.worker.state import SavedStates
from site_client.worker.study import Given, Progress, Study

LOG = logging.getLogger("cairn.worker")


def states_of(site: SiteFolder, order: Order) -> SavedStates:
    """Return the states that are kept of an order's run."""
    return SavedStates(site.worker / "state", order.header.run, order.plan.fingerprint)


class Studies:
    """Makes the study that an order needs, or hands back the one in hand.

    Args:
        site: the site's folder.
        name: the site's.
        progress: told what is being done.
    """

    def __init__(self, site: SiteFolder, name: str, progress: Progress) -> None:
        self._site = site
        self._name = name
        self._progress = progress
        self._study: Study | None = None
        self._run: tuple[str, str] | None = None

    def study_of(self, order: Order, key: FederationKey, policy: Policy) -> Study:
        """Return the study of an order's run, standing where the last recorded round left it.

        Raises:
            InputDataError: the images, the landmarks or the federation key cannot be used.
            InternalError: a state that was kept is damaged.
        """
        states, round_ = states_of(self._site, order), order.header.round
        run = (order.header.run, order.plan.fingerprint)
        last = states.last_before(round_) if order.header.phase == "train" else None
        fits = self._run == run and self._study is not None
        if fits and self._study is not None and last in (None, self._study.trained):
            return self._study
        self.forget()
        states.forget_other_runs()
        given = Given(
            self._site.data(),
            Parts.of(self._site, policy, remember=True),
            self._progress,
            self._site.worker,
            data_file=self._site.data_file,
            slides=self._site.slide_settings(),
            states=states,
            least_updates=least_updates(order.plan, policy),
        )
        study = make_study(order, self._name, key, given)
        state = states.load_before(round_)
        if state is not None:
            study.load_state(*state)
            LOG.info("%s goes on from the state after round %d", order.name, state[0])
        self._study, self._run = study, run
        return study

    def save_round(self, order: Order, study: Study) -> None:
        """Save where a study stands after an order's round, for a worker that starts again."""
        states_of(self._site, order).save(order.header.round, study.state())

    def forget(self) -> None:
        """Make the next order's study anew."""
        self._study = self._run = None

    def forget_round(self, order: Order) -> None:
        """Start the next round before this one: its answer was refused."""
        self.forget()
        states_of(self._site, order).forget(order.header.round)
