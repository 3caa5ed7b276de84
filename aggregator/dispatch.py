"""Conducting the queue of runs: beginning the next one, noticing the end of the one that goes on.

``cairn-aggregator up`` holds one ``Dispatcher`` and gives it a turn twice a second, so that
runs go on whichever terminal is closed. A ServerApp that cannot start, or is killed, writes
no event: then the end is written here. What an aggregator that was killed left behind is
settled when the next one starts: a run that had not begun waits again, before all others;
one that had is over, and can be gone on with.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from typing import Self

from aggregator.admin.folder import FederationFolder
from aggregator.rounds.events import RunFinished, RunQueued, RunStarted, read_events
from aggregator.rounds.queue import CurrentRun, RunQueue, is_locked, locked
from aggregator.rounds.server import RUN_KEY, TURN_KEY
from aggregator.rounds.store import RunStore
from aggregator.rounds.superlink import SuperLink
from aggregator.start import connect
from aggregator.stop import end_run, end_stopped
from common.errors import CairnError, ExitCode, UnreachableError

LOOK_S = 2.0
"""Seconds between two questions to Flower whether a run is over."""
START_S = 60.0
PATIENCE_S = 120.0
"""How long a run that was stopped has to tell its sites, before Flower is asked to end it."""
_GONE = ExitCode.UNREACHABLE
Say = Callable[[str], None]


class Dispatcher:
    """The one process that conducts a federation's runs; a context manager: it holds a lock.

    Args:
        folder: the federation's.
        say: takes what happens, for a person.
        link: opens the way to Flower; passed in for tests.
        clock: seconds that only go up.
    """

    def __init__(
        self,
        folder: FederationFolder,
        say: Say = lambda _: None,
        link: Callable[[FederationFolder], SuperLink] = connect,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._queue = RunQueue(folder.queue)
        self._say = say
        self._link = link
        self._clock = clock
        self._held = ExitStack()
        self._next_look = 0.0
        self._over_since: float | None = None
        self._asked_since: float | None = None
        self._trouble = ""

    def __enter__(self) -> Self:
        """Take the queue, and settle what was left behind.

        Raises:
            RefusedError: another process conducts it.
        """
        self._held.enter_context(
            locked(
                self._queue.keeper,
                "another process conducts the runs of this federation",
                "One `cairn-aggregator up` is enough",
            )
        )
        try:
            self._settle()
        except BaseException:
            self._held.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Give the queue back; who waits, waits for the next start."""
        self._held.close()

    def turn(self) -> None:
        """One look: end what is over, begin what is next.

        A damaged queue or a full disk is said, once, and tried again at the next look: the
        run that goes on is not ended for it.
        """
        try:
            self._turn()
        except (CairnError, OSError) as error:
            if str(error) != self._trouble:
                self._say(f"the queue of runs stands still: {error}")
            self._trouble = str(error)
        else:
            self._trouble = ""

    def _turn(self) -> None:
        state = self._queue.read()
        if state.current is not None:
            self._attend(state.current)
        elif state.waiting:
            self._begin(state.waiting[0])

    def _begin(self, run: str) -> None:
        """Have Flower conduct the next run."""
        store = RunStore(self._folder.runs / run)
        with self._queue.changing() as change:
            if change.state.waiting[:1] != (run,):
                return  # it was stopped meanwhile
            turn = change.begin(_now_ms(), _size(store))
            try:
                with self._link(self._folder) as link:
                    flower_run = link.start_run({RUN_KEY: run, TURN_KEY: str(turn.turn)})
            except UnreachableError:
                change.put_back(turn)  # `up` ends with Flower, or Flower comes back
                return
            except CairnError as error:
                end_run(store, str(error), error.exit_code)
                change.end(turn)
                self._say(f"{run} could not begin: {error}")
                return
            change.taken(turn, flower_run)
        self._over_since = None
        self._say(f"{run} has its turn")

    def _attend(self, turn: CurrentRun) -> None:
        """End the turn of a run that is over, whether it said so or not."""
        store = RunStore(self._folder.runs / turn.run)
        if is_locked(store.conductor_lock):
            self._over_since = None
            self._insist(store, turn)
            return
        ended = _finished(store, turn.since)
        if ended is None:
            if not self._is_over(turn, stopped=store.stop_asked_by() is not None):
                return
            ended = self._write_the_end(store)
        with self._queue.changing() as change:
            change.end(turn)
        self._over_since = None
        self._say(f"{turn.run} ended: {ended.verdict}")

    def _insist(self, store: RunStore, turn: CurrentRun) -> None:
        """Have Flower end a run that does not end although a coordinator asked for it."""
        if store.stop_asked_by() is None:
            self._asked_since = None
            return
        now = self._clock()
        self._asked_since = self._asked_since or now
        if now - self._asked_since < PATIENCE_S or turn.flower_run is None:
            return
        self._asked_since = now
        with suppress(UnreachableError), self._link(self._folder) as link:
            link.stop_run(int(turn.flower_run))

    def _is_over(self, turn: CurrentRun, *, stopped: bool) -> bool:
        """Tell whether nobody will conduct a run any more whose ServerApp does not run."""
        now = self._clock()
        if now < self._next_look:
            return False
        self._next_look = now + LOOK_S
        try:
            with self._link(self._folder) as link:
                run_id = None if turn.flower_run is None else int(turn.flower_run)
                over = run_id is None or link.has_ended(run_id)
                if stopped and not over and run_id is not None:
                    link.stop_run(run_id)
        except UnreachableError:
            return False  # `up` notices that itself, and the next start settles it
        if not over:
            self._over_since = None
            return False
        # Its last words may be on their way: it is over when it was so at two looks. Where a
        # full disk kept Flower's id from us, it has as long as a ServerApp takes to start.
        self._over_since = now if self._over_since is None else self._over_since
        return now - self._over_since >= (LOOK_S if turn.flower_run else START_S)

    def _write_the_end(self, store: RunStore) -> RunFinished:
        by = store.stop_asked_by()
        if by is not None:
            return end_stopped(store, by)
        return end_run(
            store,
            "Flower ended the run; see superexec.log in the federation's flower folder",
            ExitCode.INTERNAL,
        )

    def _settle(self) -> None:
        """Settle what an aggregator that was killed has left behind."""
        with self._queue.changing() as change:
            current = change.state.current
            if current is not None:
                store = RunStore(self._folder.runs / current.run)
                self._settle_current(store, current)
                if _finished(store, current.since) is None:
                    change.put_back(current)
                    self._say(f"{current.run} had not begun: it is next")
                else:
                    change.end(current)
            for name in self._folder.run_names():
                store = RunStore(self._folder.run(name))
                if name not in change.state.runs and _is_open(store):
                    end_run(store, "the aggregator ended while the run was queued", _GONE)
                    self._say(f"{name} was interrupted; `round resume` goes on with it")

    def _settle_current(self, store: RunStore, turn: CurrentRun) -> None:
        """Write the end of a run that had begun, if nobody has."""
        if _finished(store, turn.since) is not None:
            return
        by = store.stop_asked_by()
        if by is not None:
            end_stopped(store, by)
        elif any(
            isinstance(event, RunStarted) for _, event in read_events(store.journal, turn.since)
        ):
            end_run(store, "the aggregator ended while the run went on", _GONE)
            self._say(f"{store.name} was interrupted; `round resume` goes on with it")


def _finished(store: RunStore, since: int) -> RunFinished | None:
    """Return the end that a run's journal tells after an offset, if any."""
    ends = (e for _, e in read_events(store.journal, since) if isinstance(e, RunFinished))
    return next(ends, None)


def _is_open(store: RunStore) -> bool:
    """Tell whether a run waits or goes on by its journal, and nobody conducts it."""
    if is_locked(store.conductor_lock):
        return False
    events = [e for _, e in read_events(store.journal)]
    last = next((e for e in reversed(events) if isinstance(e, (RunQueued, RunFinished))), None)
    return isinstance(last, RunQueued)


def _size(store: RunStore) -> int:
    return store.journal.stat().st_size if store.journal.exists() else 0


def _now_ms() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)
