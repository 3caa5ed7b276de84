"""The queue of a federation's runs: one goes on, the others wait, in the order they came.

The queue is one small file, replaced whole, so that it survives whatever ends the aggregator.
Who changes it holds a lock for that moment; who conducts the runs (``up``) holds another for
as long as it lives, so that everybody can see whether anybody does. A run that begins, or
goes on, is given a turn: a number that only grows, by which sites know that what came
before is over. Starts nothing and asks nobody; ``aggregator.dispatch`` does.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from common.canonical import canonical_json
from common.errors import InputDataError, RefusedError, UnreachableError
from common.ledger.durable import replace_durably
from common.settings import Frozen
from common.wire.records import Count, RunName

MOST_WAITING: Final = 64
LOCK_S: Final = 1.0
"""How long a lock is tried for that somebody may hold only to look whether it is free."""
_Runs = Annotated[tuple[RunName, ...], Field(max_length=MOST_WAITING)]


class CurrentRun(Frozen):
    """The run that goes on.

    Attributes:
        run: its name.
        turn: its number, as its orders say it; Unix milliseconds where the clock goes right.
        since: size of its journal when the turn was given, bytes.
        flower_run: Flower's id of it, in digits (it has more than JSON's numbers keep); None
            until Flower has taken it.
    """

    run: RunName
    turn: Count
    since: Count = 0
    flower_run: str | None = None


class QueueState(Frozen):
    """The whole queue.

    Attributes:
        turn: the newest turn that was given.
        current: the run that goes on.
        waiting: the others, the next one first.
    """

    v: Literal[1] = 1
    turn: Count = 0
    current: CurrentRun | None = None
    waiting: _Runs = ()

    @property
    def runs(self) -> tuple[str, ...]:
        """Every run that is not over, in the order in which they have their turns."""
        return (*((self.current.run,) if self.current else ()), *self.waiting)

    def ahead(self, run: str) -> tuple[str, ...]:
        """Return the runs that end before ``run`` begins; none for one that is not queued."""
        runs = self.runs
        return runs[: runs.index(run)] if run in runs else ()


@dataclass(frozen=True)
class RunQueue:
    """The queue in a federation's folder.

    Attributes:
        folder: ``queue`` in it.
    """

    folder: Path

    @property
    def file(self) -> Path:
        """Everything but the locks."""
        return self.folder / "queue.json"

    @property
    def keeper(self) -> Path:
        """Lock of the process that conducts the queue."""
        return self.folder / "keeper.lock"

    def read(self) -> QueueState:
        """Return the queue as it stands; no lock is needed to look.

        Raises:
            InputDataError: the file is damaged.
        """
        try:
            return QueueState.model_validate_json(self.file.read_bytes())
        except FileNotFoundError:
            return QueueState()
        except ValidationError as error:
            raise InputDataError(
                "the queue of runs is damaged",
                field=str(self.file),
                expected="what was written there",
                got="something else",
                advice="Move the file away and start `cairn-aggregator up` again: runs that "
                "waited are then called FAILED, and can be gone on with by `round resume`",
            ) from error

    def is_kept(self) -> bool:
        """Tell whether ``cairn-aggregator up`` runs on this folder."""
        return is_locked(self.keeper)

    def require_keeper(self) -> None:
        """Refuse to queue what nobody would ever begin.

        Raises:
            UnreachableError: ``cairn-aggregator up`` does not run.
        """
        if not self.is_kept():
            raise UnreachableError(
                "the aggregator is not running here",
                got="no process that conducts its runs",
                advice="Start it: cairn-aggregator up",
            )

    @contextmanager
    def changing(self) -> Iterator[QueueChange]:
        """Alone among all processes that change the queue.

        Raises:
            InputDataError: the queue is damaged.
            OSError: the disk refused.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "change.lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield QueueChange(self)


class QueueChange:
    """Changes of a queue by whoever holds its lock; each is on disk when it returns.

    Args:
        queue: whose lock is held.
    """

    def __init__(self, queue: RunQueue) -> None:
        self._queue = queue
        self.state = queue.read()

    def add(self, run: str) -> tuple[str, ...]:
        """Put a run at the end; returns the runs that come before it.

        Raises:
            RefusedError: it is in the queue already, or too many are.
        """
        if run in self.state.runs:
            raise RefusedError(
                "the run goes on or waits already",
                field=run,
                advice="See `cairn-aggregator round list`",
            )
        if len(self.state.waiting) >= MOST_WAITING:
            raise RefusedError(
                "too many runs wait",
                field="queue",
                expected=f"at most {MOST_WAITING}",
                got=f"{len(self.state.waiting)}",
                advice="Wait for some to end, or stop one: cairn-aggregator round stop RUN",
            )
        before = self.state.runs
        self._write(waiting=(*self.state.waiting, run))
        return before

    def begin(self, now_ms: int, since: int) -> CurrentRun:
        """Give the next run its turn.

        Args:
            now_ms: Unix milliseconds.
            since: size of the run's journal, bytes.

        Raises:
            RefusedError: another run goes on, or none waits.
        """
        if self.state.current is not None or not self.state.waiting:
            raise RefusedError("it is no waiting run's turn", field="queue")
        run, *rest = self.state.waiting
        number = max(self.state.turn + 1, now_ms)
        turn = CurrentRun(run=run, turn=number, since=since)
        self._write(turn=number, current=turn, waiting=tuple(rest))
        return turn

    def taken(self, turn: CurrentRun, flower_run: int) -> None:
        """Note Flower's id of the run that goes on."""
        if self.state.current is not None and self.state.current.turn == turn.turn:
            self._write(current=turn.model_copy(update={"flower_run": str(flower_run)}))

    def put_back(self, turn: CurrentRun) -> None:
        """Let a run that could not begin wait again, before all others."""
        if self.state.current is not None and self.state.current.turn == turn.turn:
            self._write(current=None, waiting=(turn.run, *self.state.waiting))

    def end(self, turn: CurrentRun) -> None:
        """End a turn; one that is over already stays so."""
        if self.state.current is not None and self.state.current.turn == turn.turn:
            self._write(current=None)

    def withdraw(self, run: str) -> bool:
        """Take a run out that waits; tells whether it did."""
        if run not in self.state.waiting:
            return False
        self._write(waiting=tuple(name for name in self.state.waiting if name != run))
        return True

    def _write(self, **changes: object) -> None:
        self.state = self.state.model_copy(update=changes)
        data = canonical_json(self.state.model_dump(mode="json"))
        replace_durably(self._queue.file, data)


@contextmanager
def locked(path: Path, problem: str, advice: str, wait_s: float = LOCK_S) -> Iterator[None]:
    """Hold a lock that the kernel gives back whatever ends this process.

    Raises:
        RefusedError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        until = time.monotonic() + wait_s
        while not _take(descriptor, fcntl.LOCK_EX):
            if time.monotonic() >= until:
                raise RefusedError(
                    problem, field=str(path), expected="one", got="a second one", advice=advice
                )
            time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Tell whether any process holds a lock."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _take(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _take(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
