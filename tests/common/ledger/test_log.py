"""The writer records before anything leaves, and opens only what it signed."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from common.canonical import sha256_hex
from common.crypto.identity import SigningKey
from common.errors import InputDataError, VerificationError
from common.ledger.durable import StorageError
from common.ledger.log import Ledger
from common.ledger.merkle import EMPTY_ROOT
from common.ledger.notes import Checkpoint, ledger_key, open_note, sign_checkpoint
from common.ledger.proof import cosign
from common.ledger.records import record_line
from common.ledger.verify import verify_ledger


def test_a_new_ledger_begins_with_its_genesis_record(tmp_path, world):
    with world.open(tmp_path / "ledger") as ledger:
        assert [record.event for record in ledger.records()] == ["GENESIS"]
        assert ledger.size == 1
        assert ledger.public_key == world.site.public


def test_what_was_appended_is_there_after_reopening(tmp_path, world):
    with world.open(tmp_path) as ledger:
        entry = world.send(ledger, b"weights", 4)
    with world.open(tmp_path) as ledger:
        assert ledger.size == 2
        assert ledger.line(1) == entry.line == record_line(entry.record)
        assert ledger.checkpoint == entry.checkpoint
        assert ledger.find(sha256_hex(b"weights")) == entry.record
        assert ledger.payload(sha256_hex(b"weights")) == b"weights"
        assert ledger.append("SENT", payload_sha256=sha256_hex(b"weights")).seq == 2


def test_the_checkpoint_of_an_entry_signs_the_log_up_to_it(tmp_path, world):
    with world.open(tmp_path) as ledger:
        entry = world.send(ledger, b"weights")
        opened = open_note(entry.checkpoint, [ledger_key(world.origin, world.site.public)])
        assert opened.checkpoint.size == entry.seq + 1


def test_find_tells_events_apart_and_knows_nothing_it_was_not_told(tmp_path, world):
    digest = sha256_hex(b"weights")
    with world.open(tmp_path) as ledger:
        assert ledger.find(digest) is None
        world.send(ledger, b"weights")
        assert ledger.find(digest).seq == 1
        assert ledger.find(digest, "SENT") is None
        ledger.append("SENT", payload_sha256=digest)
        assert ledger.find(digest, "SENT").seq == 2


def test_an_invalid_record_is_refused_before_anything_is_written(tmp_path, world):
    with world.open(tmp_path) as ledger:
        before = (tmp_path / "log.jsonl").read_bytes()
        with pytest.raises(InputDataError, match="payload_sha256"):
            ledger.append("SEND", run="run-1")
        with pytest.raises(InputDataError, match="patient"):
            ledger.append("REFUSE", code=1, patient="x")
        assert (tmp_path / "log.jsonl").read_bytes() == before
        assert ledger.append("REFUSE", code=1).seq == 1


def test_a_second_writer_is_kept_out_until_the_first_is_done(tmp_path, world):
    with world.open(tmp_path), pytest.raises(InputDataError, match="in use"):
        world.open(tmp_path)
    world.open(tmp_path).close()


def test_a_closed_ledger_takes_no_record(tmp_path, world):
    ledger = world.open(tmp_path)
    ledger.close()
    with pytest.raises(StorageError, match="closed"):
        ledger.append("REFUSE", code=1)
    with pytest.raises(InputDataError, match="closed"):
        ledger.line(0)


def test_another_key_or_site_cannot_go_on_with_a_ledger(tmp_path, world):
    world.grow(tmp_path, 1)
    with pytest.raises(VerificationError, match="ledger key changed"):
        Ledger.open(tmp_path, world.origin, world.witness, world.clock)
    with pytest.raises(VerificationError, match="lacks a signature"):
        Ledger.open(tmp_path, "site-b/ledger", world.site, world.clock)


def test_nobody_but_the_owner_and_group_reads_the_records(tmp_path, world):
    world.grow(tmp_path / "ledger", 1)
    for name in ("log.jsonl", "checkpoint"):
        assert stat.S_IMODE((tmp_path / "ledger" / name).stat().st_mode) & 0o007 == 0


# Recovery.


def test_a_torn_tail_is_cut_at_every_length(tmp_path, world):
    world.grow(tmp_path, 2, receipts=False)
    log, size = tmp_path / "log.jsonl", 3
    committed, note = log.read_bytes(), (tmp_path / "checkpoint").read_bytes()
    with world.open(tmp_path) as ledger:
        world.send(ledger, b"more")
    following = log.read_bytes()[len(committed) :]
    for cut in range(len(following) + 1):
        log.write_bytes(committed + following[:cut])
        (tmp_path / "checkpoint").write_bytes(note)
        with world.open(tmp_path) as ledger:
            assert ledger.size == size
        assert log.read_bytes() == committed


def test_a_log_cut_below_its_checkpoint_is_refused_at_every_length(tmp_path, world):
    world.grow(tmp_path, 2, receipts=False)
    log = tmp_path / "log.jsonl"
    committed = log.read_bytes()
    for cut in range(0, len(committed), 7):
        log.write_bytes(committed[:cut])
        with pytest.raises(VerificationError, match="shorter than its own"):
            world.open(tmp_path)
        assert log.read_bytes() == committed[:cut], "a refused ledger is left as it is"


def test_an_altered_log_is_refused(tmp_path, world):
    world.grow(tmp_path, 2, receipts=False)
    log = tmp_path / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"round":1', b'"round":2'))
    with pytest.raises(VerificationError, match="its own signed checkpoint"):
        world.open(tmp_path)


def test_a_missing_checkpoint_beside_data_is_refused_and_never_signed_anew(tmp_path, world):
    world.grow(tmp_path, 1)
    (tmp_path / "checkpoint").unlink()
    with pytest.raises(VerificationError, match="lost its signed checkpoint"):
        world.open(tmp_path)
    assert not (tmp_path / "checkpoint").exists()
    (tmp_path / "log.jsonl").unlink()  # receipts and payloads are data too
    with pytest.raises(VerificationError, match="lost its signed checkpoint"):
        world.open(tmp_path)


def test_an_older_checkpoint_put_in_place_does_not_cut_the_log(tmp_path, world):
    world.grow(tmp_path, 1, receipts=False)
    old = (tmp_path / "checkpoint").read_bytes()
    with world.open(tmp_path) as ledger:
        world.send(ledger, b"one more")
        world.send(ledger, b"and another")
    log = (tmp_path / "log.jsonl").read_bytes()
    (tmp_path / "checkpoint").write_bytes(old)
    with pytest.raises(VerificationError, match="goes on past"):
        world.open(tmp_path)
    assert (tmp_path / "log.jsonl").read_bytes() == log


def test_a_log_rolled_back_behind_a_receipt_is_refused(tmp_path, world):
    world.grow(tmp_path, 1, receipts=False)
    old = {name: (tmp_path / name).read_bytes() for name in ("log.jsonl", "checkpoint")}
    with world.open(tmp_path) as ledger:
        world.witness_it(ledger, world.send(ledger, b"more"))
    for name, data in old.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(VerificationError, match="does not match receipt"):
        world.open(tmp_path)


@pytest.mark.parametrize("step", range(4))
def test_an_interrupted_creation_is_completed(tmp_path, world, step):
    """The states a kill can leave between the first file and the GENESIS record."""
    if step >= 1:
        (tmp_path / "log.jsonl").write_bytes(b"")
    if step >= 2:
        with world.open(tmp_path / "other") as ledger:
            first_line = ledger.line(0)
        (tmp_path / "checkpoint").write_bytes(_empty_checkpoint(world))
    if step >= 3:
        (tmp_path / "log.jsonl").write_bytes(first_line[:30])
    with world.open(tmp_path) as ledger:
        assert [record.event for record in ledger.records()] == ["GENESIS"]


def test_leftover_temporaries_are_removed(tmp_path, world):
    world.grow(tmp_path, 1)
    (tmp_path / "payloads" / ".tmp-x").write_bytes(b"half")
    (tmp_path / ".tmp-checkpoint").write_bytes(b"half")
    world.open(tmp_path).close()
    assert not list(tmp_path.rglob(".tmp-*"))


# Disk errors.


@pytest.mark.parametrize(
    ("failing", "after"), [("write", 0), ("write", 1), ("fsync", 0), ("fsync", 1), ("fsync", 2)]
)
def test_after_a_disk_error_nothing_is_written_until_the_ledger_is_reopened(
    tmp_path, world, monkeypatch, failing, after
):
    """Whichever of append's calls fails: no entry is returned, and reopening recovers."""
    real, calls = getattr(os, failing), 0

    def fails(*args):
        nonlocal calls
        calls += 1
        if calls > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    with world.open(tmp_path) as ledger:
        world.send(ledger, b"before")
        ledger.spool(b"after")
        with monkeypatch.context() as patched:
            patched.setattr(os, failing, fails)
            with pytest.raises(StorageError, match=r"the disk is full.*Nothing was sent"):
                ledger.append("SEND", **world.send_fields(b"after"))
        with pytest.raises(StorageError, match="one that met a disk error"):
            ledger.append("REFUSE", code=1)
        with pytest.raises(StorageError, match="one that met a disk error"):
            ledger.spool(b"again")
    with world.open(tmp_path) as ledger:
        assert ledger.find(sha256_hex(b"before")) is not None
        world.send(ledger, b"later")
    assert verify_ledger(tmp_path, world.site.public, None).intact


def test_a_payload_that_does_not_fit_is_not_archived(tmp_path, world, monkeypatch):
    with world.open(tmp_path) as ledger:

        def full(*args):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            with pytest.raises(StorageError, match="the disk is full"):
                ledger.spool(b"weights")
        assert ledger.payload(sha256_hex(b"weights")) is None
        with pytest.raises(StorageError):
            ledger.append("REFUSE", code=1)


def test_the_payload_is_durable_before_its_record_and_the_record_before_its_checkpoint(
    tmp_path, world, monkeypatch
):
    order = []
    with world.open(tmp_path) as ledger:
        real_fsync, real_replace = os.fsync, type(tmp_path).replace

        def fsync(descriptor):
            order.append(str(Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(tmp_path)))
            real_fsync(descriptor)

        def replace(self, target):
            order.append(f"-> {target.relative_to(tmp_path)}")
            return real_replace(self, target)

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(type(tmp_path), "replace", replace)
        digest = sha256_hex(b"weights")
        world.send(ledger, b"weights")
    assert order == [
        f"payloads/.tmp-{digest}",
        f"-> payloads/{digest}",
        "payloads",
        "log.jsonl",
        ".tmp-checkpoint",
        "-> checkpoint",
        ".",
    ]


# Payloads and receipts.


def test_spooling_the_same_bytes_again_changes_nothing(tmp_path, world):
    with world.open(tmp_path) as ledger:
        assert ledger.spool(b"weights") == ledger.spool(b"weights") == sha256_hex(b"weights")


def test_an_altered_payload_is_never_handed_out(tmp_path, world):
    with world.open(tmp_path) as ledger:
        digest = ledger.spool(b"weights")
        (tmp_path / "payloads" / digest).write_bytes(b"other")
        with pytest.raises(VerificationError, match="altered"):
            ledger.payload(digest)
        with pytest.raises(InputDataError):
            ledger.payload("../ledger.pub")


def test_a_receipt_is_kept_once_and_recorded(tmp_path, world):
    with world.open(tmp_path) as ledger:
        entry = world.send(ledger, b"weights")
        receipt = cosign(entry.checkpoint, world.witness, world.clock())
        assert ledger.witnessed_size == 0
        assert ledger.add_receipt(receipt, world.witness.public)
        assert not ledger.add_receipt(receipt, world.witness.public)
        assert ledger.witnessed_size == 2
        record = list(ledger.records())[-1]
        assert (record.event, record.payload_sha256) == ("RECEIPT", sha256_hex(receipt))


def test_a_receipt_without_the_witness_or_for_another_history_is_refused(tmp_path, world):
    with world.open(tmp_path / "other") as other:
        foreign = cosign(world.send(other, b"other").checkpoint, world.witness, world.clock())
    with world.open(tmp_path / "mine") as ledger:
        entry = world.send(ledger, b"weights")
        with pytest.raises(VerificationError, match="lacks a signature"):
            ledger.add_receipt(entry.checkpoint, world.witness.public)
        with pytest.raises(VerificationError, match="lacks records"):
            ledger.add_receipt(foreign, world.witness.public)
        impostor = SigningKey.from_seed(b"\3" * 32)
        with pytest.raises(VerificationError, match="witness key changed"):
            ledger.add_receipt(cosign(entry.checkpoint, impostor, world.clock()), impostor.public)
        assert ledger.witnessed_size == 0


def test_there_is_no_record_outside_the_log(tmp_path, world):
    with world.open(tmp_path) as ledger:
        for seq in (-1, 1):
            with pytest.raises(InputDataError):
                ledger.line(seq)
        with pytest.raises(InputDataError, match="since"):
            ledger.proof(0, since=2)


def _empty_checkpoint(world) -> bytes:
    return sign_checkpoint(Checkpoint(world.origin, 0, EMPTY_ROOT), world.site)
