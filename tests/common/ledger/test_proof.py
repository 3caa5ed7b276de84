"""The aggregator accepts only recorded bytes, from a log that continues what it saw."""

from __future__ import annotations

import dataclasses
import json

import pytest

from common.canonical import canonical_json, sha256_hex
from common.errors import VerificationError
from common.ledger.notes import ledger_key, open_note, witness_key
from common.ledger.proof import (
    MAX_PROOF_BYTES,
    Proof,
    StaleProofError,
    cosign,
    verify_proof,
)


@pytest.fixture
def sent(tmp_path, world):
    """A ledger with two releases, and the proof of the second since the first."""
    with world.open(tmp_path) as ledger:
        first = world.send(ledger, b"one", 1)
        seen = verify(world, ledger.proof(first.seq, 0), b"one", None).checkpoint
        second = world.send(ledger, b"two", 2)
        yield ledger, seen, second


def verify(world, proof, payload, last_seen, **changes):
    arguments = {
        "payload_sha256": sha256_hex(payload),
        "site_origin": world.origin,
        "site_public_key": world.site.public,
        "last_seen": last_seen,
    }
    return verify_proof(proof, **{**arguments, **changes})


def test_a_recorded_release_is_accepted_and_its_record_known(sent, world):
    ledger, seen, entry = sent
    verified = verify(world, ledger.proof(entry.seq, seen.size), b"two", seen)
    assert verified.record == entry.record
    assert verified.checkpoint.size == ledger.size
    assert verified.note == ledger.checkpoint


def test_a_proof_survives_its_wire_form(sent):
    ledger, seen, entry = sent
    proof = ledger.proof(entry.seq, seen.size)
    assert Proof.from_bytes(proof.to_bytes()) == proof


def test_the_same_tree_may_be_shown_again(sent, world):
    ledger, seen, entry = sent
    proof = ledger.proof(entry.seq, seen.size)
    latest = verify(world, proof, b"two", seen).checkpoint
    assert verify(world, proof, b"two", latest).checkpoint == latest


def test_releases_that_go_out_together_are_proven_from_one_tree(sent, world):
    ledger, seen, second = sent
    third = world.send(ledger, b"three", 2)
    proofs = [ledger.proof(entry.seq, seen.size) for entry in (second, third)]
    latest = verify(world, proofs[0], b"two", seen).checkpoint
    assert verify(world, proofs[1], b"three", latest).record == third.record


def test_other_bytes_than_the_recorded_ones_are_refused(sent, world):
    ledger, seen, entry = sent
    with pytest.raises(VerificationError, match="payload_sha256"):
        verify(world, ledger.proof(entry.seq, seen.size), b"smuggled", seen)


def test_a_record_that_is_not_a_release_proves_nothing(sent, world):
    ledger, seen, _ = sent
    refusal = ledger.append("REFUSE", code=3, payload_sha256=sha256_hex(b"held back"))
    with pytest.raises(VerificationError, match="event must be SEND"):
        verify(world, ledger.proof(refusal.seq, seen.size), b"held back", seen)


def test_another_sites_proof_or_key_is_refused(sent, world):
    ledger, seen, entry = sent
    proof = ledger.proof(entry.seq, seen.size)
    with pytest.raises(VerificationError):
        verify(world, proof, b"two", seen, site_public_key=world.witness.public)
    with pytest.raises(VerificationError):
        verify(world, proof, b"two", seen, site_origin="site-b/ledger")


def test_a_proof_from_before_the_newest_checkpoint_is_stale_and_no_fork(sent, world):
    """Whatever was seen meanwhile: the same record proven from there is accepted."""
    ledger, seen, entry = sent
    early = ledger.proof(entry.seq, seen.size)
    latest = seen
    for number in range(3, 9):
        more = world.send(ledger, f"{number}".encode(), number)
        latest = verify(
            world, ledger.proof(more.seq, latest.size), f"{number}".encode(), latest
        ).checkpoint
        with pytest.raises(StaleProofError, match="older than"):
            verify(world, early, b"two", latest)
        again = verify(world, ledger.proof(entry.seq, latest.size), b"two", latest)
        assert again.record == entry.record
    beyond = world.send(ledger, b"beyond", 9)
    with pytest.raises(StaleProofError, match="since must be"):
        verify(world, ledger.proof(beyond.seq, seen.size), b"beyond", latest)


def test_nothing_but_the_sites_own_signed_word_is_ever_stale(sent, world):
    """Who forges a proof is not asked again."""
    ledger, seen, entry = sent
    old = ledger.proof(entry.seq, seen.size)
    third = world.send(ledger, b"three", 3)
    latest = verify(world, ledger.proof(third.seq, seen.size), b"three", seen).checkpoint
    for payload, changes in (
        (b"other", {}),
        (b"two", {"site_public_key": world.witness.public}),
        (b"two", {"site_origin": "site-b/ledger"}),
    ):
        with pytest.raises(VerificationError) as refused:
            verify(world, old, payload, latest, **changes)
        assert not isinstance(refused.value, StaleProofError)


def test_a_forked_log_is_refused_at_the_same_size_and_when_it_grows(sent, world, tmp_path):
    ledger, seen, entry = sent
    latest = verify(world, ledger.proof(entry.seq, seen.size), b"two", seen).checkpoint
    with world.open(tmp_path / "fork") as fork:
        world.send(fork, b"one", 9)
        same_size = world.send(fork, b"two", 2)
        with pytest.raises(VerificationError, match="forked"):
            verify(world, fork.proof(same_size.seq, 0), b"two", latest)
        larger = world.send(fork, b"three", 3)
        with pytest.raises(VerificationError, match="consistency"):
            verify(world, fork.proof(larger.seq, latest.size), b"three", latest)


def test_a_proof_must_link_to_what_was_seen_last(sent, world):
    ledger, seen, entry = sent
    with pytest.raises(VerificationError, match="since must be 2, got 1"):
        verify(world, ledger.proof(entry.seq, 1), b"two", seen)
    with pytest.raises(VerificationError, match="since must be 0"):
        verify(world, ledger.proof(entry.seq, seen.size), b"two", None)


def test_every_altered_element_of_a_proof_is_noticed(sent, world):
    ledger, seen, entry = sent
    proof = ledger.proof(entry.seq, seen.size)
    assert proof.inclusion
    assert proof.consistency
    extra = proof.inclusion[0]
    for change in (
        {"record": proof.record.replace(b'"round":2', b'"round":3')},
        {"seq": proof.seq - 1},
        {"seq": proof.seq + 1},
        {"inclusion": proof.inclusion[:-1]},
        {"inclusion": (*proof.inclusion, extra)},
        {"inclusion": (bytes(32), *proof.inclusion[1:])},
        {"consistency": proof.consistency[:-1]},
        {"consistency": (bytes(32), *proof.consistency[1:])},
        {"consistency": (*proof.consistency, extra)},
        {"since": proof.since + 1},
        {"checkpoint": proof.checkpoint.replace(b"\n3\n", b"\n4\n")},
    ):
        with pytest.raises(VerificationError):
            verify(world, dataclasses.replace(proof, **change), b"two", seen)


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"seq": -1},
        {"seq": 1.5},
        {"extra": 1},
        {"inclusion": ["AAAA"]},
        {"inclusion": ["!" * 44]},
        {"inclusion": [""] * 129},
        {"record": None},
    ],
)
def test_only_the_closed_wire_form_is_read(sent, change):
    ledger, seen, entry = sent
    wire = json.loads(ledger.proof(entry.seq, seen.size).to_bytes())
    with pytest.raises(VerificationError):
        Proof.from_bytes(canonical_json({**wire, **change}))


def test_a_proof_in_another_spelling_or_too_large_is_refused(sent):
    ledger, seen, entry = sent
    wire = ledger.proof(entry.seq, seen.size).to_bytes()
    for data in (wire + b" ", b"", b"[]", b"x" * (MAX_PROOF_BYTES + 1)):
        with pytest.raises(VerificationError):
            Proof.from_bytes(data)


def test_every_flipped_bit_of_the_wire_form_is_noticed(sent, world):
    """No bit of a proof is free: nothing can ride along."""
    ledger, seen, entry = sent
    wire = ledger.proof(entry.seq, seen.size).to_bytes()
    for position in range(0, len(wire) * 8, 5):
        damaged = bytearray(wire)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(VerificationError):
            verify(world, Proof.from_bytes(bytes(damaged)), b"two", seen)


def test_the_receipt_is_the_sites_note_with_the_witness_under_it(sent, world):
    ledger, seen, entry = sent
    verified = verify(world, ledger.proof(entry.seq, seen.size), b"two", seen)
    now = world.clock()
    receipt = cosign(verified.note, world.witness, now)
    required = [
        ledger_key(world.origin, world.site.public),
        witness_key(world.witness.public),
    ]
    opened = open_note(receipt, required)
    assert opened.checkpoint == verified.checkpoint
    assert list(opened.cosigned_at.values()) == [now]
