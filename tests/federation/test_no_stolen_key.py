"""What somebody with the aggregator's old key must not get, once a site has heard of another.

The thief runs an aggregator of their own with a copy of the old key, and all of the federation's
files; the site's ledger is copied, too.
"""

from __future__ import annotations

import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aggregator import rotate as room
from aggregator.rotate import rotate_witness, witness_history
from aggregator.rounds.queue import RunQueue
from common.crypto.identity import PublicKey, SigningKey, read_public_key, read_signing_key
from common.errors import RefusedError, VerificationError
from common.ledger.durable import StorageError
from common.ledger.layout import Layout
from common.ledger.notes import cosign_note, parse_note
from common.ledger.rotation import WitnessKeys, follow, open_rotation, rotate
from common.ledger.verify import verify_ledger
from common.wire.codes import ReplyCode
from site_client.site import SiteFolder
from site_client.worker.loop import Worker

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def audited(site: SiteFolder, witness: PublicKey):
    return verify_ledger(site.ledger, read_public_key(site.ledger / "ledger.pub"), witness)


def run(three, plan, name: str) -> str:
    store = three.create_run(plan, name, min_sites=3)
    return three.conduct(store, three.transport()).verdict


@pytest.fixture
def exchanged(three, no_op_plan):
    """A federation that has gone through two exchanges of the key; and all three keys."""
    keys = [read_signing_key(three.folder.pki / "witness.key")]
    assert run(three, no_op_plan, "run-0") == "COMPLETED"
    for name in ("run-1", "run-2"):
        rotate_witness(three.folder)
        keys.append(read_signing_key(three.folder.pki / "witness.key"))
        assert run(three, no_op_plan, name) == "COMPLETED"
    return three, keys


def test_every_site_follows_the_key_and_records_it_and_any_key_of_the_chain_audits(exchanged):
    federation, keys = exchanged
    assert len({key.public for key in keys}) == 3
    for site in federation.sites.values():
        assert read_public_key(site.witness_key) == keys[-1].public
        for key in keys:
            verdict = audited(site, key.public)
            assert verdict.intact, verdict
            assert verdict.totals.events["ROTATE"] == 2
        assert not audited(site, SigningKey.generate().public).intact
    history = witness_history(federation.folder)
    assert history.key == keys[-1].public
    assert [each.old for each in history.rotations] == [key.public for key in keys[:2]]


def test_orders_of_the_old_key_are_refused(exchanged, no_op_plan):
    federation, keys = exchanged
    stolen = federation.root / "stolen.key"
    for old in keys[:2]:
        stolen.write_bytes(old.to_pem())
        stolen.chmod(0o600)
        shutil.copy2(stolen, federation.folder.pki / "witness.key")
        store = federation.create_run(no_op_plan, f"stolen-{old.public.hex[:8]}", min_sites=3)
        end = federation.conduct(store, federation.transport())
        assert end.verdict == "FAILED"
    for site in federation.sites.values():
        with Worker(site, threading.Event()) as worker:
            records = list(worker._ledger.records())
        assert not any((record.run or "").startswith("stolen") for record in records)
        assert [r.code for r in records[-2:]] == [int(ReplyCode.BAD_ORDER)] * 2


def test_the_old_key_cannot_name_another_successor(exchanged, no_op_plan):
    federation, keys = exchanged
    thief = SigningKey.generate()
    notes = federation.folder.rotations_folder
    (notes / "000003.rotation").write_bytes(rotate(keys[0], thief, NOW))
    (federation.folder.pki / "witness.key").write_bytes(thief.to_pem())
    assert run(federation, no_op_plan, "stolen") == "FAILED"
    for site in federation.sites.values():
        assert read_public_key(site.witness_key) == keys[-1].public


def test_a_cosignature_that_the_old_key_made_afterwards_breaks_the_audit(exchanged):
    federation, keys = exchanged
    site = federation.sites["site-a"]
    layout = Layout(site.ledger)
    latest = layout.receipt_files()[-1]
    size = parse_note(latest.read_bytes()).checkpoint.size
    own = layout.checkpoint.read_bytes()
    honest = latest.read_bytes()
    for old in keys[:2]:
        # The site and a thief together: a receipt of the newest tree by a key of the past.
        plain = b"\n\n".join([own.partition(b"\n\n")[0], own.partition(b"\n\n")[2]])
        forged = cosign_note(plain, old, NOW)
        path = layout.receipt(parse_note(forged).checkpoint.size)
        path.write_bytes(forged)
        assert not audited(site, keys[-1].public).intact
        path.unlink()
    assert latest.exists() or size
    latest.write_bytes(honest)
    assert audited(site, keys[-1].public).intact


@pytest.mark.parametrize(
    "what", ["removed", "altered", "of another", "added", "misnamed", "no name"]
)
def test_an_exchange_beside_the_log_is_bound_to_its_record(exchanged, what):
    federation, keys = exchanged
    site = federation.sites["site-a"]
    layout = Layout(site.ledger)
    first, second = sorted(layout.rotations.iterdir())
    match what:
        case "removed":
            second.unlink()
        case "altered":
            data = bytearray(second.read_bytes())
            data[-3] ^= 1
            second.write_bytes(bytes(data))
        case "of another":
            second.write_bytes(rotate(keys[1], SigningKey.generate(), NOW))
        case "added":
            third = rotate(keys[2], SigningKey.generate(), NOW)
            layout.rotation(int(second.stem) + 1).write_bytes(third)
        case "misnamed":
            second.rename(second.with_name(second.name[3:]))
        case "no name":
            second.rename(second.with_name("x" + second.name[1:]))
    assert not audited(site, keys[0].public).intact
    assert first.exists()


def test_an_exchange_that_a_crash_kept_from_the_log_is_heard_again(three, no_op_plan):
    assert run(three, no_op_plan, "run-0") == "COMPLETED"
    rotate_witness(three.folder)
    site = three.sites["site-a"]
    layout = Layout(site.ledger)
    with Worker(site, threading.Event()) as worker:
        size = worker._ledger.size
    layout.rotations.mkdir(exist_ok=True)
    layout.rotation(size).write_bytes(three.folder.rotations()[0])
    assert run(three, no_op_plan, "run-1") == "COMPLETED"
    assert audited(site, three.folder.witness_key().public).totals.events["ROTATE"] == 1


# The chain itself.


def test_a_note_holds_only_with_both_signatures_and_in_its_one_form():
    old, new, other = (SigningKey.generate() for _ in range(3))
    note = rotate(old, new, NOW)
    opened = open_rotation(note)
    assert (opened.old, opened.new) == (old.public, new.public)
    for position in range(0, len(note), 7):
        bent = bytearray(note)
        bent[position] ^= 1
        with pytest.raises(VerificationError):
            open_rotation(bytes(bent))
    half = rotate(other, new, NOW)[:64] + note[64:]
    with pytest.raises(VerificationError):
        open_rotation(half)
    with pytest.raises(VerificationError):
        open_rotation(note + b" ")
    with pytest.raises(VerificationError):
        open_rotation(rotate(old, old, NOW))


def test_a_chain_is_followed_from_where_one_stands_and_never_round():
    a, b, c = (SigningKey.generate() for _ in range(3))
    notes = [rotate(a, b, NOW), rotate(b, c, NOW), rotate(c, a, NOW), b"nothing"]
    assert [each.new for each in follow(b.public, notes)] == [c.public, a.public, b.public]
    assert follow(SigningKey.generate().public, notes) == ()


def test_which_key_counted_when_is_told_by_the_record_of_the_exchange():
    a, b, c = (SigningKey.generate().public for _ in range(3))
    keys = WitnessKeys((a, b, c), (10, 20))
    assert [keys.of_record(seq) for seq in (0, 9, 10, 19, 20, 99)] == [a, a, b, b, c, c]
    assert keys.for_size(10) == (c, b, a)
    assert keys.for_size(11) == keys.for_size(20) == (c, b)
    assert keys.for_size(21) == (c,)


def test_a_key_is_not_exchanged_while_a_run_goes_on_with_it(three):
    with RunQueue(three.folder.queue).changing() as change:
        change.add("run-1")
        change.begin(1, 0)
    before = three.folder.witness_key().public
    with pytest.raises(RefusedError, match="goes on"):
        rotate_witness(three.folder)
    assert three.folder.witness_key().public == before


@pytest.mark.parametrize("crash", ["before the note", "before the key", "before witness.pub"])
def test_an_exchange_that_was_interrupted_is_completed_or_never_was(three, monkeypatch, crash):
    before = three.folder.witness_key().public
    broken = OSError(28, "No space left on device")

    def fail(*_args, **_words):
        raise broken

    with monkeypatch.context() as patch:
        match crash:
            case "before the note":
                patch.setattr(room, "replace_durably", fail)
            case "before the key":
                patch.setattr(Path, "replace", fail)
            case "before witness.pub":
                honest = room.replace_durably
                patch.setattr(
                    room,
                    "replace_durably",
                    lambda path, *rest, **words: (
                        fail() if path.name == "witness.pub" else honest(path, *rest, **words)
                    ),
                )
        with pytest.raises(StorageError, match="full"):
            rotate_witness(three.folder)
    counts = three.folder.witness_key().public
    assert (counts == before) == (crash != "before witness.pub")
    chain = follow(before, three.folder.rotations())
    assert (chain[-1].new if chain else before) == counts, "what sites follow leads to it"
    after = rotate_witness(three.folder)
    assert after.key == read_public_key(three.folder.pki / "witness.pub") != before
