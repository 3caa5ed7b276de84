"""A record travels as one file with everything that proves it, and no other file passes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from common.audit.cli import cli
from common.crypto.identity import write_public_key
from common.errors import CairnError, ExitCode, VerificationError
from common.ledger.layout import Layout
from common.ledger.log import Ledger
from common.ledger.notes import cosignature, ledger_key, parse_note
from common.witness.tlog_proof import TlogProof, merge_notes
from tests.common.witness.conftest import NOW, ORIGIN, Bench


def call(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli, [str(word) for word in words])
    if isinstance(result.exception, CairnError):
        return int(result.exception.exit_code), str(result.exception)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return int(result.exit_code), result.output


@pytest.fixture
def folder(ledger: Ledger, bench: Bench, tmp_path):
    """A ledger of six records whose first five are witnessed; its key and a policy beside it."""
    for code in range(4):
        ledger.append("REFUSE", code=code)
    witnessed(ledger, bench, NOW)
    ledger.append("REFUSE", code=9)
    ledger.close()
    write_public_key(tmp_path / "site.pub", ledger.public_key)
    (tmp_path / "policy").write_text(f"{bench.line()}quorum w1\n")
    return tmp_path / "ledger"


def witnessed(ledger: Ledger, bench: Bench, at: datetime) -> None:
    checkpoint = parse_note(ledger.checkpoint).checkpoint
    lines = [cosignature(checkpoint, bench.name, key, at).line() for key in bench.signers]
    ledger.keep_witnessed(ledger.checkpoint + b"".join(lines), checkpoint.size)


def test_a_record_is_proven_by_its_file_alone(folder, tmp_path):
    key, policy, file = tmp_path / "site.pub", tmp_path / "policy", tmp_path / "2.tlog-proof"
    words = ("proof", folder, 2, "-o", file, "--key", key, "--witness-policy", policy)
    code, said = call(*words)
    assert (code, "record 2 of 5, 2 cosignatures" in said) == (0, True), said
    check = ("check-proof", file, "--key", key)
    code, said = call(*check, "--witness-policy", policy, "--json")
    assert code == 0, said
    told = json.loads(said)
    assert (told["record"]["code"], told["size"]) == (1, 5)
    assert told["witnesses"]["who"][0]["algorithm"] == "Ed25519"
    assert call(*check)[0] == ExitCode.NOT_WITNESSED


def test_a_record_that_no_quorum_has_seen_gets_no_such_file(folder, tmp_path):
    key, policy, file = tmp_path / "site.pub", tmp_path / "policy", tmp_path / "x"
    words = ("proof", folder, 5, "-o", file, "--key", key)
    code, said = call(*words, "--witness-policy", policy)
    assert (code, "no quorum" in said) == (4, True), said
    assert not file.exists()
    assert call(*words)[0] == 0
    check = ("check-proof", file, "--key", key, "--witness-policy", policy)
    assert call(*check)[0] == ExitCode.NOT_WITNESSED


def test_every_flipped_bit_of_a_proof_file_is_noticed(folder, tmp_path, bench):
    file = tmp_path / "2"
    call("proof", folder, 2, "-o", file, "--key", tmp_path / "site.pub")
    data = file.read_bytes()
    from common.crypto.identity import read_public_key

    key = ledger_key(ORIGIN, read_public_key(tmp_path / "site.pub"))
    TlogProof.from_bytes(data).verify(key)
    head = len(data) - len(TlogProof.from_bytes(data).note) + 150
    for position in range(0, head * 8, 3):
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(VerificationError):
            TlogProof.from_bytes(bytes(damaged)).verify(key)
    for length in range(0, head, 7):
        with pytest.raises(VerificationError):
            TlogProof.from_bytes(data[:length]).verify(key)


def test_a_proof_file_of_many_megabytes_is_not_read(folder, tmp_path):
    file = tmp_path / "large"
    with file.open("wb") as stream:
        stream.truncate(1 << 33)
    assert call("check-proof", file, "--key", tmp_path / "site.pub")[0] == 4
    with pytest.raises(VerificationError):
        TlogProof.from_bytes(b"x" * (1 << 23))


def test_the_record_of_another_payload_is_not_the_files(folder, tmp_path):
    file, other = tmp_path / "2", tmp_path / "other"
    other.write_bytes(b"other")
    call("proof", folder, 2, "-o", file, "--key", tmp_path / "site.pub")
    code, said = call("check-proof", file, "--key", tmp_path / "site.pub", "--payload", other)
    assert (code, "other bytes" in said) == (4, True)


def verify(folder, tmp_path, *more: object) -> tuple[int, str]:
    return call("verify", folder, "--key", tmp_path / "site.pub", *more)


def test_a_ledger_is_witnessed_only_when_the_quorum_is_fresh_and_covers_its_end(
    ledger, bench, tmp_path
):
    write_public_key(tmp_path / "site.pub", ledger.public_key)
    (tmp_path / "policy").write_text(f"{bench.line()}quorum w1\n")
    policy = ("--witness-policy", tmp_path / "policy", "--json")
    folder, now = tmp_path / "ledger", datetime.now(UTC)

    def tail() -> bool:
        code, said = verify(folder, tmp_path, *policy)
        (one,) = json.loads(said)["ledgers"]
        assert one["intact"], said
        assert (code == 0) == one["passed"]
        return bool(one["passed"])

    witnessed(ledger, bench, now - timedelta(days=30))
    assert not tail(), "old cosignatures say nothing of what was cut since"
    witnessed(ledger, bench, now)
    assert tail()
    ledger.append("REFUSE", code=1)
    assert not tail(), "the last record has no witness"
    witnessed(ledger, bench, now)
    assert tail()


def test_cosignatures_that_came_one_by_one_make_a_quorum_together(ledger, bench, tmp_path):
    other = Bench(tmp_path / "b", "b.example/w", bench.classical, bench.postquantum)
    other.classical = type(bench.classical).from_seed(b"\x09" * 32)
    write_public_key(tmp_path / "site.pub", ledger.public_key)
    lines = bench.line("a") + other.line("b")
    (tmp_path / "policy").write_text(f"{lines}group g 2 a b\nquorum g\n")
    checkpoint, now = parse_note(ledger.checkpoint).checkpoint, datetime.now(UTC)
    words: list[object] = ["--witness-policy", tmp_path / "policy"]
    for each in (bench, other):
        path = tmp_path / f"{each.name[0]}.note"
        line = cosignature(checkpoint, each.name, each.classical, now).line()
        path.write_bytes(ledger.checkpoint + line)
        assert verify(tmp_path / "ledger", tmp_path, *words)[0] != 0
        words += ["--checkpoint", path]
    assert verify(tmp_path / "ledger", tmp_path, *words)[0] == 0


def test_notes_about_one_checkpoint_are_put_together_once(ledger, bench):
    checkpoint = parse_note(ledger.checkpoint).checkpoint
    a, b = (cosignature(checkpoint, bench.name, key, NOW).line() for key in bench.signers)
    (whole,) = merge_notes([ledger.checkpoint + a, ledger.checkpoint + b, ledger.checkpoint + a])
    assert whole == ledger.checkpoint + a + b


def test_a_note_beside_the_ledger_that_is_of_another_history_breaks_it(folder, tmp_path, bench):
    path = Layout(folder).witnessed_files()[0]
    path.write_bytes(path.read_bytes().replace(b"\n5\n", b"\n6\n"))
    assert verify(folder, tmp_path)[0] == 4
