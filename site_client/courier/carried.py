"""The app that a stock SuperNode starts for each message: to the courier with it, and back.

It runs in the SuperNode's process tree, sees no image and no key, and decides nothing. The
courier's folder is named where the SuperNode is started: ``--node-config
'courier="/srv/site/courier"'``.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from common.errors import RefusedError, UnreachableError, UsageError
from common.wire.carried import carried_parcel
from common.wire.transport import CODE, PARCEL, RECORD
from site_client.courier.fleet import message_stub
from site_client.courier.handover import read_answer, socket_name, write_frame

AGAIN_S = 0.5
"""Until a courier that is not there, or went away, is tried again."""

app = ClientApp()


@app.train()
def carry(message: Message, context: Context) -> Message:
    """Bring a message to the courier and return what it answers.

    Raises:
        UsageError: the SuperNode was not told where the courier is.
        UnreachableError: no courier answered while anybody waited.
    """
    folder = context.node_config.get("courier")
    if not isinstance(folder, str) or not folder:
        raise UsageError(
            "the SuperNode was not told where the courier is",
            field="--node-config",
            expected='courier="…", the courier\'s folder of the site',
            got="none",
        )
    stub, parcel = message_stub(message), _parcel_of(message)
    metadata = message.metadata
    number, answer = _ask(Path(folder), stub, parcel, metadata.created_at + metadata.ttl)
    if number:
        content = RecordDict({RECORD: ConfigRecord({CODE: number})})
    else:
        array = Array(np.frombuffer(answer, dtype=np.uint8))
        content = RecordDict({RECORD: ArrayRecord({PARCEL: array})})
    return Message(content, reply_to=message)


def _ask(folder: Path, stub: bytes, parcel: bytes, expires: float) -> tuple[int, bytes]:
    """Ask the courier until it answers, or nobody waits any longer."""
    while (left := expires - time.time()) > 0:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(left)
                with socket_name(folder) as name:
                    connection.connect(name)
                write_frame(connection, len(stub), stub, parcel)
                return read_answer(connection)
        except (OSError, RefusedError):
            time.sleep(AGAIN_S)
    raise UnreachableError("no courier answered in time", field=str(folder))


def _parcel_of(message: Message) -> bytes:
    """Return the parcel that a message carries; none, which the courier refuses, of any other."""
    record = message.content.get(RECORD)
    array = record.get(PARCEL) if isinstance(record, ArrayRecord) else None
    if not isinstance(array, Array):
        return b""
    try:
        return carried_parcel(array.dtype, array.shape, array.stype, array.data)
    except RefusedError:
        return b""
