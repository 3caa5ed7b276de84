"""The journal: written before it is sent, chained, signed, and refused where it was touched."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.canonical import sha256_hex
from common.errors import InputDataError, VerificationError
from common.journal import writer
from common.journal.entries import CONTROL, parse_entry
from common.journal.identity import CourierIdentity, read_courier_key
from common.journal.reader import read_journal
from common.journal.writer import RequestJournal
from common.ledger.durable import StorageError
from tests.releases import NODE_KEY, a_journal

VECTORS = Path(__file__).parents[2] / "vectors"
VECTOR = VECTORS / "journal-told.json"
BEFORE_TELLING = VECTORS / "journal.json"
"""As releases wrote it that knew no call to be told."""


def grown(path: Path) -> RequestJournal:
    journal = a_journal(path)
    journal.announce("flower", "push-messages", 700, b"one")
    journal.code(1, "a" * 64)
    journal.announce("flower", "push-object", 800, b"two")
    journal.announce("flower", "pull-messages", 500, b"")
    journal.settle()
    return journal


def test_the_bytes_of_a_journal_are_frozen(tmp_path):
    grown(tmp_path / "j")
    lines = (tmp_path / "j").read_text().splitlines()
    assert lines == json.loads(VECTOR.read_text())["lines"]


def test_a_journal_from_before_there_was_a_call_to_be_told_is_still_read(tmp_path):
    lines = json.loads(BEFORE_TELLING.read_text())["lines"]
    (tmp_path / "j").write_text("".join(f"{line}\n" for line in lines))
    journal = read_journal(tmp_path / "j", "site-a")
    assert journal.broken is None
    assert len(journal.entries) == len(lines)


def test_the_same_requests_give_the_same_bytes(tmp_path):
    grown(tmp_path / "one")
    grown(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_request_stands_on_the_disk_when_announce_returns(tmp_path, monkeypatch):
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda d: (synced.append(os.fstat(d).st_size), real(d))[1])
    journal = a_journal(tmp_path / "j")
    journal.announce("flower", "push-object", 5_000_000, b"body")
    assert synced[-1] == (tmp_path / "j").stat().st_size
    entry = json.loads((tmp_path / "j").read_bytes().splitlines()[-1])
    assert (entry["kind"], entry["bytes"]) == ("push-object", 5_000_000)
    assert entry["sha256"] == sha256_hex(b"body")


def test_control_traffic_is_declared_before_and_counted_after(tmp_path):
    journal = a_journal(tmp_path / "j")
    for _ in range(5):
        journal.announce("flower", "pull-messages", 500, b"")
    events = [json.loads(line) for line in (tmp_path / "j").read_bytes().splitlines()]
    assert [e["event"] for e in events] == ["BEGIN", "ALLOW"]
    journal.settle()
    settled = json.loads((tmp_path / "j").read_bytes().splitlines()[-1])
    assert settled["used"] == [{"kind": "pull-messages", "count": 5, "bytes": 2500}]


def test_polls_beyond_the_declared_number_need_a_new_declaration(tmp_path):
    journal = a_journal(tmp_path / "j")
    most = CONTROL["get-run"][0]
    for _ in range(most + 1):
        journal.announce("flower", "get-run", 500, b"")
    events = [json.loads(line)["event"] for line in (tmp_path / "j").read_bytes().splitlines()]
    assert events == ["BEGIN", "ALLOW", "SETTLE", "ALLOW"]


def test_a_poll_longer_than_polls_are_stands_alone(tmp_path):
    journal = a_journal(tmp_path / "j")
    journal.announce("flower", "pull-messages", 1025, b"x" * 600)
    events = [json.loads(line)["event"] for line in (tmp_path / "j").read_bytes().splitlines()]
    assert events == ["BEGIN", "REQUEST"]


def test_programs_of_one_site_write_one_chain(tmp_path):
    path = tmp_path / "j"
    writers = [a_journal(path) for _ in range(4)]

    def write(journal: RequestJournal) -> None:
        for number in range(10):
            journal.announce("desk", "Renew", number, b"%d" % number)

    threads = [threading.Thread(target=write, args=(journal,)) for journal in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal = read_journal(path, "site-a")
    assert journal.broken is None
    assert len(journal.entries) == 44


def test_a_line_that_a_crash_cut_short_is_removed_and_nothing_else(tmp_path):
    path = tmp_path / "j"
    grown(path)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"event":"REQ')
    a_journal(path).announce("flower", "push-messages", 700, b"later")
    assert path.read_bytes().startswith(whole)
    assert read_journal(path).broken is None


def test_a_journal_whose_end_was_changed_is_not_continued(tmp_path):
    path = tmp_path / "j"
    grown(path)
    path.write_bytes(path.read_bytes()[:-5] + b"0000\n")
    with pytest.raises(VerificationError, match="nothing is sent"):
        a_journal(path).announce("flower", "push-messages", 700, b"x")


def test_a_full_disk_stops_the_request_and_no_half_line_stays(tmp_path, monkeypatch):
    journal = grown(tmp_path / "j")
    whole = (tmp_path / "j").read_bytes()

    def half(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as full:
        full.setattr(writer, "write_all", half)
        with pytest.raises(StorageError, match="disk is full"):
            journal.announce("flower", "push-messages", 700, b"x")
    journal.announce("flower", "push-messages", 700, b"x")
    assert (tmp_path / "j").read_bytes().startswith(whole)
    assert read_journal(tmp_path / "j").broken is None


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_plain_file_is_not_written_to(tmp_path, make):
    make(tmp_path / "j")
    with pytest.raises((VerificationError, StorageError)):
        a_journal(tmp_path / "j").announce("flower", "push-messages", 700, b"x")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_byte_of_a_journal_can_be_changed(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("j") / "j"
    grown(path)
    whole = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(whole) - 2))
    change = data.draw(st.integers(1, 255))
    whole[place] ^= change
    path.write_bytes(whole)
    assert read_journal(path, "site-a").broken is not None


@pytest.mark.parametrize("change", ["drop", "swap", "double", "first"])
def test_no_line_can_be_moved_removed_or_doubled(tmp_path, change):
    path = tmp_path / "j"
    grown(path)
    lines = path.read_bytes().splitlines(keepends=True)
    match change:
        case "drop":
            del lines[2]
        case "swap":
            lines[2], lines[3] = lines[3], lines[2]
        case "double":
            lines.insert(2, lines[2])
        case "first":
            del lines[0]
    path.write_bytes(b"".join(lines))
    assert read_journal(path, "site-a").broken is not None


def test_a_journal_by_another_courier_is_refused(tmp_path):
    path = tmp_path / "j"
    grown(path)
    from cryptography.hazmat.primitives.asymmetric import ec

    other = ec.derive_private_key(77, ec.SECP384R1()).public_key()
    assert "another courier's" in str(read_journal(path, "site-a", other).broken)
    assert read_journal(path, "site-a", NODE_KEY.public_key()).broken is None


def test_a_journal_of_another_site_is_refused(tmp_path):
    grown(tmp_path / "j")
    assert "another site's" in str(read_journal(tmp_path / "j", "site-b").broken)


def test_an_emptied_journal_does_not_hold(tmp_path):
    (tmp_path / "j").write_bytes(b"")
    assert "empty" in str(read_journal(tmp_path / "j").broken)


@pytest.mark.timeout(20)
def test_a_pipe_in_the_journals_place_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "j")
    journal = read_journal(tmp_path / "j")
    assert "a named pipe" in str(journal.broken)


def test_a_missing_journal_is_bad_input(tmp_path):
    with pytest.raises(InputDataError, match="cannot read"):
        read_journal(tmp_path / "j")


def test_a_courier_is_known_by_its_public_line(tmp_path):
    from common.crypto.certificates import node_public_line

    (tmp_path / "k").write_text(node_public_line(NODE_KEY) + "\n")
    assert read_courier_key(tmp_path / "k").public_numbers() == (
        NODE_KEY.public_key().public_numbers()
    )


def test_no_line_says_more_than_its_form(tmp_path):
    grown(tmp_path / "j")
    line = (tmp_path / "j").read_bytes().splitlines()[1]
    identity = CourierIdentity.of(NODE_KEY)
    assert parse_entry(line, identity.key.public).event == "REQUEST"
    from common.canonical import canonical_json
    from common.journal.entries import CONTEXT

    body = {k: v for k, v in json.loads(line).items() if k != "sig"} | {"note": "patient"}
    signed = body | {"sig": identity.key.sign(CONTEXT + canonical_json(body)).hex()}
    with pytest.raises(VerificationError, match="unreadable"):
        parse_entry(canonical_json(signed), identity.key.public)
