"""A call that goes on while the desk has something to say: on a connection of its own.

It says little: no pings, nothing tried again by itself, one connection for its whole life.
Who listens hears words or silence, and an end that is an error or in order.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import grpc
from grpc.experimental import ChannelOptions

from common.desk.channel import CALL_S, DeskAddress, open_channel, told
from common.errors import UnreachableError

_QUIET = (
    ("grpc.use_local_subchannel_pool", 1),  # shared with no other channel
    ("grpc.http2.bdp_probe", 0),  # no pings in answer to what comes
    ("grpc.enable_retries", 0),
    # Whoever hears also waits: one thread sleeps for months, and not two that wake each other.
    (ChannelOptions.SingleThreadedUnaryStream, 1),
)
_Word = TypeVar("_Word")


class Listening(Generic[_Word]):
    """One call whose answers are heard as they come.

    Args:
        call: gRPC's, an iterator of answers.
        desk: that is listened to.
        hear: takes each answer, in a thread of this call.
    """

    def __init__(self, call: Any, desk: DeskAddress, hear: Callable[[_Word], None]) -> None:  # noqa: ANN401 - grpc's
        self._call = call
        self._desk = desk
        self._hear = hear
        self._heard_at = time.monotonic()
        self._error: BaseException | None = None
        self._over = threading.Event()
        threading.Thread(target=self._listen, name="listening", daemon=True).start()

    @property
    def silent_s(self) -> float:
        """Seconds since something was heard."""
        return time.monotonic() - self._heard_at

    def wait(self, seconds: float) -> bool:
        """Sleep until the call is over or time is up; True if it is over, in order.

        Raises:
            CairnError: it ended by an error, the desk's or the network's.
        """
        if not self._over.wait(seconds):
            return False
        if self._error is not None:
            with told(self._desk):
                raise self._error
        return True

    def _listen(self) -> None:
        try:
            for word in self._call:
                self._heard_at = time.monotonic()
                self._hear(word)
        except grpc.RpcError as error:
            self._error = error
        finally:
            self._over.set()


@contextmanager
def standing_channel(desk: DeskAddress) -> Iterator[grpc.Channel]:
    """Open a channel whose one connection stands when this is entered; closed at the end.

    Args:
        desk: that was greeted.

    Raises:
        UnreachableError: no connection within ten seconds.
    """
    with open_channel(desk, *_QUIET) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=CALL_S)
        except grpc.FutureTimeoutError as error:
            raise UnreachableError(
                "the aggregator's desk does not answer", field=desk.address, got="silence"
            ) from error
        yield channel
