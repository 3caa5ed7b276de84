"""Noticing, before the SuperLink, that a reply is complete: all its pieces have been pushed.

Flower hands a reply out as soon as it is announced, and whoever asks for it then waits a
second for its pieces. The guard follows each announcement until its last piece, and says
so. What it cannot follow is found by asking, as ever.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

from flwr.proto.fleet_pb2 import PushMessagesRequest, PushMessagesResponse
from flwr.proto.message_pb2 import PushObjectRequest
from google.protobuf.message import DecodeError, Message

from common.wire.several import PUSH_PIECES

MOST_KEPT: Final = 4096
"""Replies that are followed at a time; the oldest is let go."""
MOST_BODY: Final = 1 << 20
PUSH_MESSAGES, PUSH_OBJECT = "/v1/fleet/push-messages", "/v1/fleet/push-object"
PUSH_SEVERAL: Final = f"/v1/fleet/{PUSH_PIECES}"
FOLLOWED: Final = frozenset({PUSH_MESSAGES, PUSH_OBJECT, PUSH_SEVERAL})


class Completed:
    """The replies that are on their way.

    Args:
        say: called when one is complete.
    """

    def __init__(self, say: Callable[[], None]) -> None:
        self._say = say
        self._lacking: OrderedDict[str, set[str]] = OrderedDict()

    def note(self, request: Message | None, answer: bytes) -> None:
        """Take up a call of a courier that the SuperLink has answered well.

        Args:
            request: as the SuperLink has read it.
            answer: the answer's body; needed of announcements only.
        """
        if isinstance(request, PushMessagesRequest):
            try:
                response = PushMessagesResponse.FromString(answer)
            except DecodeError:
                return
            self._announced(response.session_id, response.objects_to_push)
        elif isinstance(request, PushObjectRequest):
            self._pushed(request.session_id, request.object_id)

    def _announced(self, session: str, lacking: Iterable[str]) -> None:
        names = set(lacking)
        if not names:
            self._say()
            return
        self._lacking[session] = names
        while len(self._lacking) > MOST_KEPT:
            self._lacking.popitem(last=False)

    def _pushed(self, session: str, name: str) -> None:
        names = self._lacking.get(session)
        if names is None:
            return
        names.discard(name)
        if not names:
            del self._lacking[session]
            self._say()
