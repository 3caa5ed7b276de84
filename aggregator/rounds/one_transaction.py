"""A call of the SuperLink in one transaction of its database, where nothing goes wrong.

Flower's handlers open a transaction for each step. Here they find one open, and what they
do in it is done together. Where a handler raises or refuses a piece, all of it is taken
back, and the call is worked on once more as Flower does, step by step: then what a refusal
leaves behind, and what it clears away, is Flower's own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from flwr.supercore.object_store.sql_object_store import SqlObjectStore
from flwr.supercore.sql_mixin import SqlMixin

Answer = TypeVar("Answer")
_TURN = threading.Lock()
"""SQLite has one writer at a time, and lets others sleep and look again; here they queue."""


class _NotWholeError(Exception):
    """Something of the call was refused."""


def at_once(
    state: Any,  # noqa: ANN401 - Flower's
    work: Callable[[], Answer],
    is_whole: Callable[[Answer], bool] = lambda _: True,
) -> Answer:
    """Return what a handler answers, its steps in one transaction.

    Args:
        state: the SuperLink's; one that lies in memory has no transactions.
        work: calls the handler; may be called twice, the first time for nothing.
        is_whole: whether an answer may stand; one that may not is asked for again.
    """
    if not shares_one_database(state):
        return work()
    with _TURN:
        # Whatever it is, the second time says so, in Flower's own words.
        with suppress(Exception), state.session():
            answer = work()
            if is_whole(answer):
                return answer
            raise _NotWholeError
        return work()


def shares_one_database(state: Any) -> bool:  # noqa: ANN401 - Flower's
    """Tell whether messages and pieces lie in one database, so that both are taken back."""
    store = state.object_store
    return (
        isinstance(state, SqlMixin)
        and isinstance(store, SqlObjectStore)
        and state.database_url == store.database_url
        and not state._is_in_memory_sqlite
    )
