"""A worker that was taken over writes into the outbox past its door: nothing of it leaves.

The liar has the worker's user and may put anything there under any name. In most of these
cases it lacks the ledger's key, in some it has it and lies with it. What the courier sent,
what it journalled and where the thing went is looked at; no case may end the courier.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flwr.app import Message, Metadata
from flwr.app.message import make_message

from common.canonical import canonical_json, sha256_hex
from common.crypto.identity import SigningKey
from common.ledger.log import Ledger
from common.ledger.notes import cosign_note, ledger_origin
from common.ledger.proof import Proof
from common.wire.codes import ReplyCode
from common.wire.parcel import unwrap, wrap
from common.wire.transport import CODE, MESSAGE_TYPE, PARCEL, RECORD
from site_client.courier.courier import Courier, parcel_content
from site_client.courier.fleet import Incoming, closed_reply
from site_client.files import write_atomically
from site_client.site import SiteSettings
from site_client.spool import Spool
from tests.releases import APP, FirstDoor, Ticks, a_journal, an_order, asked_by

IMAGE = os.urandom(1 << 20)
ORDER = an_order()


class Wire:
    """The aggregator's end: one order comes, whatever is pushed is kept."""

    def __init__(self) -> None:
        self.inbox: list[Incoming] = []
        self.pushed: list[tuple[object, Message]] = []
        self.before_push: Callable[[], object] = lambda: None

    def activate(self, known: int | None) -> int:
        return 77

    def heartbeat(self) -> bool:
        return True

    def pull(self) -> Incoming | None:
        return self.inbox.pop(0) if self.inbox else None

    def app_digest(self, run_id: int) -> str:
        return APP

    def push(self, content, reply_to) -> None:
        self.before_push()
        self.pushed.append((content, reply_to))

    def parcels(self) -> list[bytes]:
        """Bytes that left."""
        return [
            content.array_records[RECORD][PARCEL].numpy().tobytes()
            for content, _ in self.pushed
            if RECORD in content.array_records
        ]

    def codes(self) -> list[int]:
        """Numbers that the courier said by itself."""
        return [
            content.config_records[RECORD][CODE]
            for content, _ in self.pushed
            if RECORD in content.config_records
        ]


class Scene:
    """A courier that has handed an order to the worker and waits for the reply."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.wire = Wire()
        self.first = FirstDoor(root / "ledger")
        self.spool = Spool(root / "spool")
        self.spool.prepare()
        self.folder = root / "courier"
        self.folder.mkdir()
        self.path = self.spool.reply_path(sha256_hex(ORDER))
        settings = SiteSettings(
            federation="f", site="site-a", address="127.0.0.1:1", data="d", app_sha256=APP
        )
        journal = a_journal(self.folder / "journal.jsonl")
        self.courier = Courier(
            self.folder, settings, self.spool, self.wire, self.first.second(), journal
        )
        self.courier.go_online()
        self.wire.inbox.append(Incoming(message(), 9, time.time() + 60, ORDER))
        self.courier.turn()

    def lines(self, event: str) -> list[dict]:
        entries = [json.loads(line) for line in self.journal_text().splitlines()]
        return [entry for entry in entries if entry["event"] == event]

    def journal_text(self) -> bytes:
        path = self.folder / "journal.jsonl"
        return path.read_bytes() if path.exists() else b""


def message() -> Message:
    metadata = Metadata(
        run_id=9,
        message_id="",
        src_node_id=1,
        dst_node_id=77,
        reply_to_message_id="",
        group_id="",
        created_at=time.time(),
        ttl=60.0,
        message_type=MESSAGE_TYPE,
    )
    arrived = make_message(metadata, parcel_content(ORDER))
    arrived.metadata.__dict__["_message_id"] = arrived.object_id
    return arrived


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.first.ledger.close()


def test_an_honest_reply_leaves_byte_for_byte(scene):
    reply = scene.first.reply()
    write_atomically(scene.path, reply)
    scene.courier.turn()
    assert scene.wire.parcels() == [reply]
    assert scene.lines("REFUSE") == []


def changed(part: str, data: bytes) -> Callable[[Scene], bytes]:
    def change(scene: Scene) -> bytes:
        return wrap(scene.first.parts() | {part: data})

    return change


def swapped(scene: Scene) -> bytes:
    parts = scene.first.parts()
    return wrap(dict([*list(parts.items())[2:], *list(parts.items())[:2]]))


def names_of_empty_parts(scene: Scene) -> bytes:
    text = base64.b32encode(IMAGE[:2000]).decode().rstrip("=")
    names = {f"A{text[i : i + 62]}": b"" for i in range(0, 50 * 62, 62)}
    return wrap(scene.first.parts() | names)


def spelt_otherwise(scene: Scene) -> bytes:
    head, _, tail = scene.first.reply().partition(b"\n")
    return json.dumps(json.loads(head), indent=1).replace("\n", " ").encode() + b"\n" + tail


def with_proof(change: Callable[[Proof, Scene], Proof]) -> Callable[[Scene], bytes]:
    def build(scene: Scene) -> bytes:
        parts = scene.first.parts()
        proof = change(Proof.from_bytes(parts["RoundReport.proof"]), scene)
        return wrap(parts | {"RoundReport.proof": proof.to_bytes()})

    return build


def free_hashes(proof: Proof, _: Scene) -> Proof:
    """Kilobytes in the hashes of a link to a tree that nobody knows."""
    hashes = tuple(IMAGE[i * 32 : i * 32 + 32] for i in range(100))
    return Proof(proof.record, proof.seq, proof.inclusion, proof.checkpoint, 1, hashes)


def link_to_nothing(proof: Proof, _: Scene) -> Proof:
    """The size of an earlier tree is a number that could be anything."""
    return Proof(proof.record, proof.seq, proof.inclusion, proof.checkpoint, 1_234_567, ())


def second_signature(proof: Proof, _: Scene) -> Proof:
    """A signature line by some other key holds 64 bytes, and a name."""
    note = cosign_note(proof.checkpoint, SigningKey.from_seed(IMAGE[:32]), Ticks()())
    return Proof(proof.record, proof.seq, proof.inclusion, note, proof.since, proof.consistency)


def loose_proof(scene: Scene) -> bytes:
    parts = scene.first.parts()
    value = json.loads(parts["RoundReport.proof"]) | {"note": "x" * 5000}
    return wrap(parts | {"RoundReport.proof": canonical_json(value)})


def by_another_key(scene: Scene) -> bytes:
    forger = FirstDoor(scene.root / "forged")
    forger.ledger.close()
    forger.key = SigningKey.from_seed(b"\7" * 32)
    forger.ledger = Ledger.open(scene.root / "other", ledger_origin("site-a"), forger.key, Ticks())
    reply = forger.reply()
    forger.ledger.close()
    return reply


def recorded_with(**fields: object) -> Callable[[Scene], bytes]:
    """The liar has the ledger's key, and records words where a release has none."""
    return lambda scene: scene.first.reply(**fields)


BYTES: dict[str, Callable[[Scene], bytes]] = {
    "an image in place of a proof": changed("ModelUpdate.proof", IMAGE),
    "an image in place of an envelope": changed("ModelUpdate.envelope", IMAGE),
    "an image in place of the last envelope": changed("RoundReport.envelope", IMAGE),
    "an image as a further part": changed("Notes", IMAGE),
    "an image as a part of a known ending": changed("Notes.envelope", IMAGE),
    "an image as sealed keys": changed("SealedKeys.envelope", IMAGE),
    "an envelope without its proof": lambda s: wrap(dict(list(s.first.parts().items())[:3])),
    "only a proof": lambda s: wrap({"RoundReport.proof": s.first.parts()["RoundReport.proof"]}),
    "nothing at all": lambda s: wrap({}),
    "an empty file": lambda s: b"",
    "an image instead of a parcel": lambda s: IMAGE,
    "an image behind the parcel": lambda s: s.first.reply() + IMAGE,
    "an image before the parcel": lambda s: IMAGE + s.first.reply(),
    "data in names of empty parts": names_of_empty_parts,
    "the records in another order": swapped,
    "the manifest in another spelling": spelt_otherwise,
    "hashes of nothing in a proof": with_proof(free_hashes),
    "a number in a proof": with_proof(link_to_nothing),
    "a second signature in a proof": with_proof(second_signature),
    "a further field in a proof": loose_proof,
    "a ledger of its own": by_another_key,
    "the answer to another order": lambda s: s.first.reply(b"another order"),
    "a record of another app": recorded_with(app_sha256="b" * 64),
    "a record with words for its phase": recorded_with(phase="patient-Doe-1970"),
    "a record with a person": recorded_with(person="Jane Doe"),
    "a record with another site": recorded_with(peer="site-b", peer_key="c" * 64),
    "a record with another signature": recorded_with(order_signature="ab" * 64),
    "a record with a key's name": recorded_with(key_id="0" * 16, generation=4),
    "a record of another run": recorded_with(run="patient-doe"),
    "a record of another type": recorded_with(record_type="SketchTable"),
    "a record with another size": recorded_with(bytes=5),
}


@pytest.mark.parametrize("case", BYTES)
def test_bytes_that_no_release_has_do_not_leave(scene, case):
    written = BYTES[case](scene)
    scene.path.write_bytes(written)
    scene.courier.turn()
    scene.courier.turn()
    assert scene.wire.parcels() == []
    assert scene.wire.codes() == [ReplyCode.REFUSED_AT_DOOR]
    [line] = scene.lines("REFUSE")
    assert (line["what"], line["bytes"]) == ("reply", len(written))
    assert line["sha256"] == sha256_hex(written)
    assert not scene.path.exists(), "taken out of the outbox"
    [kept] = (scene.spool.root / "refused").iterdir()
    assert kept.read_bytes() == written, "and kept for a person"
    assert IMAGE[:32] not in scene.journal_text()
    assert IMAGE[:32].hex().encode() not in scene.journal_text()


def a_link(path: Path, root: Path) -> None:
    (root / "secret.img").write_bytes(IMAGE)
    path.symlink_to(root / "secret.img")


def a_link_to_a_release(path: Path, root: Path) -> None:
    (root / "elsewhere").write_bytes(b"")
    path.symlink_to(root / "elsewhere")


def a_second_name(path: Path, root: Path) -> None:
    (root / "secret.img").write_bytes(IMAGE)
    os.link(root / "secret.img", path)


def a_folder(path: Path, root: Path) -> None:
    path.mkdir()
    (path / "image").write_bytes(IMAGE)


def a_pipe(path: Path, root: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path, root: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # its name is too long for a socket's address
        try:
            server.bind("s")
        finally:
            os.chdir(here)
    (path.parent / "s").rename(path)


def a_hole(path: Path, root: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 41)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "put",
    [a_link, a_link_to_a_release, a_second_name, a_folder, a_pipe, a_socket, a_hole],
)
def test_what_is_no_file_of_its_own_is_neither_followed_nor_waited_for(scene, put):
    put(scene.path, scene.root)
    scene.courier.turn()
    scene.courier.turn()
    assert scene.wire.parcels() == []
    assert scene.wire.codes() == [ReplyCode.REFUSED_AT_DOOR]
    assert len(scene.lines("REFUSE")) == 1
    assert list(scene.spool.outbox.iterdir()) == []


STRANGE = ["image.dcm", "Notes", "x" * 250, f"{'a' * 64}.envelope", "\udcff"]


@pytest.mark.parametrize("name", STRANGE)
def test_strangers_in_the_outbox_are_taken_out_unopened_and_unnamed(scene, name):
    (scene.spool.outbox / name).write_bytes(IMAGE)
    (scene.spool.outbox / "deep").mkdir()
    scene.courier.turn()
    assert list(scene.spool.outbox.iterdir()) == []
    assert [line["what"] for line in scene.lines("REFUSE")] == ["stranger", "stranger"]
    assert b"image" not in scene.journal_text()
    assert scene.wire.pushed == []


def test_what_the_door_is_still_writing_is_left_alone(scene):
    temporary = scene.spool.outbox / f".{scene.path.name}.{'0' * 32}"
    temporary.write_bytes(b"half of a re")
    scene.courier.turn()
    assert temporary.exists()
    assert scene.lines("REFUSE") == []


def test_an_exchanged_outbox_is_refused_once_and_the_courier_goes_on(scene, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    scene.spool.outbox.rename(elsewhere)
    (elsewhere / scene.path.name).write_bytes(scene.first.reply())
    scene.spool.outbox.symlink_to(elsewhere)
    for _ in range(3):
        scene.courier.turn()
    assert scene.wire.parcels() == []
    assert [line["what"] for line in scene.lines("REFUSE")] == ["folder"]


def test_what_is_exchanged_after_the_look_does_not_leave(scene):
    reply = scene.first.reply()
    write_atomically(scene.path, reply)
    scene.wire.before_push = lambda: scene.path.write_bytes(IMAGE)
    scene.courier.turn()
    assert scene.wire.parcels() == [reply]
    assert not scene.path.exists()


def test_a_reply_of_an_earlier_round_cannot_be_sent_again_for_a_later_order(scene):
    first = scene.first.reply(b"an earlier order", 0)
    scene.path.write_bytes(first)
    scene.courier.turn()
    assert scene.wire.parcels() == []


def test_nothing_in_flowers_metadata_is_the_sites_choice():
    asked = message()
    asked.metadata.__dict__["_created_at"] = time.time() // 1 + 0.02
    asked.metadata.__dict__["_ttl"] = 61.23
    content = parcel_content(b"parcel")
    one, other = (closed_reply(content, asked, time.time() // 1 + part) for part in (0.2, 0.3))
    mine, theirs = one.metadata, asked.metadata
    assert (mine.created_at % 1, mine.ttl % 1) == (0, 0)
    assert mine.group_id == theirs.group_id
    assert mine.run_id == theirs.run_id
    assert mine.reply_to_message_id == theirs.message_id
    assert (mine.src_node_id, mine.dst_node_id) == (theirs.dst_node_id, theirs.src_node_id)
    assert mine.message_type == theirs.message_type
    assert mine.message_id == one.object_id
    assert mine.delivered_at == ""
    assert not one.has_error()
    assert one.object_id == other.object_id, "the fraction of a second tells nothing"
    assert list(one.content) == [RECORD]


def test_a_reply_links_to_no_other_tree_than_one_that_left_before(scene):
    reply = scene.first.reply()
    write_atomically(scene.path, reply)
    scene.courier.turn()
    size = scene.lines("RELEASE")[0]["size"]
    door = scene.courier._door
    assert set(door.roots) == {size}
    later = scene.first.reply(b"later", 2, since=size)
    assert door.check_reply(later, asked_by(b"later")).data == later
    proof = unwrap(later)["RoundReport.proof"]
    assert len(Proof.from_bytes(proof).consistency) > 0
