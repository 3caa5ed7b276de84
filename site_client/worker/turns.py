"""One run at a time at this site: whose turn it is, by the aggregator's signed word.

The newest turn that was heard of is kept on disk, so that a restart forgets nothing. An
order of an earlier turn is declined by a number, and one that is being worked on is left:
somebody has begun another run since, or stopped this one. Nothing here keeps a liar at
the aggregator from anything: what a run may ask and how often is the door's to judge.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from common.canonical import canonical_json
from common.settings import Frozen
from common.wire.codes import NumberedError, ReplyCode
from common.wire.records import Count, RunName
from common.wire.turn import TurnNote
from site_client.files import write_atomically

LOG = logging.getLogger("cairn.worker")
LOOK_S = 0.5


class TurnOverError(NumberedError):
    """A later run's turn has begun, or the run was stopped."""

    code = ReplyCode.RUN_OVER
    problem_text = "the run's turn at this site is over"


class RunStoppedError(NumberedError):
    """The aggregator signed that the run is over, and the ledger has recorded it."""

    code = ReplyCode.RUN_STOPPED
    problem_text = "the run was stopped"


class _Newest(Frozen):
    """The newest turn that was heard of."""

    run: RunName
    turn: Count


class Turns:
    """The newest turn, and the runs that were stopped.

    Args:
        file: where the newest turn is kept.
        is_stopped: tells of a run whether the ledger has recorded its end.
        clock: seconds that only go up.
    """

    def __init__(
        self,
        file: Path,
        is_stopped: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = file
        self._is_stopped = is_stopped
        self._clock = clock
        self._newest = _read(file)
        self._ending: set[str] = set()
        self._next_look = 0.0

    def hear(self, note: TurnNote) -> None:
        """Take in a turn from an order that waits.

        A run that is to be stopped gives its turn up at once, whatever else waits.
        """
        if note.stop:
            self._ending.add(note.run)
        elif self._newest is None or note.turn > self._newest.turn:
            self._newest = _Newest(run=note.run, turn=note.turn)
            words = canonical_json(self._newest.model_dump(mode="json"))
            try:
                write_atomically(self._file, words)
            except OSError as error:  # it counts all the same, until the next start
                LOG.warning("whose turn it is could not be kept: %s", error.strerror)

    def require(self, note: TurnNote) -> None:
        """Return only if a run may be answered.

        Raises:
            TurnOverError: a later turn was heard of, or the run was stopped.
        """
        if note.run in self._ending or self._is_stopped(note.run):
            raise TurnOverError("run", "one that goes on", "one that was stopped")
        newest = self._newest
        if newest is not None and note.turn < newest.turn:
            raise TurnOverError("turn", f"that of {newest.run}, or a later one", "an earlier one")

    def time_to_look(self) -> bool:
        """Tell whether the inbox was last looked into long enough ago."""
        now = self._clock()
        if now < self._next_look:
            return False
        self._next_look = now + LOOK_S
        return True


def _read(file: Path) -> _Newest | None:
    """Return what was kept. A damaged file is none: the next order says whose turn it is."""
    try:
        return _Newest.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        LOG.warning("%s is damaged; whose turn it is will be heard again", file.name)
        return None
