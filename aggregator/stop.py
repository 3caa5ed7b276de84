"""Ending a run that a coordinator no longer wants, whoever conducts it, or nobody.

Where somebody conducts it, that process tells the sites and ends it; here it is only asked
to. A run that waits, or that nobody conducts, is ended here, for good like any other.
"""

from __future__ import annotations

from aggregator.admin.folder import FederationFolder
from aggregator.rounds.course import Course
from aggregator.rounds.events import RunFinished
from aggregator.rounds.queue import RunQueue, is_locked
from aggregator.rounds.store import RunStore
from common.errors import ExitCode, RefusedError
from common.ledger.durable import storage_error


def stop_run(folder: FederationFolder, name: str, by: str) -> bool:
    """Have a run end: at once if it waits or nobody conducts it, else by who conducts it.

    Args:
        folder: the federation's.
        name: of the run.
        by: who wants it, for the journal.

    Returns:
        Whether it has ended already.

    Raises:
        RefusedError: it is over.
        StorageError: the disk refused.
    """
    store, queue = RunStore(folder.run(name)), RunQueue(folder.queue)
    try:
        with queue.changing() as change:
            if name not in change.state.runs:
                raise RefusedError(
                    "the run is over",
                    field=name,
                    expected="one that goes on or waits",
                    advice="See `cairn-aggregator round list`",
                )
            store.ask_to_stop(by)
            current = change.state.current
            goes_on = current is not None and current.run == name
            if goes_on and (queue.is_kept() or is_locked(store.conductor_lock)):
                return False
            end_stopped(store, by)
            change.withdraw(name)
            if current is not None and goes_on:
                change.end(current)
            return True
    except OSError as error:
        raise storage_error(error, store.folder) from error


def end_stopped(store: RunStore, by: str) -> RunFinished:
    """Journal that a run was stopped which nobody conducts."""
    return end_run(
        store,
        f"stopped by {by} while nobody conducted it; sites that had heard of it will learn "
        "it from the next run's orders",
        ExitCode.STOPPED,
    )


def end_run(store: RunStore, reason: str, code: ExitCode) -> RunFinished:
    """Journal the end of a run that nobody conducts: STOPPED or FAILED, by the code."""
    event = RunFinished(
        verdict="STOPPED" if code is ExitCode.STOPPED else "FAILED",
        reason=reason,
        rounds=Course(store.plan(), sorted(set(store.finished_rounds()))).worked,
        exit_code=int(code),
    )
    store.record(event)
    return event
