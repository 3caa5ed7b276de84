"""A courier whose connection a SuperNode holds: what is brought, what is handed over, what not."""

from __future__ import annotations

import json
import socket
import stat
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    Metadata,
    MetricRecord,
    RecordDict,
)
from flwr.app.message import make_message

from common.canonical import sha256_hex
from common.errors import InputDataError, UnreachableError, UsageError, VerificationError
from common.wire.codes import ReplyCode
from common.wire.transport import CODE, MESSAGE_TYPE, PARCEL, RECORD
from site_client.courier import handover
from site_client.courier.carried import carry
from site_client.courier.courier import Courier, code_content, parcel_content
from site_client.courier.handover import SOCKET, Handover, socket_name
from site_client.site import SiteSettings
from site_client.spool import Spool
from tests.releases import APP, FirstDoor, a_journal, an_order

ORDER = an_order()


def message(content: RecordDict, seconds: float = 30.0, name: str = "") -> Message:
    metadata = Metadata(
        run_id=9, message_id=name, src_node_id=1, dst_node_id=77, reply_to_message_id="",
        group_id="1", created_at=time.time(), ttl=seconds, message_type=MESSAGE_TYPE,
    )  # fmt: skip
    made = make_message(metadata, content)
    made.metadata.__dict__["_message_id"] = name or made.object_id
    return made


def context(folder: object) -> Context:
    return Context(9, 77, {"courier": folder} if folder else {}, RecordDict(), {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Deeper than a socket's name may be long."""
    made = tmp_path / "-".join(["deep"] * 30) / "courier"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def rang() -> threading.Event:
    return threading.Event()


@pytest.fixture
def held(folder: Path, rang: threading.Event) -> Iterator[Handover]:
    made = Handover(folder, a_journal(folder / "journal.jsonl"), rang.set)
    yield made
    made.close()


@pytest.fixture
def supernode() -> Iterator[ThreadPoolExecutor]:
    """Runs the app for a message, as a SuperNode does, while the courier goes on."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


def brought(supernode: ThreadPoolExecutor, folder: Path, sent: Message) -> Future[Message]:
    return supernode.submit(carry, sent, context(str(folder)))


def taken(held: Handover, rang: threading.Event) -> object:
    assert rang.wait(20)
    rang.clear()
    return held.pull()


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(20)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:  # it was closed before all was read
        return True


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_bytes().splitlines()]


def test_a_message_is_brought_whole_and_its_answer_taken_along(held, folder, rang, supernode):
    sent = message(parcel_content(ORDER))
    answer = brought(supernode, folder, sent)
    came = taken(held, rang)
    assert (came.parcel, came.run_id) == (ORDER, 9)
    assert came.expires == pytest.approx(sent.metadata.created_at + sent.metadata.ttl)
    assert held.pull() is None
    held.push(parcel_content(b"released"), came.message)
    reply = answer.result(20)
    assert reply.content[RECORD][PARCEL].numpy().tobytes() == b"released"
    assert reply.metadata.reply_to_message_id == sent.metadata.message_id
    last = lines(folder)[-1]
    handed = struct.pack(">IQ", 0, 8) + b"released"
    assert (last["event"], last["receiver"], last["kind"]) == ("REQUEST", "supernode", "hand-over")
    assert (last["bytes"], last["sha256"]) == (len(handed), sha256_hex(handed))


def test_a_number_is_all_that_a_courier_says_by_itself(held, folder, rang, supernode):
    answer = brought(supernode, folder, message(parcel_content(ORDER)))
    held.push(code_content(ReplyCode.NO_ANSWER), taken(held, rang).message)
    assert answer.result(20).content[RECORD] == ConfigRecord({CODE: int(ReplyCode.NO_ANSWER)})


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({RECORD: MetricRecord({"a": 1})}),
        RecordDict({RECORD: ArrayRecord({PARCEL: Array(np.zeros(3))})}),
        RecordDict({RECORD: ArrayRecord({"another": Array(np.zeros(3, np.uint8))})}),
    ],
    ids=["nothing", "metrics", "floats", "another array"],
)
def test_a_message_of_another_kind_comes_as_a_parcel_that_holds_no_order(
    content, held, folder, rang, supernode
):
    answer = brought(supernode, folder, message(content))
    came = taken(held, rang)
    assert came.parcel == b""
    held.push(code_content(ReplyCode.BAD_ORDER), came.message)
    assert answer.result(20).content[RECORD][CODE] == int(ReplyCode.BAD_ORDER)


def test_a_courier_that_comes_later_is_found_and_one_that_restarts_is_brought_it_again(
    folder, rang, supernode
):
    answer = brought(supernode, folder, message(parcel_content(ORDER)))
    journal = a_journal(folder / "journal.jsonl")
    first = Handover(folder, journal, rang.set)
    came = taken(first, rang)
    first.close()
    second = Handover(folder, journal, rang.set)
    try:
        again = taken(second, rang)
        assert again.parcel == came.parcel == ORDER
        second.push(parcel_content(b"released"), again.message)
        assert answer.result(20).content[RECORD][PARCEL].numpy().tobytes() == b"released"
    finally:
        second.close()
    with pytest.raises(FileNotFoundError), socket_name(folder) as name:
        Path(name).stat()


def test_an_answer_for_which_no_app_waits_is_kept_until_its_time_is_over(held):
    with pytest.raises(UnreachableError, match="does not wait"):
        held.push(parcel_content(b"released"), message(RecordDict(), 60))
    with pytest.raises(VerificationError, match="nobody waits"):
        held.push(parcel_content(b"released"), message(RecordDict(), 0.0))


def test_nobody_else_of_the_machine_can_reach_the_socket(held, folder):
    with socket_name(folder) as name:
        mode = Path(name).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_a_file_of_somebody_else_in_the_sockets_place_stays(folder):
    (folder / SOCKET).write_text("somebody's")
    with pytest.raises(InputDataError, match="cannot be waited for"):
        Handover(folder, a_journal(folder / "journal.jsonl"), lambda: None)
    assert (folder / SOCKET).read_text() == "somebody's"


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 5, struct.pack(">IQ", 1 << 31, 1), struct.pack(">IQ", 3, 1 << 60) + b"abc",
     struct.pack(">IQ", 3, 1) + b"\xff\xff\xffx"],
    ids=["nothing", "half a head", "a long stub", "a long parcel", "a strange stub"],
)  # fmt: skip
def test_what_is_no_message_is_dropped_and_the_next_one_is_taken(
    data, held, folder, rang, supernode
):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as liar, socket_name(folder) as name:
        liar.connect(name)
        liar.sendall(data)
        liar.shutdown(socket.SHUT_WR)
        assert is_closed(liar), "and nothing was said"
    answer = brought(supernode, folder, message(parcel_content(ORDER)))
    held.push(parcel_content(b"released"), taken(held, rang).message)
    answer.result(20)


def test_more_messages_than_anybody_sends_are_turned_away(held, folder, rang, monkeypatch):
    monkeypatch.setattr(handover, "MOST_WAITING", 0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as liar, socket_name(folder) as name:
        liar.connect(name)
        assert is_closed(liar)
    assert held.pull() is None
    assert not rang.is_set()


def test_a_supernode_that_was_not_told_where_the_courier_is_says_so():
    with pytest.raises(UsageError, match="--node-config"):
        carry(message(parcel_content(ORDER)), context(None))


def test_no_courier_until_nobody_waits_is_an_error(folder):
    with pytest.raises(UnreachableError, match="no courier answered"):
        carry(message(parcel_content(ORDER), 0.2), context(str(folder)))


def test_a_courier_takes_orders_and_answers_them_through_it(held, folder, tmp_path, supernode):
    spool, first = Spool(tmp_path / "spool"), FirstDoor(tmp_path / "ledger")
    spool.prepare()
    settings = SiteSettings(
        federation="f", site="site-a", address="127.0.0.1:1", data="d", app_sha256=APP
    )
    courier = Courier(
        folder, settings, spool, held, first.second(), a_journal(folder / "journal.jsonl")
    )
    courier.go_online()
    assert not (folder / "node-id").exists(), "the SuperNode's id is not the courier's"
    answer = brought(supernode, folder, message(parcel_content(ORDER)))
    while not courier._deliveries:
        courier.turn()
        time.sleep(0.02)
    reply = first.reply()
    spool.reply_path(sha256_hex(ORDER)).write_bytes(reply)
    while not answer.done():
        courier.turn()
        time.sleep(0.02)
    assert answer.result().content[RECORD][PARCEL].numpy().tobytes() == reply
    events = [line["event"] for line in lines(folder)]
    assert events.index("RELEASE") < events.index("REQUEST")
    first.ledger.close()
