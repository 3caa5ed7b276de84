"""The SuperExec's question is held while there is nothing to begin, and never a moment longer."""

from __future__ import annotations

import time

import anyio
import pytest
from flwr.supercore.routers.runtime.router import router

from aggregator.rounds.guarded_superlink import SitesOnly
from aggregator.rounds.held import ACQUIRE, START, Held

BODY = ({"type": "http.request", "body": b"wh", "more_body": True},)
REST = {"type": "http.request", "body": b"at", "more_body": False}
GONE = {"type": "http.disconnect"}
SHORT, LONG = 0.2, 30.0


def asker(hangs_up_after: float = LONG):
    """What a question's messages come by: a body in two pieces, and an end some time."""
    messages = [*BODY, REST]

    async def receive():
        if messages:
            return messages.pop(0)
        await anyio.sleep(hangs_up_after)
        return GONE

    return receive


async def timed(held: Held, receive) -> tuple[float, list[dict]]:
    began = time.monotonic()
    again = await held.hold(receive)
    seconds = time.monotonic() - began
    return seconds, [await again(), await again()]


def test_the_first_question_and_the_one_after_a_start_are_let_through_at_once():
    async def three() -> list[float]:
        held = Held(LONG)
        first, messages = await timed(held, asker())
        assert messages == [*BODY, REST], "whoever answers reads what was asked"
        held.started()
        second, _ = await timed(held, asker())
        held = Held(SHORT)
        await held.hold(asker())
        third, _ = await timed(held, asker())
        return [first, second, third]

    first, second, third = anyio.run(three)
    assert max(first, second) < LONG / 2
    assert third >= SHORT


def test_a_question_that_is_held_ends_when_a_run_is_started():
    async def start_while_held() -> float:
        held = Held(LONG)
        await held.hold(asker())
        async with anyio.create_task_group() as group:

            async def start() -> None:
                await anyio.sleep(SHORT)
                held.started()

            group.start_soon(start)
            seconds, _ = await timed(held, asker())
        return seconds

    assert SHORT <= anyio.run(start_while_held) < LONG / 2


def test_a_question_whose_asker_hangs_up_is_held_no_longer_and_the_end_is_told():
    async def hang_up() -> tuple[float, list[dict]]:
        held = Held(LONG)
        await held.hold(asker())
        began = time.monotonic()
        again = await held.hold(asker(SHORT))
        return time.monotonic() - began, [await again() for _ in range(3)]

    seconds, messages = anyio.run(hang_up)
    assert SHORT <= seconds < LONG / 2
    assert messages == [*BODY, REST, GONE]


@pytest.mark.parametrize(("path", "held_back"), [(ACQUIRE, True), ("/v1/runtime/get-nodes", False)])
def test_the_guard_holds_that_question_and_no_other(path, held_back):
    async def ask() -> tuple[float, float]:
        async def app(scope, receive, send) -> None:
            answered.append(scope["path"])

        answered: list[str] = []
        guard = SitesOnly(app, held=Held(SHORT))

        async def request(path: str) -> float:
            began = time.monotonic()
            scope = {"type": "http", "path": path, "method": "GET", "headers": []}
            ends = {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2)}
            await guard({**scope, **ends}, asker(), None)
            return time.monotonic() - began

        await request(path)
        idle = await request(path)
        await request(START)
        after = await request(path)
        assert answered == [path, path, START, path]
        return idle, after

    idle, after = anyio.run(ask)
    assert (idle >= SHORT) is held_back
    assert after < SHORT or not held_back


def test_flower_still_asks_under_this_path():
    paths = {route.path.rpartition("/")[2] for route in router.routes}
    assert ACQUIRE.rpartition("/")[2] in paths
