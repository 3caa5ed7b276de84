"""The balance: what the ledger declares, what the courier asked, and what the sockets counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.canonical import sha256_hex
from common.errors import InputDataError
from common.journal.causes import FRAME_BYTES, HANDED_BYTES, RECORDS, UNEXPLAINED
from common.journal.counters import read_counters
from common.journal.entries import Network, Part
from common.journal.meters import network
from tests.books import Books
from tests.releases import asked_by


def test_an_honest_run_is_explained_to_the_byte(books):
    for number in (1, 2, 3):
        books.round_(number)
    balance = books.weigh()
    assert balance.holds, balance.findings
    assert balance.unexplained == 0
    assert sum(balance.causes.values()) == balance.wire
    assert balance.causes[RECORDS] == sum(r.bytes for r in books.records() if r.event == "SEND")
    assert balance.unsent == ()


def test_bytes_on_the_socket_that_nobody_announced_are_unexplained(books):
    books.round_(1)
    books.count(0, hidden=5_000_000)
    books.journal.settle()
    balance = books.weigh()
    assert not balance.holds
    assert balance.unexplained == 5_000_000


def test_a_push_far_longer_than_what_was_released_is_unexplained(books):
    books.round_(1, extra=5_000_000)
    balance = books.weigh()
    assert not balance.holds
    assert balance.unexplained >= 5_000_000 - FRAME_BYTES


def test_a_push_without_a_release_does_not_hold(books):
    books.journal.announce("flower", "push-object", 5000, b"x")
    books.count(5000)
    books.journal.settle()
    balance = books.weigh()
    assert any("was not released" in finding for finding in balance.findings)
    assert balance.unexplained == 5000


def test_a_release_that_the_ledger_does_not_declare_does_not_hold(books):
    books.round_(1)
    part = Part(record_type="ModelUpdate", sha256=sha256_hex(b"smuggled"), bytes=8)
    books.journal.release("a" * 64, b"smuggled", (part,), 3, b"r" * 32, "b" * 64)
    assert any(
        "are in no record" in f or "have no record" in f or "in no record" in f
        for f in books.weigh().findings
    )


def test_a_release_of_another_size_than_declared_does_not_hold(books):
    books.round_(1)
    record = next(r for r in books.records() if r.event == "SEND")
    part = Part(record_type="ModelUpdate", sha256=record.payload_sha256, bytes=5)
    books.journal.release("a" * 64, b"12345", (part,), 3, b"r" * 32, "b" * 64)
    assert any("the record says" in finding for finding in books.weigh().findings)


def test_a_journal_that_was_cut_at_a_true_line_lacks_what_the_aggregator_has_cosigned(books):
    for number in (1, 2, 3):
        books.round_(number)
    lines = books.path.read_bytes().splitlines(keepends=True)
    third = [i for i, line in enumerate(lines) if b'"RELEASE"' in line][2]
    books.path.write_bytes(b"".join(lines[:third]))
    balance = books.weigh()
    assert not balance.holds
    assert any("lines are missing" in finding for finding in balance.findings)
    assert len(balance.unsent) == 2


def test_what_the_second_door_held_back_is_shown(books):
    from common.ledger.records import RefusalDetail

    books.round_(1)
    detail = RefusalDetail(field="parts", expected="an envelope", got="others")
    books.journal.refuse("reply", detail, b"image")
    balance = books.weigh()
    assert balance.refusals == 1
    assert any("held back a reply of 5 bytes" in note for note in balance.notes)


def counters(path: Path, sent: int, packets: int = 0, layer: str = "ip") -> Path:
    value = {"v": 1, "layer": layer, "sent_bytes": sent, "sent_packets": packets}
    path.write_text(json.dumps(value))
    return path


def test_a_firewalls_count_shows_what_the_courier_did_not(books, tmp_path):
    books.round_(1)
    wire = books.weigh().wire
    honest = books.weigh(counters(tmp_path / "c", wire + 10 * 52, 10))
    assert honest.holds, honest.findings
    assert honest.causes["headers of IP and TCP"] == 520
    lying = books.weigh(counters(tmp_path / "c", wire + 10 * 52 + 9000, 10))
    assert not lying.holds
    assert lying.causes[UNEXPLAINED] == 9000


def test_what_nft_prints_is_read(tmp_path):
    counter = {"family": "inet", "table": "cairn_courier", "name": "sent", "handle": 2}
    value = {"nftables": [{"metainfo": {}}, {"counter": counter | {"packets": 3, "bytes": 999}}]}
    (tmp_path / "c").write_text(json.dumps(value))
    read = read_counters(tmp_path / "c")
    assert (read.sent_bytes, read.sent_packets, read.headers) == (999, 3, 156)


@pytest.mark.parametrize("text", ["", "[]", '{"nftables": 3}', '{"v": 1}', "[" * 5000, "\x00"])
def test_another_file_is_no_counter(tmp_path, text):
    (tmp_path / "c").write_text(text)
    with pytest.raises(InputDataError, match="not a file of counters"):
        read_counters(tmp_path / "c")


def test_the_kernels_counters_of_a_network_leave_loopback_out(tmp_path):
    folder = tmp_path / "self" / "net"
    folder.mkdir(parents=True)
    (folder / "dev").write_text(
        "Inter-|   Receive |  Transmit\n face |bytes packets|bytes packets\n"
        "    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n"
        "  eth0: 5 6 0 0 0 0 0 0 700 8 0 0 0 0 0 0\n"
    )
    assert network(tmp_path) == Network(sent_bytes=700, sent_packets=8)
    assert network(tmp_path / "absent") is None


@pytest.mark.parametrize(("hidden", "holds"), [(0, True), (50_000, False)])
def test_the_kernels_count_of_the_couriers_own_network_shows_another_speaker(
    tmp_path, hidden, holds
):
    now = {"network": Network(sent_bytes=100, sent_packets=1)}
    books = Books(tmp_path, network=lambda: now["network"])
    books.journal.code(1)  # the session begins, and reads the counters
    sent = books.plain_of_a_round() + 666
    now["network"] = Network(sent_bytes=100 + sent + 20 * 66 + hidden, sent_packets=21)
    books.round_(1)
    balance = books.weigh()
    books.first.ledger.close()
    assert balance.counted_by == "the courier's own network"
    assert balance.holds is holds, balance.findings
    assert balance.unexplained == hidden


def test_a_table_of_causes_adds_up_to_the_wire(books):
    books.round_(1)
    balance = books.weigh()
    told = "\n".join(balance.text_lines())
    assert "records that the ledger declares" in told
    assert "unexplained" in told
    value = balance.as_dict()
    assert value["unexplained_percent"] == 0
    assert sum(value["causes"].values()) == value["wire_bytes"]


def test_what_a_supernode_is_handed_is_told_and_no_wire_of_ours_has_it(books):
    books.round_(1)
    before = books.weigh()
    passed = released(books, 2)
    books.journal.announce("supernode", "hand-over", len(passed) + HANDED_BYTES, passed)
    books.journal.settle()
    after = books.weigh()
    assert after.holds, after.findings
    assert after.wire == before.wire
    told = [note for note in after.notes if "handed to a SuperNode" in note]
    assert [f"{len(passed) + HANDED_BYTES:,} bytes" in note for note in told] == [True]


def test_more_than_was_released_is_not_handed_over_unseen(books):
    passed = released(books, 1)
    books.journal.announce("supernode", "hand-over", len(passed) + HANDED_BYTES + 1, passed)
    assert any("was not released" in finding for finding in books.weigh().findings)


def released(books: Books, number: int) -> bytes:
    """One reply that passed both doors and stands in the journal; not pushed."""
    text = b"order %d" % number
    passed = books.first.second().check_reply(books.first.reply(text, number), asked_by(text))
    books.journal.release(
        passed.parts[0].sha256, passed.data, passed.parts, passed.checkpoint.size,
        passed.checkpoint.root, passed.policy_sha256,
    )  # fmt: skip
    return passed.data
