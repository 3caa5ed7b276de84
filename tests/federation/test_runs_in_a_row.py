"""Runs that are started in a row: they wait for each other, and no honest site is accused."""

from __future__ import annotations

import shutil
import threading
import time as clock
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from aggregator.desk.local import LocalDesk
from aggregator.dispatch import Dispatcher
from aggregator.rounds.conduct import Conductor
from aggregator.rounds.events import RunFinished, SiteRejected, SiteReplied, read_events
from aggregator.rounds.queue import RunQueue
from aggregator.rounds.store import RunOptions, RunStore
from aggregator.rounds.transport import Arrival
from aggregator.start import resume_run, start_run
from aggregator.stop import stop_run
from common.crypto.identity import read_public_key, read_signing_key
from common.errors import RefusedError
from common.ledger.log import Ledger
from common.ledger.notes import ledger_origin
from common.ledger.verify import verify_ledger
from common.wire.codes import ReplyCode
from site_client.ledger import open_ledger
from site_client.restoring import read_lost
from site_client.site import SiteFolder

STILL: Callable[[], float] = lambda: 0.0  # noqa: E731 (nobody is late on a busy machine)
OPTIONS = RunOptions(min_sites=3, wait_s=0, approval_s=0)


class InMemoryFlower:
    """Conducts what it is told to start, each run in a thread of its own, over the spools."""

    def __init__(self, federation) -> None:
        self.federation = federation
        self.threads: list[threading.Thread] = []

    def start_run(self, config: dict[str, str]) -> int:
        store = RunStore(self.federation.folder.run(config["run"]))
        turn, queue = int(config["turn"]), RunQueue(self.federation.folder.queue)
        conductor = Conductor(
            self.federation.folder,
            store,
            self.federation.transport(),
            turn,
            lambda: queue.read().current is not None and queue.read().current.turn == turn,
            clock=STILL,
            sleep=lambda _: None,
        )
        self.threads.append(threading.Thread(target=conductor.run, daemon=True))
        self.threads[-1].start()
        return len(self.threads)

    def has_ended(self, run_id: int) -> bool:
        return not self.threads[run_id - 1].is_alive()

    def stop_run(self, run_id: int) -> None:
        pass


@pytest.fixture
def dispatcher(three):
    """What ``up`` has, over a Flower in memory."""
    flower = InMemoryFlower(three)

    @contextmanager
    def link(_folder):
        yield flower

    with Dispatcher(three.folder, link=link) as kept:
        yield kept
    for thread in flower.threads:
        thread.join(60)


def carry_out(three, dispatcher: Dispatcher, seconds: float = 600.0) -> None:
    """Until no run goes on or waits."""
    until, queue = clock.monotonic() + seconds, RunQueue(three.folder.queue)
    while queue.read().runs:
        assert clock.monotonic() < until, queue.read()
        dispatcher.turn()
        clock.sleep(0.01)


def accused(store: RunStore) -> list[str]:
    return [e.reason for _, e in read_events(store.journal) if isinstance(e, SiteRejected)]


def codes(store: RunStore) -> set[ReplyCode]:
    return {e.code for _, e in read_events(store.journal) if isinstance(e, SiteReplied)}


@pytest.mark.parametrize(
    "runs", [3, pytest.param(20, marks=(pytest.mark.slow, pytest.mark.timeout(3600)))]
)
def test_runs_started_in_a_row_all_complete_and_nobody_is_accused(
    three, no_op_plan, dispatcher, runs
):
    queued = [start_run(three.folder, no_op_plan, OPTIONS) for _ in range(runs)]
    names = [each.store.name for each in queued]
    assert len(set(names)) == runs, "two that start in one second are two runs"
    assert [each.ahead for each in queued] == [tuple(names[:n]) for n in range(runs)]
    carry_out(three, dispatcher)
    for each in queued:
        ends = [e for _, e in read_events(each.store.journal) if isinstance(e, RunFinished)]
        assert [end.verdict for end in ends] == ["COMPLETED"], ends
        assert accused(each.store) == []


# Runs that get past the queue.


class Interrupted:
    """A way to the sites on which, with the orders of one round, something else happens."""

    def __init__(self, inner, at: int, happens: Callable[[], object]) -> None:
        self.inner, self.at, self.happens, self.rounds = inner, at, happens, 0

    def nodes(self):
        return self.inner.nodes()

    def send(self, parcels, deadline_s: float) -> None:
        self.inner.send(parcels, deadline_s)
        self.rounds += 1
        if self.rounds == self.at:
            self.happens()

    def receive(self) -> Sequence[Arrival]:
        return self.inner.receive()


def overlapping(three, plan, turns: tuple[int, int]) -> tuple[RunStore, RunStore, list[str]]:
    """One run in the middle of another; their turns, and how the inner and outer ended."""
    outer, inner = (three.create_run(plan, name, min_sites=3) for name in ("outer", "inner"))
    ended: list[str] = []

    def conduct(store: RunStore, transport, turn: int) -> None:
        run = Conductor(
            three.folder, store, transport, turn, clock=STILL, sleep=lambda _: None
        ).run()
        ended.append(run.verdict)

    between = Interrupted(three.transport(), 2, lambda: conduct(inner, three.transport(), turns[1]))
    conduct(outer, between, turns[0])
    return outer, inner, ended


def test_a_proof_from_before_the_newest_checkpoint_is_asked_for_again_and_holds(three, no_op_plan):
    """Answers of two runs arrive in another order than they were made; both count."""
    outer, inner, ended = overlapping(three, no_op_plan, (0, 0))
    assert ended == ["COMPLETED", "COMPLETED"]
    assert accused(outer) == accused(inner) == []


def test_a_run_whose_turn_is_over_is_declined_by_a_number_and_accuses_nobody(three, no_op_plan):
    outer, inner, ended = overlapping(three, no_op_plan, (1, 2))
    assert ended == ["COMPLETED", "FAILED"]
    assert accused(outer) == accused(inner) == []
    assert codes(outer) == {ReplyCode.OK, ReplyCode.RUN_OVER}


def test_a_ledger_that_was_set_back_and_grew_again_answers_nothing_until_a_person_speaks(
    three, no_op_plan
):
    site, copy = three.sites["site-a"], three.root / "copy"
    three.conduct(three.create_run(no_op_plan, "run-1", min_sites=3), three.transport())
    shutil.copytree(site.worker, copy)
    three.conduct(three.create_run(no_op_plan, "run-2", min_sites=3), three.transport())
    shutil.rmtree(site.worker)
    copy.rename(site.worker)
    with Ledger.open(
        site.ledger,
        ledger_origin("site-a"),
        read_signing_key(site.ledger_key),
        lambda: datetime.now(UTC),
    ) as forked:
        for _ in range(200):  # larger than what the aggregator has seen
            forked.append("REFUSE", code=5)
    store = three.create_run(no_op_plan, "run-3", min_sites=3)
    assert three.conduct(store, three.transport()).verdict == "DEGRADED"
    assert accused(store) == []  # its own worker saw what both had signed, and stopped
    assert read_lost(site) is not None
    assert ReplyCode.NO_ANSWER in codes(store)


@pytest.mark.parametrize("grown", [0, 200], ids=["set back", "set back, and larger again"])
def test_a_liar_that_sets_its_ledger_back_and_hides_what_it_was_shown_is_accused(
    three, no_op_plan, monkeypatch, grown
):
    """Its worker is its own: it goes on as if no order had brought a receipt."""
    site, copy = three.sites["site-a"], three.root / "copy"
    three.conduct(three.create_run(no_op_plan, "run-1", min_sites=3), three.transport())
    shutil.copytree(site.worker, copy)
    three.conduct(three.create_run(no_op_plan, "run-2", min_sites=3), three.transport())
    shutil.rmtree(site.worker)
    copy.rename(site.worker)
    with open_ledger(site, read_signing_key(site.ledger_key)) as forked:
        for _ in range(grown):
            forked.append("REFUSE", code=5)
    honest = Ledger.add_receipt
    monkeypatch.setattr(
        Ledger,
        "add_receipt",
        lambda ledger, *rest: ledger.site != "site-a" and honest(ledger, *rest),
    )
    store = three.create_run(no_op_plan, "run-3", min_sites=3)
    assert three.conduct(store, three.transport()).verdict == "DEGRADED"
    assert {e.site for e in three.events(store) if isinstance(e, SiteRejected)} == {"site-a"}


# Stopping.


def stops(site: SiteFolder) -> int:
    verdict = verify_ledger(
        site.ledger, read_public_key(site.ledger / "ledger.pub"), read_public_key(site.witness_key)
    )
    assert verdict.intact, verdict
    return verdict.totals.events["STOP"]


def test_a_run_that_is_stopped_is_recorded_at_every_site_and_the_next_one_completes(
    three, no_op_plan
):
    first = three.create_run(no_op_plan, "run-1", min_sites=3)
    way = Interrupted(three.transport(), 2, lambda: first.ask_to_stop("Ada"))
    end = three.conduct(first, way)
    assert (end.verdict, end.exit_code) == ("STOPPED", 10)
    assert end.reason == "stopped by Ada; recorded at site-a, site-b, site-c"
    assert [stops(site) for site in three.sites.values()] == [1, 1, 1]
    assert accused(first) == []
    second = three.create_run(no_op_plan, "run-2", min_sites=3)
    assert three.conduct(second, three.transport()).verdict == "COMPLETED"


def test_a_site_that_was_away_when_a_run_was_stopped_goes_on_with_the_next(three, no_op_plan):
    first, transport = three.create_run(no_op_plan, "run-1", min_sites=3), three.transport()

    def stop_while_one_is_away() -> None:
        transport.down.add(100)
        first.ask_to_stop("Ada")

    end = three.conduct(first, Interrupted(transport, 2, stop_while_one_is_away))
    assert "site-a will learn it from the next run's orders" in end.reason
    assert stops(three.sites["site-a"]) == 0
    second = three.create_run(no_op_plan, "run-2", min_sites=3)
    assert three.conduct(second, three.transport()).verdict == "COMPLETED"


def test_nobody_answers_a_run_that_was_stopped_even_if_the_aggregator_asks(three, no_op_plan):
    store = three.create_run(no_op_plan, "run-1", min_sites=3)
    three.conduct(store, Interrupted(three.transport(), 2, lambda: store.ask_to_stop("Ada")))
    store.stop_file.unlink()
    again = three.conduct(store, three.transport())
    assert again.verdict == "FAILED"
    assert ReplyCode.RUN_OVER in codes(store)


def test_a_run_that_was_stopped_is_not_gone_on_with(three, no_op_plan, dispatcher):
    store = start_run(three.folder, no_op_plan, OPTIONS).store
    assert stop_run(three.folder, store.name, "Ada"), "it only waited: it ends at once"
    with pytest.raises(RefusedError, match="for good"):
        resume_run(three.folder, store.name)
    with pytest.raises(RefusedError, match="over"):
        stop_run(three.folder, store.name, "Ada")
    assert LocalDesk(three.folder).runs()[-1].state == "STOPPED"
    assert RunQueue(three.folder.queue).read().runs == ()
