"""Fetching the next chunks of a slide while this one is worked on.

A thread that does nothing but fetch: reading waits for a disk, and lets others run
meanwhile. It never fetches more than a few items ahead, so memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from queue import Queue
from threading import Event, Thread
from typing import Final, TypeVar

_AHEAD: Final = 2

_Item = TypeVar("_Item")


def read_ahead(items: Iterable[_Item], depth: int = _AHEAD) -> Generator[_Item, None, None]:
    """Yield the same items, fetched by a thread of their own, at most ``depth`` ahead.

    What goes wrong while fetching is raised here, in its turn. Leaving early stops
    the thread.
    """
    queue: Queue[tuple[str, _Item | BaseException | None]] = Queue(depth)
    stop = Event()

    def fetch() -> None:
        try:
            for item in items:
                queue.put(("item", item))
                if stop.is_set():
                    return
            queue.put(("end", None))
        except BaseException as error:  # noqa: BLE001  # raised again by the reader
            queue.put(("error", error))

    thread = Thread(target=fetch, daemon=True)
    thread.start()
    try:
        while True:
            kind, value = queue.get()
            if kind == "end":
                return
            if isinstance(value, BaseException) and kind == "error":
                raise value
            yield value  # type: ignore[misc]  # an item
    finally:
        stop.set()
        while thread.is_alive():  # it may wait for room
            while not queue.empty():
                queue.get_nowait()
            thread.join(0.01)
