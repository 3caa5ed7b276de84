"""Parcels over Flower's Grid: what Flower drops because a courier is away is sent again."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.supercore.task_identity import TaskIdentity

from aggregator.rounds.letters import Parcels
from aggregator.rounds.pulling import Pulled
from aggregator.rounds.server import (
    AWAY_S,
    HELD_BYTES,
    MOST_TIMES,
    NODE_UNAVAILABLE,
    GridTransport,
)
from aggregator.rounds.transport import Arrival
from common.errors import RefusedError
from common.wire.codes import ReplyCode


class MemoryGrid:
    """Flower's Grid as its SuperLink behaves: asking for an offline node's answer drops it."""

    def __init__(self, *online: int) -> None:
        self.online = set(online)
        self.sent: dict[str, Message] = {}
        self.answers: dict[str, ReplyCode | bytes | RefusedError] = {}
        self.asked = 0

    def get_nodes(self):
        return [SimpleNamespace(node_id=node, name=f"site-{node}") for node in sorted(self.online)]

    def push(self, _, messages):
        names = []
        for message in messages:
            names.append(f"m{len(self.sent)}")
            self.sent[names[-1]] = message
        return names

    def pull(self, _, most):
        self.asked += 1
        for name in most:
            answer = self.answers.get(name)
            if self.sent[name].metadata.dst_node_id not in self.online:
                yield Pulled(name, lost=NODE_UNAVAILABLE)
            elif isinstance(answer, RefusedError):
                yield Pulled(name, fault=answer)
            elif answer is not None:
                yield Pulled(name, content=answer)


@pytest.fixture(autouse=True)
def in_a_server_app(monkeypatch):
    """Flower's messages say which task made them."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture
def grid() -> MemoryGrid:
    return MemoryGrid(1, 2)


@pytest.fixture
def now() -> list[float]:
    return [1000.0]


@pytest.fixture
def transport(grid, now) -> GridTransport:
    return GridTransport(grid, clock=lambda: now[0], pull=grid.pull, push=grid.push)


def test_flowers_number_for_a_node_that_is_away_is_still_this_one():
    assert NODE_UNAVAILABLE == ErrorCode.NODE_UNAVAILABLE


def test_a_couriers_number_arrives_once(transport, grid):
    transport.send({1: b"order"}, 60.0)
    assert transport.receive() == []
    grid.answers["m0"] = ReplyCode.UNAPPROVED_APP
    assert transport.receive() == [Arrival(1, None, ReplyCode.UNAPPROVED_APP)]
    assert transport.receive() == []


def test_a_site_that_is_back_is_sent_the_same_parcel_with_the_time_that_is_left(
    transport, grid, now
):
    transport.send({1: b"order", 2: b"other"}, 600.0)
    grid.online.discard(1)
    assert transport.receive() == []
    now[0] += 90
    assert transport.receive() == [], "not given up, and nothing is sent to nobody"
    assert len(grid.sent) == 2
    grid.online.add(1)
    transport.receive()
    again, first = grid.sent["m2"], grid.sent["m0"]
    assert again.metadata.dst_node_id == 1
    assert again.metadata.ttl == 510
    assert again.content == first.content
    grid.answers["m2"] = ReplyCode.NO_ANSWER
    assert transport.receive() == [Arrival(1, None, ReplyCode.NO_ANSWER)]


def test_a_site_that_stays_away_does_not_hold_up_the_round(transport, grid, now):
    transport.send({1: b"order"}, 7200.0)
    grid.online.discard(1)
    transport.receive()
    now[0] += AWAY_S - 1
    assert transport.receive() == []
    now[0] += 1
    assert transport.receive() == [Arrival(1, None, ReplyCode.NO_ANSWER)]
    assert transport.receive() == []


def test_the_next_round_forgets_who_was_away(transport, grid):
    transport.send({1: b"order"}, 60.0)
    grid.online.discard(1)
    transport.receive()
    grid.online.add(1)
    transport.send({2: b"next"}, 60.0)
    transport.receive()
    assert [message.metadata.dst_node_id for message in grid.sent.values()] == [1, 2]


def test_while_everybody_is_there_flower_is_asked_once_a_look(transport, grid, monkeypatch):
    transport.send({1: b"order"}, 60.0)
    monkeypatch.setattr(grid, "get_nodes", lambda: pytest.fail("asked for nothing"))
    transport.receive()
    assert grid.asked == 1


def test_what_cannot_be_read_is_named_by_its_node_and_the_others_arrive(transport, grid):
    transport.send({1: b"order", 2: b"other"}, 60.0)
    grid.answers |= {"m0": RefusedError("bent"), "m1": b"reply"}
    bent, sound = transport.receive()
    assert (bent.node, bent.parcel, str(bent.fault)) == (1, None, "bent")
    assert sound == Arrival(2, b"reply")


def test_a_site_that_says_again_and_again_that_it_was_away_is_given_up(transport, grid):
    transport.send({1: b"order"}, 7200.0)
    arrivals = []
    for _ in range(2 * MOST_TIMES):
        grid.online.discard(1)
        arrivals += transport.receive()
        grid.online.add(1)
        arrivals += transport.receive()
    assert arrivals == [Arrival(1, None, ReplyCode.NO_ANSWER)]
    assert len(grid.sent) == MOST_TIMES


def test_what_arrives_together_is_held_a_few_at_a_time_and_nothing_is_lost(grid, now):
    grid.online = set(range(1, 8))
    transport = GridTransport(grid, clock=lambda: now[0], pull=grid.pull, push=grid.push)
    transport.send(dict.fromkeys(range(1, 8), b"order"), 60.0)
    grid.answers = {f"m{n}": bytes(HELD_BYTES // 2 - 1 + n % 2) for n in range(7)}
    taken = []
    while some := transport.receive():
        assert sum(len(each.parcel) for each in some) < 2 * HELD_BYTES
        taken.append([each.node for each in some])
    assert [node for some in taken for node in some] == list(range(1, 8))
    assert len(taken) > 2
    assert grid.asked == 1, "what one look has found needs no other"


def test_parcels_are_made_a_few_at_a_time_and_each_once(grid, now):
    made: list[int] = []
    pushed: list[list[int]] = []

    def make(site: str) -> bytes:
        made.append(int(site))
        return bytes(HELD_BYTES // 2)

    def counting(_, messages):
        pushed.append([message.metadata.dst_node_id for message in messages])
        return grid.push(grid, messages)

    transport = GridTransport(grid, clock=lambda: now[0], pull=grid.pull, push=counting)
    transport.send(Parcels({n: str(n) for n in range(1, 6)}, make), 60.0)
    assert pushed == [[1, 2], [3, 4], [5]]
    assert made == [1, 2, 3, 4, 5]


def test_the_next_order_drops_what_was_found_and_not_handed_over(transport, grid):
    transport.send({1: b"order", 2: b"order"}, 60.0)
    grid.answers = {"m0": bytes(HELD_BYTES), "m1": b"late"}
    assert [each.node for each in transport.receive()] == [1]
    transport.send({1: b"next"}, 60.0)
    grid.answers["m2"] = b"new"
    assert transport.receive() == [Arrival(1, b"new")]
