"""Sharing a slide's chunks out to threads, while the next chunks are being read.

A lane is a thread and what works in it: none works on two chunks at once, so each may
hold buffers and sums of its own. Results come in the order of the chunks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import chain
from typing import TypeVar

from site_client.pixels.reading import read_ahead

_Chunk = TypeVar("_Chunk")
_Result = TypeVar("_Result")


def shared_out(
    chunks: Iterable[_Chunk], lanes: Sequence[Callable[[_Chunk], _Result]]
) -> Generator[_Result, None, None]:
    """Yield what the lanes make of the chunks, in the order of the chunks.

    Args:
        chunks: fetched by a thread of their own, a few ahead.
        lanes: at least one; chunk ``k`` goes to lane ``k`` modulo their number.

    What a lane or the fetching raises is raised here, in its turn.
    """
    pending: deque[Future[_Result]] = deque()
    with ExitStack() as stack:
        pools = [stack.enter_context(ThreadPoolExecutor(1)) for _ in lanes]
        ahead = stack.enter_context(closing(read_ahead(chunks)))
        for number, chunk in enumerate(chain(ahead, [None] * len(lanes))):
            if chunk is not None:
                lane = number % len(lanes)
                pending.append(pools[lane].submit(lanes[lane], chunk))
            if pending and (chunk is None or len(pending) > len(lanes)):
                yield pending.popleft().result()
