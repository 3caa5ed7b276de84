"""The SuperExec's question whether a run is to begin, held until one is or seconds have passed.

Flower's SuperExec asks every second, day and night, and each question costs the SuperLink
ten milliseconds: most of what an aggregator used that had nothing to do. A question is let
through at once where a run was started since the last one, so that no run begins later.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import anyio

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

ACQUIRE: Final = "/v1/runtime/acquire-task"
START: Final = "/v1/control/start-run"
HOLD_S: Final = 9.0


rest = anyio.sleep


class Held:
    """Whoever waits for a run; of one event loop.

    Args:
        hold_s: how long a question is held at most.
    """

    def __init__(self, hold_s: float = HOLD_S) -> None:
        self._hold_s = hold_s
        self._started = anyio.Event()
        self._started.set()  # what waited before this process began is found at once

    def started(self) -> None:
        """Let a question through: the one that is held, or the next one."""
        self._started.set()

    async def hold(self, receive: Receive) -> Receive:
        """Wait until a run was started, time is up, or whoever asks has hung up.

        Args:
            receive: of the question.

        Returns:
            What gives the question's messages again, for whoever answers it.
        """
        messages = [await receive()]
        while messages[-1].get("more_body"):
            messages.append(await receive())
        async with anyio.create_task_group() as waiting:

            async def listen() -> None:
                messages.append(await receive())
                waiting.cancel_scope.cancel()

            waiting.start_soon(listen)
            with anyio.move_on_after(self._hold_s):
                await self._started.wait()
            waiting.cancel_scope.cancel()
        self._started = anyio.Event()

        async def again() -> Message:
            return messages.pop(0) if messages else await receive()

        return again
