"""The offline audit finds every alteration and names the first broken record."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from common.canonical import sha256_hex
from common.errors import InputDataError
from common.ledger.verdict import Finding
from common.ledger.verify import verify_ledger
from tests.ledgers import chained


@pytest.fixture
def grown(tmp_path, world):
    """Eleven records (GENESIS, then five times SEND and RECEIPT) and the five receipts."""
    folder = tmp_path / "ledger"
    return folder, world.grow(folder, 5)


@pytest.fixture
def small(tmp_path, world):
    """Five records, for sweeps over every byte."""
    folder = tmp_path / "ledger"
    world.grow(folder, 2)
    return folder


@pytest.fixture
def audit(world):
    def run(folder, *, witness=True, **options):
        key = world.witness.public if witness else None
        return verify_ledger(folder, world.site.public, key, **options)

    return run


def test_an_untouched_ledger_is_intact_and_adds_up(grown, audit):
    folder, _ = grown
    verdict = audit(folder)
    assert verdict.intact
    assert verdict.finding is Finding.NOT_WITNESSED, "nobody else vouches for the last record"
    assert verdict.site == "site-a"
    totals = verdict.totals
    assert totals.records == 11
    assert totals.events == {"GENESIS": 1, "SEND": 5, "RECEIPT": 5}
    assert totals.rounds == 5
    assert totals.bytes_out == 5 * len(b"payload 0")
    assert totals.bytes_by_round[("run-1", 3)] == len(b"payload 3")
    assert totals.bytes_by_type == {"ModelUpdate": 45}
    assert totals.plan_fingerprints == {sha256_hex(b"plan")}
    assert totals.policy_digests == {sha256_hex(b"policy")}
    assert (totals.payloads_present, totals.payloads_expired) == (5, 0)
    assert (verdict.receipts, verdict.witnessed_size) == (5, 10)
    assert verdict.warnings == ()


def test_every_flipped_bit_of_the_log_is_noticed(small, audit):
    folder = small
    log = folder / "log.jsonl"
    original = log.read_bytes()
    ends = [i for i, byte in enumerate(original) if byte == 10]
    for position in range(0, len(original), 3):
        damaged = bytearray(original)
        damaged[position] ^= 1 << position % 8
        log.write_bytes(damaged)
        verdict = audit(folder)
        assert not verdict.intact
        hit = sum(end < position for end in ends)
        assert verdict.broken.seq in (hit - 1, hit), "the broken record, or the two of a link"
        assert verdict.totals.records == verdict.broken.seq


def test_every_cut_of_the_log_is_noticed(small, audit):
    folder = small
    log = folder / "log.jsonl"
    original = log.read_bytes()
    for length in range(0, len(original), 5):
        log.write_bytes(original[:length])
        verdict = audit(folder)
        assert not verdict.intact
        assert verdict.broken.seq == original[:length].count(b"\n")


def test_every_reordered_removed_or_repeated_record_is_noticed(grown, audit):
    folder, _ = grown
    log = folder / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    for at in range(len(lines) - 1):
        swapped = [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]
        removed = [*lines[:at], *lines[at + 1 :]]
        repeated = [*lines[: at + 1], *lines[at:]]
        for first_broken, changed in ((at, swapped), (at, removed), (at + 1, repeated)):
            log.write_bytes(b"".join(changed))
            assert audit(folder).broken.seq == first_broken


def test_a_forged_record_with_the_right_number_is_named(grown, audit):
    folder, _ = grown
    log = folder / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"round":2', b'"round":3'))
    verdict = audit(folder)
    assert str(verdict.broken) == "record #5: does not match receipt 0000000000000006.note"
    assert verdict.totals.records == 5


def test_a_forged_record_without_a_receipt_is_named_by_the_link_of_the_next(tmp_path, audit, world):
    world.grow(tmp_path, 5, receipts=False)
    log = tmp_path / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"round":2', b'"round":4'))
    verdict = audit(tmp_path)
    assert str(verdict.broken).startswith("record #3: this or the next record was altered")


def test_a_log_that_was_chained_anew_without_the_key_is_named_by_its_range(grown, audit):
    folder, _ = grown
    records = [json.loads(line) for line in (folder / "log.jsonl").read_bytes().splitlines()]
    records[5]["round"] = 9
    (folder / "log.jsonl").write_bytes(chained(records))
    verdict = audit(folder)
    assert verdict.broken.seq == 4
    assert "this or a later record up to #5 does not match receipt" in verdict.broken.reason


def test_every_flipped_bit_of_checkpoint_and_receipts_is_noticed(grown, audit):
    folder, _ = grown
    for path in (folder / "checkpoint", sorted((folder / "receipts").iterdir())[2]):
        original = path.read_bytes()
        for position in range(0, len(original) * 8, 3):
            damaged = bytearray(original)
            damaged[position // 8] ^= 1 << position % 8
            path.write_bytes(damaged)
            assert not audit(folder).intact
        path.write_bytes(original)
    assert audit(folder).intact


def test_a_missing_checkpoint_is_a_breakage(grown, audit):
    folder, _ = grown
    (folder / "checkpoint").unlink()
    assert "checkpoint is missing" in str(audit(folder).broken)


def test_an_altered_payload_breaks_its_record_and_so_does_a_deleted_one(grown, audit):
    folder, _ = grown
    payload = folder / "payloads" / sha256_hex(b"payload 2")
    payload.write_bytes(b"payload 9")
    assert str(audit(folder).broken).startswith("record #5: its payload")
    payload.unlink()
    assert "record #5: its payload is gone" in str(audit(folder).broken)


def test_a_payload_whose_deletion_is_recorded_breaks_nothing(grown, audit, world):
    folder, _ = grown
    digest = sha256_hex(b"payload 2")
    with world.open(folder) as ledger:
        ledger.append("EXPIRE", payload_sha256=digest, bytes=9, policy_sha256="0" * 64)
    (folder / "payloads" / digest).unlink()
    verdict = audit(folder)
    assert verdict.intact, str(verdict.broken)
    assert (verdict.totals.payloads_present, verdict.totals.payloads_expired) == (4, 1)


@pytest.mark.parametrize("words", [{"bytes": 10}, {"payload_sha256": "ab" * 32}])
def test_an_expiry_of_what_was_never_released_breaks(grown, audit, world, words):
    folder, _ = grown
    fields = {"payload_sha256": sha256_hex(b"payload 2"), "bytes": 9, "policy_sha256": "0" * 64}
    with world.open(folder) as ledger:
        ledger.append("EXPIRE", **(fields | words))
    assert audit(folder).broken.seq == 11


def test_a_deleted_receipt_is_missed_because_the_log_recorded_it(grown, audit):
    folder, _ = grown
    sorted((folder / "receipts").iterdir())[1].unlink()
    assert "record #4: the receipt it records is missing" in str(audit(folder).broken)


def test_a_history_rewritten_by_the_key_holder_is_caught_by_receipts_only(
    grown, audit, world, tmp_path
):
    folder, receipts = grown
    witness_key = (folder / "witness.pub").read_bytes()
    shutil.rmtree(folder)
    world.grow(folder, 3, receipts=False)  # the site's own key signs a shorter past
    alone = audit(folder, witness=False)
    assert alone.intact, "nobody can tell from the folder alone"
    assert any("no witness key" in warning for warning in alone.warnings)
    verdict = audit(folder, known_checkpoints=receipts)
    assert "known checkpoint" in str(verdict.broken)
    (folder / "receipts" / "0000000000000010.note").write_bytes(receipts[-1])
    (folder / "witness.pub").write_bytes(witness_key)
    assert "is missing: receipt" in str(audit(folder).broken)


def test_one_unfinished_record_after_the_checkpoint_is_a_doubt_and_two_break(grown, audit):
    folder, _ = grown
    log = folder / "log.jsonl"
    original = log.read_bytes()
    log.write_bytes(original + b'{"half')
    verdict = audit(folder)
    assert verdict.intact
    assert verdict.totals.records == 11
    assert "one unfinished record after the checkpoint, never released" in verdict.doubts
    log.write_bytes(original + b"{}\n{}\n")
    assert audit(folder).broken.seq == 11


def test_an_older_checkpoint_put_in_place_leaves_a_record_that_no_checkpoint_covers(
    grown, audit, world
):
    folder, _ = grown
    old = (folder / "checkpoint").read_bytes()
    with world.open(folder) as ledger:
        ledger.append("REFUSE", code=5)
    (folder / "checkpoint").write_bytes(old)
    verdict = audit(folder)
    assert (verdict.intact, verdict.finding) == (True, Finding.NOT_WITNESSED)
    assert "one unfinished record" in verdict.doubts[0]
    with world.open(folder) as ledger:
        assert ledger.size == 11


def test_a_clock_that_went_back_dates_no_record_before_the_last(tmp_path, audit, world):
    with world.open(tmp_path) as ledger:
        first = ledger.append("REFUSE", code=5).record.ts
        world.clock.now = world.clock.now.replace(year=2020)
        assert ledger.append("REFUSE", code=5).record.ts == first
    with world.open(tmp_path) as ledger:
        assert ledger.append("REFUSE", code=5).record.ts == first
    assert audit(tmp_path).intact


def test_a_ledger_may_be_audited_while_its_worker_writes(tmp_path, audit, world):
    verdicts, audited = [], threading.Event()

    def write(ledger) -> int:
        """Until there is an audit to disturb; sixty records at least."""
        written = 0
        while written < 60 or not audited.is_set():
            ledger.append("REFUSE", code=written)
            written += 1
        return written

    with world.open(tmp_path) as ledger, ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write, ledger)
        while not (writing.done() and verdicts):
            verdicts.append(audit(tmp_path))
            audited.set()
        written = writing.result()
    assert [str(verdict.broken) for verdict in verdicts if not verdict.intact] == []
    assert audit(tmp_path).totals.records == 1 + written


def test_another_sites_key_or_name_does_not_verify(grown, audit, world):
    folder, _ = grown
    assert not verify_ledger(folder, world.witness.public, None).intact
    assert not audit(folder, expected_origin="site-b/ledger").intact
    assert not verify_ledger(folder, world.site.public, world.site.public).intact


def test_terminal_escapes_in_a_tampered_line_are_not_handed_on(grown, audit):
    folder, _ = grown
    log = folder / "log.jsonl"
    first, rest = log.read_bytes().split(b"\n", 1)
    record = {**json.loads(first), "\u001b[2Jx": 1}
    line = json.dumps(dict(sorted(record.items())), separators=(",", ":"))
    log.write_bytes(line.encode() + b"\n" + rest)
    verdict = audit(folder)
    assert verdict.broken.seq == 0
    assert "an unknown key" in verdict.broken.reason
    assert "\x1b" not in verdict.broken.reason


def test_no_folder_is_an_error_and_not_a_verdict(tmp_path, audit):
    with pytest.raises(InputDataError, match="no ledger here"):
        audit(tmp_path / "nowhere")
