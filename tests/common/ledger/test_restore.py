"""A ledger that was put back from a backup: its gap is recorded and proved, or nothing is taken."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.crypto.identity import SigningKey
from common.errors import InputDataError, VerificationError
from common.ledger.log import Ledger
from common.ledger.merkle import consistency_proof, leaf_hash
from common.ledger.notes import Checkpoint, parse_note
from common.ledger.proof import Proof, StaleProofError, cosign, verify_proof
from common.ledger.records import parse_record
from common.ledger.recovery import LostTailError
from common.ledger.verify import verify_ledger

STRANGER = SigningKey.from_seed(b"\7" * 32)


def seen(note: bytes) -> Checkpoint:
    return parse_note(note).checkpoint


def released(world, ledger: Ledger, payload: bytes) -> Proof:
    entry = world.send(ledger, payload)
    return Proof.from_bytes(ledger.proof(entry.seq, ledger.shown_size).to_bytes())


def taken(world, proof: Proof, payload_sha256: str, last: Checkpoint | None):
    return verify_proof(
        proof, payload_sha256, world.origin, world.site.public, last, world.witness.public
    )


def digest(proof: Proof) -> str:
    return parse_record(proof.record).payload_sha256 or ""


@pytest.fixture
def back(tmp_path, world) -> tuple[Path, bytes]:
    """A ledger as it was before its last two releases, and the note that it has lost."""
    folder = tmp_path / "ledger"
    world.grow(folder, 2)
    shutil.copytree(folder, tmp_path / "backup")
    lost = world.grow(folder, 2)[-1]
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "backup", folder)
    return folder, lost


def test_what_both_signed_and_the_log_lacks_stops_it_until_a_person_speaks(back, world):
    folder, lost = back
    with world.open(folder) as ledger:
        size = ledger.size
        with pytest.raises(LostTailError) as stopped:
            ledger.add_receipt(lost, world.witness.public)
        assert (stopped.value.note, ledger.size) == (lost, size)
        entry = ledger.restore(lost, world.witness.public, "Ada Byron", ("run-1", 3))
        assert entry.record.lost_size == seen(lost).size
        assert not ledger.add_receipt(lost, world.witness.public)  # explained from now on
    with world.open(folder) as again:  # and remembered
        assert not again.add_receipt(lost, world.witness.public)
        assert again.has_restored(lost)


def test_the_witness_takes_a_restored_log_once_it_names_what_was_seen(back, world):
    folder, lost = back
    with world.open(folder) as ledger:
        ledger.restore(lost, world.witness.public, "Ada Byron")
        ledger.add_receipt(lost, world.witness.public)
        proof = released(world, ledger, b"after")
        verified = taken(world, proof, digest(proof), seen(lost))
        assert verified.restored is not None
        assert verified.restored.person == "Ada Byron"
        # The same message again, and the next one, need no excuse.
        assert taken(world, proof, digest(proof), verified.checkpoint).restored is None
        receipt = cosign(verified.note, world.witness, world.clock())
        ledger.add_receipt(receipt, world.witness.public)
        further = released(world, ledger, b"further")
        assert further.gap is None
        assert taken(world, further, digest(further), verified.checkpoint).restored is None
    verdict = verify_ledger(folder, world.site.public, world.witness.public, [receipt])
    assert verdict.broken is None
    (gap,) = verdict.gaps
    assert (gap.size, gap.root) == (seen(lost).size, seen(lost).root.hex())
    assert gap.kept == 4 < gap.seq, "what the backup's newest receipt covers, not a later one"


def test_a_restore_that_names_another_checkpoint_excuses_nothing(back, world):
    folder, lost = back
    last = replace(seen(lost), root=b"\1" * 32)
    with world.open(folder) as ledger:
        ledger.restore(lost, world.witness.public, "Ada Byron")
        proof = released(world, ledger, b"after")
        with pytest.raises(VerificationError):
            taken(world, proof, digest(proof), last)


def test_without_the_witness_key_no_gap_is_taken(back, world):
    folder, lost = back
    with world.open(folder) as ledger:
        ledger.restore(lost, world.witness.public, "Ada Byron")
        proof = released(world, ledger, b"after")
        with pytest.raises(VerificationError):
            verify_proof(proof, digest(proof), world.origin, world.site.public, seen(lost))


def test_records_before_the_newest_receipt_cannot_be_rewritten_under_a_restore(
    back, tmp_path, world
):
    _, lost = back
    other = tmp_path / "other"
    with world.open(other) as forged:  # another past, by the key's own holder
        for number in range(6):
            world.send(forged, b"nicer %d" % number)
        forged.restore(lost, world.witness.public, "Mallory")
        proof = released(world, forged, b"after")
        genuine = (tmp_path / "backup" / "receipts").glob("*.note")
        receipt = sorted(genuine)[-1].read_bytes()
        size = seen(receipt).size
        leaves = [leaf_hash(forged.line(seq)) for seq in range(forged.size)]
        assert proof.gap is not None
        stolen = replace(
            proof,
            since=size,
            consistency=tuple(consistency_proof(leaves, size)),
            gap=replace(proof.gap, receipt=receipt),
        )
        with pytest.raises(VerificationError):
            taken(world, stolen, digest(stolen), seen(lost))


def test_a_note_that_the_witness_has_not_cosigned_restores_nothing(back, world):
    folder, lost = back
    text = lost[: lost.rindex("\u2014".encode())]
    for note in (text, cosign(text, STRANGER, world.clock())):
        with world.open(folder) as ledger, pytest.raises(VerificationError):
            ledger.restore(note, world.witness.public, "Mallory")


def test_nothing_is_restored_where_nothing_is_lost(tmp_path, world):
    receipts = world.grow(tmp_path / "ledger", 2)
    with world.open(tmp_path / "ledger") as ledger:
        for note in receipts:
            with pytest.raises(InputDataError):
                ledger.restore(note, world.witness.public, "Ada Byron")


def test_a_witness_that_forgot_is_proved_to_from_what_it_shows_and_reminded(tmp_path, world):
    receipts = world.grow(tmp_path / "ledger", 4)
    with world.open(tmp_path / "ledger") as ledger:
        for note in receipts:
            assert not ledger.add_receipt(note, world.witness.public)  # beside an order of then
            proof = released(world, ledger, b"after " + note[:20])
            verified = taken(world, proof, digest(proof), seen(note))
            newest = None if note == receipts[-1] else seen(receipts[-1])
            assert verified.forgotten == newest
        ledger.shown_nothing()
        proof = released(world, ledger, b"to one that knows nothing")
        assert taken(world, proof, digest(proof), None).forgotten == seen(receipts[-1])


def test_a_witness_that_forgot_the_restored_log_takes_its_gap_again_and_is_reminded(back, world):
    """It was put back to where it knew what the site has lost, and not the gap."""
    folder, lost = back
    with world.open(folder) as ledger:
        ledger.restore(lost, world.witness.public, "Ada Byron")
        ledger.add_receipt(lost, world.witness.public)
        proof = released(world, ledger, b"after")
        first = taken(world, proof, digest(proof), seen(lost))
        receipt = cosign(first.note, world.witness, world.clock())
        ledger.add_receipt(receipt, world.witness.public)
        assert not ledger.add_receipt(lost, world.witness.public)
        proof = released(world, ledger, b"to one that was put back")
        again = taken(world, proof, digest(proof), seen(lost))
        assert again.restored == first.restored
        assert again.forgotten == seen(receipt)


def test_of_several_restores_a_proof_shows_the_one_that_names_what_the_witness_shows(
    tmp_path, world
):
    folder = tmp_path / "ledger"
    world.grow(folder, 1)
    shutil.copytree(folder, tmp_path / "backup")
    earlier, later = world.grow(folder, 2)[-2:]
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "backup", folder)
    with world.open(folder) as ledger:
        for lost in (earlier, later):
            ledger.restore(lost, world.witness.public, "Ada Byron")
        for number, lost in enumerate((earlier, later, earlier)):
            assert not ledger.add_receipt(lost, world.witness.public)
            proof = released(world, ledger, b"shown %d" % number)
            verified = taken(world, proof, digest(proof), seen(lost))
            assert verified.restored is not None
            assert verified.restored.lost_size == seen(lost).size


def test_a_reminder_of_what_we_never_signed_is_refused(tmp_path, world):
    receipts = world.grow(tmp_path / "ledger", 2)
    with world.open(tmp_path / "ledger") as ledger:
        ledger.add_receipt(receipts[0], world.witness.public)
        proof = released(world, ledger, b"after")
        assert proof.reminder is not None
        bare = receipts[1][: receipts[1].rindex("\u2014".encode())]
        forged = cosign(bare, STRANGER, world.clock())
        wrong = replace(proof, reminder=replace(proof.reminder, receipt=forged))
        with pytest.raises(VerificationError):
            taken(world, wrong, digest(wrong), seen(receipts[0]))


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 4), st.integers(1, 3), st.integers(0, 3), st.booleans())
def test_however_far_back_a_backup_lies_its_log_verifies_with_exactly_one_gap(
    tmp_path_factory, world, before, lost_releases, unseen, receipts
):
    folder = tmp_path_factory.mktemp("site") / "ledger"
    world.grow(folder, before, receipts=receipts)
    backup = folder.with_name("backup")
    shutil.copytree(folder, backup)
    lost = world.grow(folder, lost_releases)[-1]
    shutil.rmtree(folder)
    shutil.copytree(backup, folder)
    with world.open(folder) as ledger:
        for number in range(unseen):  # recorded before anybody noticed
            world.send(ledger, b"unseen %d" % number)
        ledger.restore(lost, world.witness.public, "Ada Byron")
        ledger.add_receipt(lost, world.witness.public)
        proof = released(world, ledger, b"after")
        try:
            verified = taken(world, proof, digest(proof), seen(lost))
        except StaleProofError:  # pragma: no cover - a law would be broken
            pytest.fail("a restored site could not prove")
        receipt = cosign(verified.note, world.witness, world.clock())
        ledger.add_receipt(receipt, world.witness.public)
        newest = cosign(ledger.checkpoint, world.witness, world.clock())
    verdict = verify_ledger(folder, world.site.public, world.witness.public, [newest, lost])
    assert verdict.broken is None
    assert [gap.size for gap in verdict.gaps] == [seen(lost).size]
    assert not verdict.passed or verdict.all_doubts
