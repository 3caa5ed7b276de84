"""Readers of what a stock SuperNode's app brings to a courier, and of what it is handed."""

from __future__ import annotations

import socket
import struct
from typing import cast

from flwr.app import Message, Metadata, RecordDict
from flwr.app.message import make_message

from site_client.courier.fleet import message_stub
from site_client.courier.handover import read_answer, read_incoming
from tests.fuzz import mutations
from tests.fuzz.decoder import Decoder


class _Stream:
    """Bytes that come as a socket's would, a few at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)

    def recv(self, size: int) -> bytes:
        piece = bytes(self._data[: min(size, 1000)])
        self._data = self._data[len(piece) :]
        return piece


def _message() -> Message:
    metadata = Metadata(
        run_id=9, message_id="m", src_node_id=1, dst_node_id=7, reply_to_message_id="",
        group_id="1", created_at=1000.0, ttl=60.0, message_type="train",
    )  # fmt: skip
    return make_message(metadata, RecordDict({}))


def of_the_handover() -> list[Decoder]:
    """A message with its parcel, and an answer."""
    stub = message_stub(_message())
    came = struct.pack(">IQ", len(stub), 6) + stub + b"parcel"
    answers = (struct.pack(">IQ", 0, 6) + b"parcel", struct.pack(">IQ", 5, 0))
    room = "site_client.courier.handover."
    return [
        Decoder(
            "message of a SuperNode",
            (came,),
            mutations.raw,
            lambda data: read_incoming(cast("socket.socket", _Stream(data))),
            (room + "read_incoming", room + "read_message"),
        ),
        Decoder(
            "answer to a SuperNode",
            answers,
            mutations.raw,
            lambda data: read_answer(cast("socket.socket", _Stream(data))),
            (room + "read_answer",),
        ),
    ]
