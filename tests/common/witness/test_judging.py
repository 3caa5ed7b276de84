"""A witness cosigns a log that only grows, and answers everything else with its number."""

from __future__ import annotations

import threading

import pytest

from common.crypto.identity import SigningKey
from common.errors import InputDataError, VerificationError
from common.ledger.merkle import EMPTY_ROOT, leaf_hash
from common.ledger.notes import (
    Checkpoint,
    open_note,
    parse_signatures,
    sign_checkpoint,
)
from common.witness.judging import check_memory
from common.witness.store import MAX_EVIDENCE, Store, origin_digest
from common.witness.wire import MAX_REQUEST_BYTES, SIZE_TYPE, AddCheckpoint
from tests.common.witness.conftest import NOW, ORIGIN, Log


def test_a_log_that_grows_is_cosigned_with_both_kinds_of_key(bench, log):
    with bench.judge(log) as judge:
        first = judge.add_checkpoint(log.ask(0))
        seen = log.size
        answer = judge.add_checkpoint(log.grow(6).ask(seen))
    assert (first.status, answer.status) == (200, 200)
    opened = open_note(log.note + answer.body, [log.public, *bench.keys])
    assert opened.checkpoint == log.checkpoint
    assert opened.cosigned_at == {bench.name: NOW}


def test_asking_again_for_the_same_checkpoint_is_no_fork(bench, log):
    with bench.judge(log) as judge:
        judge.add_checkpoint(log.ask(0))
        assert judge.add_checkpoint(log.ask(log.size)).status == 200


def test_another_old_size_is_answered_with_the_witnesss_own(bench, log):
    with bench.judge(log) as judge:
        judge.add_checkpoint(log.grow(4).ask(0))
        answer = judge.add_checkpoint(log.grow(1).ask(0))
    assert (answer.status, answer.kind, answer.body, answer.size) == (409, SIZE_TYPE, b"5\n", 5)


def test_a_witness_remembers_over_a_restart(bench, log):
    with bench.judge(log) as judge:
        judge.add_checkpoint(log.grow(4).ask(0))
    with bench.judge(log) as judge:
        assert judge.add_checkpoint(log.ask(0)).status == 409
        assert judge.checkpoint(origin_digest(ORIGIN)).body.startswith(log.checkpoint.text())


def test_what_is_answered_stands_on_the_disk_first(bench, log, monkeypatch):
    said = []
    real = Store.keep

    def keep(self, origin, note):
        real(self, origin, note)
        said.append(self.last(origin_digest(origin)))

    monkeypatch.setattr(Store, "keep", keep)
    with bench.judge(log) as judge:
        answer = judge.add_checkpoint(log.ask(0))
    assert said == [log.note + answer.body]


def test_a_full_disk_cosigns_nothing(bench, log, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with bench.judge(log) as judge:
        monkeypatch.setattr("common.witness.store.replace_durably", full)
        with pytest.raises(InputDataError.__mro__[1], match="the disk is full"):
            judge.add_checkpoint(log.ask(0))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"old 0\n", 400),
        (b"old 00\n\nx", 400),
        (b"old -1\n\nx", 400),
        (b"old 0\nAAAA\n\nx", 400),
        (b"old 0\n\n\xff\xfe", 400),
        (b"x" * (MAX_REQUEST_BYTES + 1), 400),
        (b"old 0\n" + b"A" * 43 + b"=\n" * 64 + b"\nx", 400),
    ],
)
def test_what_is_no_request_is_refused(bench, log, body, status):
    with bench.judge(log) as judge:
        assert judge.add_checkpoint(body).status == status


def test_every_refusal_has_its_number(bench, log):
    stranger = Log(SigningKey.from_seed(b"\3" * 32)).grow(1)
    unknown = Log(SigningKey.from_seed(b"\3" * 32), "site-b/ledger").grow(1)
    with bench.judge(log) as judge:
        assert judge.add_checkpoint(unknown.ask(0)).status == 404
        assert judge.add_checkpoint(stranger.ask(0)).status == 403
        assert judge.add_checkpoint(log.ask(2)).status == 400
        assert judge.checkpoint(origin_digest(ORIGIN)).status == 404
        assert judge.checkpoint("../../etc/passwd").status == 404


def test_a_false_signature_of_a_known_key_is_refused_whatever_else_signed(bench, log):
    note = log.note
    broken = bytearray(note)
    broken[-8] ^= 1
    with bench.judge(log) as judge:
        body = AddCheckpoint(0, (), bytes(broken)).to_bytes()
        assert judge.add_checkpoint(body).status in (400, 403)


def test_an_empty_log_has_the_root_of_nothing(bench, log):
    wrong = sign_checkpoint(Checkpoint(ORIGIN, 0, leaf_hash(b"x")), log.key)
    right = sign_checkpoint(Checkpoint(ORIGIN, 0, EMPTY_ROOT), log.key)
    with bench.judge(log) as judge:
        assert judge.add_checkpoint(AddCheckpoint(0, (), wrong).to_bytes()).status == 422
        assert judge.add_checkpoint(AddCheckpoint(0, (), right).to_bytes()).status == 200


def test_a_proof_where_none_is_needed_is_refused(bench, log):
    with bench.judge(log) as judge:
        needless = AddCheckpoint(0, (b"\0" * 32,), log.note).to_bytes()
        assert judge.add_checkpoint(needless).status == 422


def test_many_logs_are_kept_apart(bench, log):
    other = Log(SigningKey.from_seed(b"\4" * 32), "example.com/other-log").grow(9)
    with bench.judge(log, other) as judge:
        assert judge.add_checkpoint(other.ask(0)).status == 200
        assert judge.add_checkpoint(log.ask(0)).status == 200
        assert judge.add_checkpoint(other.grow(1).ask(9)).status == 200


def test_of_two_requests_at_once_one_wins_and_the_log_never_goes_back(bench, log):
    answers: list[int] = []
    with bench.judge(log) as judge:
        judge.add_checkpoint(log.ask(0))
        asks = [log.fork(1).grow(n).ask(1) for n in (1, 5)]
        threads = [
            threading.Thread(target=lambda b=b: answers.append(judge.add_checkpoint(b).status))
            for b in asks
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(answers) == [200, 409]


def test_refused_forks_are_kept_and_do_not_fill_the_disk(bench, log):
    with bench.judge(log) as judge:
        judge.add_checkpoint(log.grow(4).ask(0))
        for number in range(MAX_EVIDENCE + 4):
            forked = log.fork(2).grow(3, b"fork %d" % number)
            assert judge.add_checkpoint(forked.ask(5)).status == 422
    assert len(list((bench.folder / "evidence").iterdir())) == MAX_EVIDENCE


def test_a_second_process_does_not_witness_from_the_same_folder(bench, log):
    with bench.judge(log), pytest.raises(InputDataError, match="runs already"):
        Store(bench.folder)


def test_a_memory_that_lost_a_checkpoint_does_not_start(bench, log):
    with bench.judge(log) as judge:
        judge.add_checkpoint(log.ask(0))
    (bench.folder / f"{origin_digest(ORIGIN)}.note").unlink()
    with pytest.raises(VerificationError, match="is gone"):
        Store(bench.folder)


def test_a_memory_that_somebody_else_wrote_does_not_start(bench, log):
    with bench.judge(log) as judge:
        judge.add_checkpoint(log.ask(0))
    path = bench.folder / f"{origin_digest(ORIGIN)}.note"
    path.write_bytes(log.fork(0).grow(1, b"other").note)
    with Store(bench.folder) as store, pytest.raises(VerificationError):
        check_memory(store, {ORIGIN: (log.public,)}, bench.keys)


def test_each_answer_names_both_keys_once(bench, log):
    with bench.judge(log) as judge:
        lines = parse_signatures(judge.add_checkpoint(log.ask(0)).body.decode())
    assert [line.key_id for line in lines] == [key.key_id for key in bench.keys]
