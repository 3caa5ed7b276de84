"""The queue at two in the morning: aggregators that die, full disks, terminals that close."""

from __future__ import annotations

import errno
import json
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from aggregator.admin.enrol import create_federation
from aggregator.admin.folder import FederationFolder, FederationSettings
from aggregator.cli import cli
from aggregator.dispatch import LOOK_S, Dispatcher
from aggregator.rounds.events import RunFinished, RunQueued, RunStarted, read_events
from aggregator.rounds.queue import MOST_WAITING, QueueState, RunQueue, is_locked, locked
from aggregator.rounds.store import RunOptions, RunStore
from aggregator.start import start_run
from aggregator.stop import stop_run
from common.errors import InputDataError, RefusedError, UnreachableError
from common.ledger import durable
from common.ledger.durable import StorageError
from common.plan import parse_plan
from tests.programs import NO_OP_PLAN

PLAN = parse_plan(
    {
        "name": "no-op",
        "kind": "no-op",
        "seed": 3,
        "task": {"landmarks": ["AC", "PC"], "roi": 9},
        "network": {"width": 4},
        "experience": {"rows": 3, "columns": 64},
        "rounds": {"training": 1, "quorum": 2},
    }
)
OPTIONS = RunOptions(min_sites=2, wait_s=0)


class Flower:
    """A SuperLink whose runs go on until somebody ends them."""

    def __init__(self) -> None:
        self.started: list[dict[str, str]] = []
        self.ended: set[int] = set()
        self.away = False

    def start_run(self, config: dict[str, str]) -> int:
        if self.away:
            raise UnreachableError("away")
        self.started.append(config)
        return 2**63 + len(self.started)  # more than JSON's numbers keep

    def has_ended(self, run_id: int) -> bool:
        if self.away:
            raise UnreachableError("away")
        return run_id in self.ended

    def stop_run(self, run_id: int) -> None:
        self.ended.add(run_id)


class House:
    """A federation with admitted sites, and the clock of whoever conducts its runs."""

    def __init__(self, folder: FederationFolder) -> None:
        self.folder, self.flower, self.now, self.said = folder, Flower(), 0.0, []
        self.queue = RunQueue(folder.queue)

    def dispatcher(self) -> Dispatcher:
        @contextmanager
        def link(_folder):
            yield self.flower

        return Dispatcher(self.folder, self.said.append, link, lambda: self.now)

    def start(self) -> RunStore:
        return start_run(self.folder, PLAN, OPTIONS).store

    def turns(self, dispatcher: Dispatcher, count: int = 4) -> None:
        for _ in range(count):
            dispatcher.turn()
            self.now += LOOK_S


@pytest.fixture
def house(tmp_path, monkeypatch) -> House:
    folder = FederationFolder(tmp_path / "fed")
    settings = FederationSettings(name="test", address="127.0.0.1:9443", port=9443)
    create_federation(folder, settings, ["127.0.0.1"])
    monkeypatch.setattr(FederationFolder, "admitted", lambda _: {"site-a": None, "site-b": None})
    return House(folder)


def end_of(store: RunStore) -> list[tuple[str, int]]:
    ends = [e for _, e in read_events(store.journal) if isinstance(e, RunFinished)]
    return [(end.verdict, end.exit_code) for end in ends]


def conduct(store: RunStore, verdict: str = "COMPLETED") -> None:
    """What a ServerApp writes last."""
    store.record(RunFinished(verdict=verdict, rounds=1))


def begin(store: RunStore) -> None:
    """What a ServerApp writes first."""
    store.record(
        RunStarted(
            run=store.name,
            federation="test",
            plan_name="no-op",
            plan_fingerprint=PLAN.fingerprint,
            rounds=1,
            quorum=2,
            sites=("site-a", "site-b"),
        )
    )


def test_runs_have_their_turns_in_the_order_they_came_and_turns_only_grow(house):
    with house.dispatcher() as dispatcher:
        stores = [house.start() for _ in range(3)]
        for number, store in enumerate(stores):
            house.turns(dispatcher)
            assert len(house.flower.started) == number + 1, "one at a time"
            conduct(store)
            house.turns(dispatcher)
    assert [config["run"] for config in house.flower.started] == [s.name for s in stores]
    turns = [int(config["turn"]) for config in house.flower.started]
    assert turns == sorted(set(turns))


def test_a_clock_that_is_set_back_takes_no_turn_back(house):
    with house.queue.changing() as change:
        for run in ("a", "b"):
            change.add(run)
        first = change.begin(2_000, 0)
        change.end(first)
        assert change.begin(1_000, 0).turn == 2_001


def test_a_run_that_flower_ended_without_a_word_is_failed_and_the_next_begins(house):
    with house.dispatcher() as dispatcher:
        first, second = house.start(), house.start()
        house.turns(dispatcher)
        house.flower.ended.add(2**63 + 1)
        house.turns(dispatcher)
        assert end_of(first) == [("FAILED", 7)]
        assert house.queue.read().current.run == second.name


def test_a_run_whose_conductor_lives_is_not_over_whatever_flower_says(house):
    with house.dispatcher() as dispatcher:
        store = house.start()
        house.turns(dispatcher)
        house.flower.ended.add(2**63 + 1)
        with store.conducting():
            house.turns(dispatcher, 20)
            assert end_of(store) == []


def test_while_flower_is_away_nothing_is_lost_and_nothing_is_called_over(house):
    with house.dispatcher() as dispatcher:
        store = house.start()
        house.flower.away = True
        house.turns(dispatcher)
        assert house.queue.read().waiting == (store.name,)
        house.flower.away = False
        house.turns(dispatcher)
        house.flower.away = True
        house.turns(dispatcher, 20)
        assert end_of(store) == []


def test_a_killed_aggregator_goes_on_with_those_that_waited_and_fails_the_one_under_way(house):
    with house.dispatcher() as dispatcher:
        first, second, third = (house.start() for _ in range(3))
        house.turns(dispatcher)
        begin(first)
    with house.dispatcher() as dispatcher:
        assert end_of(first) == [("FAILED", 5)], "which `round resume` goes on with"
        house.turns(dispatcher)
        assert house.queue.read().current.run == second.name
    # Killed once more, now before the second run's ServerApp had written a word.
    with house.dispatcher() as dispatcher:
        assert house.queue.read().waiting == (second.name, third.name)
        assert end_of(second) == []
        house.turns(dispatcher)
        assert house.queue.read().current.run == second.name


def test_a_run_that_was_never_queued_whole_is_called_failed_at_the_next_start(house):
    store = RunStore.create(house.folder.runs / "orphan", PLAN, OPTIONS)
    store.record(
        RunQueued(run="orphan", plan_name="no-op", plan_fingerprint=PLAN.fingerprint, rounds=1)
    )
    with house.dispatcher():
        assert end_of(store) == [("FAILED", 5)]


def test_there_is_one_conductor_of_the_queue_and_one_of_a_run(house):
    with house.dispatcher():
        with pytest.raises(RefusedError, match="another process conducts the runs"):
            house.dispatcher().__enter__()
        store = house.start()
        with store.conducting(), pytest.raises(RefusedError, match="conducts this run"):
            store.conducting().__enter__()
        assert not is_locked(store.conductor_lock)


def test_without_an_aggregator_nothing_is_queued(house):
    with pytest.raises(UnreachableError, match="not running"):
        house.start()
    assert house.folder.run_names() == []


def test_looking_whether_a_lock_is_held_never_takes_it_from_anybody(tmp_path):
    path, stop = tmp_path / "lock", threading.Event()
    path.touch()
    looking = threading.Thread(target=lambda: [is_locked(path) for _ in iter(stop.is_set, True)])
    looking.start()
    try:
        for _ in range(200):
            with locked(path, "taken", ""):
                assert is_locked(path)
    finally:
        stop.set()
        looking.join()


# Disks.


def full(monkeypatch, where: str) -> None:
    """No room for files of a name."""
    honest = durable.write_all

    def write_all(descriptor: int, data: bytes) -> None:
        if where in Path(f"/proc/self/fd/{descriptor}").readlink().name:
            raise OSError(errno.ENOSPC, "No space left on device")
        honest(descriptor, data)

    monkeypatch.setattr(durable, "write_all", write_all)


@pytest.mark.parametrize("where", ["options.json", "plan.json", "queue.json"])
def test_a_full_disk_queues_a_run_whole_or_not_at_all(house, monkeypatch, where):
    with house.dispatcher() as dispatcher:
        before = house.start()
        with monkeypatch.context() as patch:
            full(patch, where)
            with pytest.raises(StorageError, match=r"not queued.*Nothing was started"):
                house.start()
        assert house.folder.run_names() == [before.name]
        assert house.queue.read().runs == (before.name,)
        after = house.start()
        house.turns(dispatcher)
        assert house.queue.read().runs == (before.name, after.name)


def test_a_disk_that_is_full_when_a_turn_is_due_is_said_once_and_the_run_waits(house, monkeypatch):
    with house.dispatcher() as dispatcher:
        store = house.start()
        with monkeypatch.context() as patch:
            full(patch, "queue.json")
            house.turns(dispatcher, 5)
        assert len([line for line in house.said if "stands still" in line]) == 1
        assert house.flower.started == []
        house.turns(dispatcher)
        assert house.queue.read().current.run == store.name


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"v": 2}', b'{"waiting": ["../x"]}'])
def test_a_damaged_queue_is_named_and_not_begun_from(house, data):
    house.folder.queue.mkdir(exist_ok=True)
    house.queue.file.write_bytes(data)
    with pytest.raises(InputDataError, match="queue of runs is damaged"):
        house.queue.read()


def test_a_queue_has_an_end(house):
    with house.queue.changing() as change:
        for number in range(MOST_WAITING):
            change.add(f"run-{number}")
        with pytest.raises(RefusedError, match="too many"):
            change.add("one-more")
    assert QueueState.model_validate_json(house.queue.file.read_bytes()) == house.queue.read()


# Stopping.


def test_a_run_that_waits_is_stopped_at_once_and_those_behind_it_move_up(house):
    with house.dispatcher() as dispatcher:
        first, second, third = (house.start() for _ in range(3))
        house.turns(dispatcher)
        assert stop_run(house.folder, second.name, "Ada")
        assert end_of(second) == [("STOPPED", 10)]
        assert house.queue.read().runs == (first.name, third.name)


def test_a_run_whose_serverapp_died_is_stopped_all_the_same(house):
    with house.dispatcher() as dispatcher:
        store = house.start()
        house.turns(dispatcher)
        begin(store)
        assert not stop_run(house.folder, store.name, "Ada"), "by who conducts it, if anybody"
        house.turns(dispatcher, 6)
        assert end_of(store) == [("STOPPED", 10)]
        assert house.queue.read().runs == ()


def test_a_run_is_stopped_while_no_aggregator_runs(house):
    with house.dispatcher() as dispatcher:
        store = house.start()
        house.turns(dispatcher)
        begin(store)
    assert stop_run(house.folder, store.name, "Ada")
    assert end_of(store) == [("STOPPED", 10)]
    with house.dispatcher():
        assert end_of(store) == [("STOPPED", 10)]


def test_an_aggregator_that_was_killed_in_a_stop_completes_it(house):
    with house.dispatcher() as dispatcher:
        store = house.start()
        house.turns(dispatcher)
        begin(store)
        stop_run(house.folder, store.name, "Ada")
    with house.dispatcher():
        assert end_of(store) == [("STOPPED", 10)]


# As typed.


def typed(house, *words: str, code: int = 0) -> str:
    done = CliRunner().invoke(cli, [*words, "--dir", str(house.folder.root)])
    assert done.exit_code == code, done.output
    return done.output


def test_what_a_coordinator_types_says_where_a_run_stands(house, tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text(NO_OP_PLAN.format(rounds=1, quorum=2, deadline=60))
    with house.dispatcher() as dispatcher:
        told = typed(house, "round", "start", str(plan))
        assert "Started" in told
        house.turns(dispatcher)
        told = typed(house, "round", "start", str(plan))
        first, second = house.folder.run_names()
        assert f"Queued {second}, number 2" in told
        assert f"after 1 run, {first}" in told
        typed(house, "round", "start", str(plan), "--no-queue", code=1)
        listed = json.loads(typed(house, "round", "list", "--json"))["runs"]
        assert [(run["name"], run["state"]) for run in listed][1] == (second, "queued")
        assert listed[1]["queued_at"]
        assert "queued" in typed(house, "round", "list")
        told = typed(house, "round", "stop", second)
        assert f"{second}: STOPPED, stopped by" in told
        assert typed(house, "round", "stop", first, "--wait", "0", code=5)
        assert "stopping" in typed(house, "round", "list")
