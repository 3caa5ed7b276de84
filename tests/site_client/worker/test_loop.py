"""The worker answers orders with records or numbers, and goes on bit for bit after a kill."""

import errno
import json
import logging
import threading

import numpy as np
import pytest
import safetensors.numpy

from common.canonical import canonical_json, sha256_hex
from common.crypto.identity import SigningKey
from common.errors import InputDataError, VerificationError
from common.ledger.log import Ledger
from common.model import initial_weights, weights_digest
from common.wire import parcel
from common.wire.codes import EXPLANATIONS, ReplyCode
from common.wire.orders import SIGNATURE_CONTEXT
from common.wire.turn import TurnNote, sign_turn
from site_client.worker import studies
from site_client.worker.experience import public_key_id
from site_client.worker.loop import Worker
from tests.aggregated import OTHERS
from tests.conftest import loosen


@pytest.fixture
def worker(site):
    with Worker(site.folder, threading.Event()) as worker:
        yield worker


def answer(worker, site, order):
    digest = site.put(order)
    assert worker.turn()
    assert site.spool.orders() == []
    return site.reply(digest)


def code_of(reply):
    assert set(reply) == {"RoundReport"}
    report = reply["RoundReport"].record
    if report.code is not ReplyCode.OK:
        assert (report.images, report.weights_sha256, report.errors) == (0, None, ())
    return report.code


def events(worker):
    return [(record.event, record.code) for record in worker._ledger.records()]


def test_a_begin_order_is_answered_with_the_digest_of_the_initial_weights(worker, site):
    report = answer(worker, site, site.order())["RoundReport"].record
    assert report.code is ReplyCode.OK
    assert report.weights_sha256 == weights_digest(initial_weights(site.plan))
    assert report.images == 3
    assert report.key_id is not None
    assert report.codec is not None


def test_a_training_order_is_answered_with_update_table_and_report(worker, site):
    reply = answer(worker, site, site.order(1, "train"))
    update, sketch, report = (reply[k] for k in ("ModelUpdate", "SketchTable", "RoundReport"))
    assert {name: array.shape for name, array in update.arrays.items()} == {
        name: array.shape for name, array in initial_weights(site.plan).items()
    }
    assert any(np.abs(array).max() > 0 for array in update.arrays.values())
    assert sketch.record.total == update.record.transitions == report.record.transitions > 100
    assert update.record.updates == 10
    assert [error.label for error in report.record.errors] == ["A", "B"]
    assert all(error.prior_milli > 0 for error in report.record.errors)


def test_an_evaluation_order_is_answered_with_a_report_alone(worker, site):
    reply = answer(worker, site, site.order(5, "evaluate"))
    assert set(reply) == {"RoundReport"}
    assert len(reply["RoundReport"].record.errors) == 2
    assert reply["RoundReport"].record.transitions == 0


def test_the_merged_sketch_of_a_sum_changes_what_is_trained_on(make_site, tmp_path):
    told, updates = [], []
    for scale in (1, 100):
        site = make_site(root=tmp_path / str(scale))
        with Worker(site.folder, threading.Event()) as worker:
            told.append(answer(worker, site, site.order(1, "train")))
            past = site.past()
            sent = {name: past.training_records(name, 1) for name in OTHERS}
            for _, sketch in sent.values():
                sketch.arrays["table"][:] *= scale
            past.add(sent)
            told.append(answer(worker, site, site.order(2, "train")))
            updates.append(told[-1]["ModelUpdate"].arrays)
    first, again = (reply["RoundReport"].record for reply in (told[1], told[3]))
    assert first.weights_sha256 == again.weights_sha256
    same([told[0]["ModelUpdate"].arrays], [told[2]["ModelUpdate"].arrays])
    assert any(not np.array_equal(updates[0][n], updates[1][n]) for n in updates[0])


def test_the_same_seed_gives_the_same_update_and_another_site_gives_another(make_site):
    def update_of(site):
        with Worker(site.folder, threading.Event()) as worker:
            return answer(worker, site, site.order(1, "train"))["ModelUpdate"].arrays

    first, other = make_site("north"), make_site("south")
    again = make_site("north", root=first.folder.root.parent / "copy")
    a, b, c = update_of(first), update_of(again), update_of(other)
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert any(not np.array_equal(a[name], c[name]) for name in a)


def tell(site, number, reply, updates):
    """What the site sent becomes part of what the round came to."""
    past = site.past()
    past.add({"north": reply.values(), "east": past.training_records("east", number)})
    updates.append(reply["ModelUpdate"].arrays)


def rounds(site, worker, numbers, updates):
    for number in numbers:
        tell(site, number, answer(worker, site, site.order(number, "train")), updates)


@pytest.fixture
def straight(make_site, tmp_path):
    """Updates of three rounds without any interruption."""
    site, updates = make_site(root=tmp_path / "straight"), []
    with Worker(site.folder, threading.Event()) as worker:
        rounds(site, worker, (1, 2, 3), updates)
    return updates


def same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_worker_restarted_between_rounds_goes_on_bit_for_bit(make_site, straight, tmp_path):
    site, updates = make_site(root=tmp_path / "broken"), []
    for number in (1, 2, 3):
        with Worker(site.folder, threading.Event()) as worker:
            rounds(site, worker, (number,), updates)
    same(updates, straight)
    kept = sorted(path.name for path in (site.folder.worker / "state" / "run-1").iterdir())
    assert kept == ["chain.safetensors", "round-000002.safetensors", "round-000003.safetensors"]


def test_a_worker_killed_before_the_release_repeats_the_round_bit_for_bit(
    make_site, straight, tmp_path, monkeypatch
):
    site, updates = make_site(root=tmp_path / "broken"), []
    with Worker(site.folder, threading.Event()) as worker:
        rounds(site, worker, (1,), updates)
        digest = site.put(site.order(2, "train"))

        def die(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(worker._door, "release", die)
        with pytest.raises(KeyboardInterrupt):
            worker.turn()
    assert site.reply(digest) is None
    with Worker(site.folder, threading.Event()) as worker:
        assert worker.turn()
        tell(site, 2, site.reply(digest), updates)
        rounds(site, worker, (3,), updates)
    same(updates, straight)


def test_a_worker_asked_to_stop_leaves_the_order_and_repeats_it_later(
    make_site, straight, tmp_path
):
    site, updates, stop = make_site(root=tmp_path / "broken"), [], threading.Event()

    def stop_in_training(what, done, total):
        if what == "training" and done == 2:
            stop.set()

    digest = site.put(site.order(1, "train"))
    with Worker(site.folder, stop, stop_in_training) as worker:
        worker.run()
    assert site.spool.orders() == [digest]
    assert site.reply(digest) is None
    with Worker(site.folder, threading.Event()) as worker:
        assert worker.turn()
        tell(site, 1, site.reply(digest), updates)
        rounds(site, worker, (2, 3), updates)
    same(updates, straight)


def test_a_new_run_starts_fresh(worker, site):
    first = answer(worker, site, site.order(1, "train"))["ModelUpdate"].arrays
    second = answer(worker, site, site.order(1, "train", run="run-2"))["ModelUpdate"].arrays
    same([first], [second])
    assert [path.name for path in (site.folder.worker / "state").iterdir()] == ["run-2"]


def test_a_repeated_order_is_answered_by_the_same_bytes_and_no_new_record(worker, site):
    order = site.order(1, "train")
    answer(worker, site, order)
    first, size = site.spool.read_reply(sha256_hex(order)), worker._ledger.size
    site.spool.finish_reply(sha256_hex(order))
    answer(worker, site, order)
    assert site.spool.read_reply(sha256_hex(order)) == first
    assert worker._ledger.size == size


def test_an_answer_that_expired_from_the_archive_is_not_made_up_anew(worker, site):
    order = site.order(1, "train")
    answer(worker, site, order)
    size = worker._ledger.size
    for payload in (site.folder.ledger / "payloads").iterdir():
        payload.unlink()
    site.spool.finish_reply(sha256_hex(order))
    assert answer(worker, site, order) is None
    assert worker._ledger.size == size


def test_a_second_different_order_for_a_round_is_refused_before_it_is_trained(
    worker, site, monkeypatch
):
    answer(worker, site, site.order(1, "train"))
    monkeypatch.setattr(worker._answering._studies, "study_of", None)
    reply = answer(worker, site, site.order(1, "train", deadline_s=61))
    assert code_of(reply) is ReplyCode.BACKWARDS


def test_a_receipt_is_kept_and_the_next_proof_begins_there(worker, site):
    answer(worker, site, site.order())
    note = site.receipt(worker._ledger.checkpoint)
    order = site.order(1, "train", receipt=note)
    answer(worker, site, order)
    assert ("RECEIPT", None) in events(worker)
    assert worker._ledger.witnessed_size == 2
    proof = parcel.unwrap(site.spool.read_reply(sha256_hex(order)))["ModelUpdate.proof"]
    assert b'"since":2' in proof


# What is refused, and by which number.


def test_an_order_under_another_signature_is_refused_and_not_worked_on(worker, site, monkeypatch):
    monkeypatch.setattr(worker._answering, "_answer", None)
    order = site.order(1, "train", signer=SigningKey.generate())
    assert answer(worker, site, order) is None, "it proves no run that could be told of it"
    assert events(worker)[-1] == ("REFUSE", int(ReplyCode.BAD_ORDER))


def test_a_forged_copy_of_an_order_does_not_spoil_the_genuine_one(worker, site):
    forged = site.order(1, "train", signer=SigningKey.generate())
    note = site.receipt(worker._ledger.checkpoint)
    torn = site.order(1, "train", receipt=note[:-9] + b"AAAAAAA=\n")
    assert answer(worker, site, forged) is None
    assert code_of(answer(worker, site, torn)) is ReplyCode.BAD_ORDER
    assert "ModelUpdate" in answer(worker, site, site.order(1, "train", receipt=note))
    assert answer(worker, site, forged) is None


def test_a_receipt_by_another_witness_makes_the_order_bad(worker, site):
    answer(worker, site, site.order())
    site.witness, right = SigningKey.generate(), site.witness
    note = site.receipt(worker._ledger.checkpoint)
    reply = answer(worker, site, site.order(1, "train", receipt=note, signer=right))
    assert code_of(reply) is ReplyCode.BAD_ORDER


@pytest.mark.parametrize("junk", [b"", b"junk", parcel.wrap({"order": b"x", "signature": b"y"})])
def test_an_unreadable_order_is_recorded_and_nothing_leaves(worker, site, junk):
    assert answer(worker, site, junk) is None
    assert events(worker)[-1] == ("REFUSE", int(ReplyCode.BAD_ORDER))


def of_another_network(weights):
    return weights | {"fc1.bias": weights["fc1.bias"][:-1]}


def not_finite(weights):
    return weights | {"fc1.bias": np.full_like(weights["fc1.bias"], np.nan)}


@pytest.mark.parametrize("bend", [dict, of_another_network, not_finite])
@pytest.mark.parametrize("name", ["weights", "model", "sum-1", "sum-00001x"])
def test_weights_beside_an_order_make_it_bad(worker, site, monkeypatch, bend, name):
    monkeypatch.setattr(worker._answering, "_answer", None)
    data = safetensors.numpy.save(bend(initial_weights(site.plan)))
    assert answer(worker, site, site.order(1, "train", beside={name: data})) is None
    assert events(worker)[-1] == ("REFUSE", int(ReplyCode.BAD_ORDER))


@pytest.mark.parametrize("field", ["weights", "weights_sha256", "sketch", "tables"])
def test_an_order_has_no_word_for_weights_or_tables(worker, site, monkeypatch, field):
    monkeypatch.setattr(worker._answering, "_answer", None)
    words = json.loads(parcel.unwrap(site.order(1, "train"))["order"])
    body = canonical_json(words | {field: "00" * 32})
    signed = {"order": body, "signature": site.witness.sign(SIGNATURE_CONTEXT + body)}
    assert answer(worker, site, parcel.wrap(signed)) is None
    assert events(worker)[-1] == ("REFUSE", int(ReplyCode.BAD_ORDER))


def test_weights_where_a_start_model_would_lie_are_not_looked_at(make_site, tmp_path):
    """The plan begins at its seed: what lies beside the order changes nothing."""
    updates = []
    for name in ("honest", "bent"):
        site = make_site(root=tmp_path / name)
        weights = safetensors.numpy.save(not_finite(initial_weights(site.plan)))
        beside = {} if name == "honest" else {"start": weights}
        with Worker(site.folder, threading.Event()) as worker:
            order = site.order(1, "train", beside=beside)
            updates.append(answer(worker, site, order)["ModelUpdate"].arrays)
    same(updates[:1], updates[1:])


def test_the_largest_plan_that_can_be_written_is_refused_by_number_too(worker, site):
    names = [f"L{number}" for number in range(64)]
    rungs = {"scales": [6.0, 5.0, 4.0, 3.0, 2.0, 1.0], "steps_mm": [9.0, 7.0, 5.0, 3.0, 2.0, 1.0]}
    plan = site.with_plan(
        task={"landmarks": names, "spacing_mm": 1.0, "roi": 129},
        experience={"position_bins": 64, "reach_steps": 32, "rows": 64, "columns": 2_000_000},
        network={"width": 64},
        ladder=rungs,
    )
    forged = site.order(plan=plan, signer=SigningKey.generate())
    assert answer(worker, site, forged) is None
    assert code_of(answer(worker, site, site.order(plan=plan))) is ReplyCode.REFUSED_BY_POLICY


def test_a_round_that_does_not_fit_its_phase_makes_the_order_bad(worker, site):
    assert code_of(answer(worker, site, site.order(0, "train"))) is ReplyCode.BAD_ORDER
    assert code_of(answer(worker, site, site.order(1, "begin"))) is ReplyCode.BAD_ORDER


def test_the_policy_refuses_a_plan_before_an_image_is_opened(worker, site, monkeypatch):
    monkeypatch.setattr(studies, "make_study", None)
    text = site.folder.policy_file.read_text()
    site.folder.policy_file.write_text(text.replace('landmarks = "any"', 'landmarks = ["A"]'))
    reply = answer(worker, site, site.order(1, "train"))
    assert code_of(reply) is ReplyCode.REFUSED_BY_POLICY
    record = next(r for r in worker._ledger.records() if r.event == "REFUSE")
    assert record.detail.field == "task.landmarks"


def test_a_site_that_sends_reports_only_is_not_trained(worker, site, monkeypatch):
    text = site.folder.policy_file.read_text()
    site.folder.policy_file.write_text(text.replace('"ModelUpdate", "SketchTable", ', ""))
    assert code_of(answer(worker, site, site.order())) is ReplyCode.OK
    monkeypatch.setattr(studies, "make_study", None)
    reply = answer(worker, site, site.order(1, "train"))
    assert code_of(reply) is ReplyCode.REFUSED_BY_POLICY


def test_when_the_policy_cannot_be_read_nothing_is_answered(worker, site):
    site.folder.policy_file.write_text("version = 1\n")
    digest = site.put(site.order())
    with pytest.raises(InputDataError, match="policy"):
        worker.turn()
    assert site.reply(digest) is None
    assert site.spool.orders() == [digest]


def test_too_few_images_are_refused_at_the_door_before_training(make_site):
    site = make_site(images=1)
    with Worker(site.folder, threading.Event()) as worker:
        assert code_of(answer(worker, site, site.order())) is ReplyCode.REFUSED_AT_DOOR


def test_an_update_beyond_the_norm_is_refused_and_its_state_is_not_built_on(make_site, tmp_path):
    site = make_site(limits={"update_l2": 1e-6})
    with Worker(site.folder, threading.Event()) as worker:
        reply = answer(worker, site, site.order(1, "train"))
    assert code_of(reply) is ReplyCode.REFUSED_AT_DOOR
    kept = [path.name for path in (site.folder.worker / "state" / "run-1").iterdir()]
    assert kept == ["chain.safetensors"], "what the sites came to stays, what was trained does not"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), ReplyCode.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), ReplyCode.OUT_OF_MEMORY),
        (OSError(errno.ENOSPC, "No space left on device"), ReplyCode.DISK_FULL),
        (InputDataError("a landmark is missing", field="Doe_Jane: A"), ReplyCode.BAD_DATA),
        (ZeroDivisionError("Doe"), ReplyCode.INTERNAL),
    ],
)
def test_a_failure_leaves_as_its_number_and_its_text_stays_in_the_log(
    worker, site, monkeypatch, caplog, error, code
):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(studies, "make_study", fail)
    with caplog.at_level(logging.ERROR, "cairn.worker"):
        reply = answer(worker, site, site.order(1, "train"))
    assert code_of(reply) is code
    assert type(error).__name__ in caplog.text
    assert b"Doe" not in (site.folder.ledger / "log.jsonl").read_bytes()


def test_a_site_without_the_federation_key_says_so_by_number(site):
    site.folder.federation_key.unlink()
    with Worker(site.folder, threading.Event()) as worker:
        reply = answer(worker, site, site.order())
    assert code_of(reply) is ReplyCode.NO_FEDERATION_KEY
    assert "has not come" in EXPLANATIONS[code_of(reply)]


def test_a_plan_of_public_sketches_needs_the_federation_key_too_for_its_sums(make_site):
    site = make_site(limits={"privacy_tier": 0})
    key = site.folder.federation_key.read_bytes()
    site.folder.federation_key.unlink()
    loosen(site.folder, least_tier="0")
    with Worker(site.folder, threading.Event()) as worker:
        assert code_of(answer(worker, site, site.order())) is ReplyCode.NO_FEDERATION_KEY
    site.folder.federation_key.write_bytes(key)
    site.folder.federation_key.chmod(0o600)
    with Worker(site.folder, threading.Event()) as worker:
        report = answer(worker, site, site.order(run="run-2"))["RoundReport"].record
    assert (report.code, report.key_id) == (ReplyCode.OK, public_key_id())


def test_a_failure_is_repeated_to_its_own_parcel_and_worked_on_anew_in_the_next(site, worker):
    images = site.folder.data()
    away = images.rename(images.parent / "away")
    failed = site.order()
    assert code_of(answer(worker, site, failed)) is ReplyCode.BAD_DATA
    before = len(events(worker))
    away.rename(images)
    assert code_of(answer(worker, site, failed)) is ReplyCode.BAD_DATA
    assert len(events(worker)) == before, "the courier's second try is no second failure"
    resumed = site.order(receipt=site.receipt(worker._ledger.checkpoint))
    assert code_of(answer(worker, site, resumed)) is ReplyCode.OK
    once_more = site.order(receipt=site.receipt(worker._ledger.checkpoint))
    after = events(worker).count(("SEND", None))
    assert code_of(answer(worker, site, once_more)) is ReplyCode.OK
    assert events(worker).count(("SEND", None)) == after, "what succeeded is never done twice"


# The inbox.


def test_a_later_round_supersedes_waiting_older_ones_of_its_run(worker, site, monkeypatch):
    old, other = site.put(site.order(1, "train")), site.put(site.order(0, "begin", run="run-2"))
    new = site.put(site.order(5, "evaluate"))
    while worker.turn():
        pass
    assert site.reply(old) is None
    assert set(site.reply(new)) == {"RoundReport"}
    assert code_of(site.reply(other)) is ReplyCode.OK


def test_a_round_that_is_asked_again_in_a_later_turn_supersedes_a_later_round(worker, site):
    """An aggregator that was put back from a backup asks earlier rounds than waits here."""

    def in_turn(number):
        return {"turn": sign_turn(TurnNote(run="run-1", turn=number), site.witness)}

    waiting = site.put(site.order(5, "evaluate", beside=in_turn(1)))
    again = site.put(site.order(0, "begin", beside=in_turn(2)))
    while worker.turn():
        pass
    assert site.reply(waiting) is None
    assert code_of(site.reply(again)) is ReplyCode.OK


def test_an_unsigned_order_supersedes_nothing(worker, site):
    real = site.put(site.order())
    forged = site.put(site.order(9, "evaluate", signer=SigningKey.generate()))
    while worker.turn():
        pass
    assert code_of(site.reply(real)) is ReplyCode.OK
    assert site.reply(forged) is None


def test_an_order_that_was_changed_in_the_spool_is_dropped(worker, site):
    digest = site.put(site.order())
    path = site.spool.inbox / f"{digest}.order"
    path.write_bytes(path.read_bytes() + b" ")
    assert worker.turn()
    assert site.reply(digest) is None
    assert site.spool.orders() == []


def test_a_second_worker_of_a_site_is_refused(worker, site):
    with pytest.raises(InputDataError):
        Worker(site.folder, threading.Event())


def test_a_worker_does_not_start_on_a_ledger_that_was_altered(site):
    with Worker(site.folder, threading.Event()) as worker:
        answer(worker, site, site.order())
    log = site.folder.ledger / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"round":0', b'"round":1'))
    with pytest.raises(VerificationError):
        Worker(site.folder, threading.Event())


# The run without work.


def test_a_no_op_plan_opens_no_image_and_still_meets_every_floor(make_site, monkeypatch):
    site = make_site(kind="no-op")
    for image in (site.folder.root.parent / "images").glob("*.nii.gz"):
        image.write_bytes(b"not an image")
    with Worker(site.folder, threading.Event()) as worker:
        begin = answer(worker, site, site.order())["RoundReport"].record
        reply = answer(worker, site, site.order(1, "train"))
        end = answer(worker, site, site.order(5, "evaluate"))
    assert begin.weights_sha256 == weights_digest(initial_weights(site.plan))
    assert all(not array.any() for array in reply["ModelUpdate"].arrays.values())
    assert reply["SketchTable"].record.total == reply["ModelUpdate"].record.transitions >= 100
    assert end["RoundReport"].record.code is ReplyCode.OK


def test_the_ledger_opens_again_after_the_worker(worker, site):
    answer(worker, site, site.order(1, "train"))
    worker.__exit__(None, None, None)
    key, origin = worker._keys.ledger, worker._ledger.origin
    with Ledger.open(site.folder.ledger, origin, key, worker._ledger._clock) as ledger:
        assert [r.event for r in ledger.records()] == ["GENESIS", "SEND", "SEND", "SEND"]
