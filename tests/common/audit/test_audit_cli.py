"""``cairn-audit`` says what left, what is broken, and ends with the right code."""

from __future__ import annotations

import html
import json
import re
import shutil

import pytest
from click.testing import CliRunner

from common.audit.cli import cli
from common.errors import CairnError


def call(*words, code=0):
    """Run the command; its output, after checking its exit code."""
    result = CliRunner().invoke(cli, [str(word) for word in words])
    if isinstance(result.exception, CairnError):
        assert int(result.exception.exit_code) == code, str(result.exception)
        return str(result.exception)
    assert result.exit_code == code, result.output
    return result.output


def test_an_intact_ledger_is_summed_up_in_one_line(received):
    output = call(
        *("verify", received.ledger, "--key", received.key, "--witness", received.witness),
        *("--journal", received.journal(b"x" * 1000, b"x" * 2000)),
    )
    first, *details = output.splitlines()
    assert (
        first
        == "site-a: 7 records, chain intact, 2 rounds, 3.0 kB out, 0.0 % of the wire unexplained"
    )
    assert any("2 receipts, covering 5 records; 1 refusal;" in line for line in details)
    assert all("given by you" in line for line in details if "key " in line)


def test_without_a_journal_nothing_is_claimed_about_completeness(received):
    output = call("verify", received.ledger, "--key", received.key)
    assert "completeness not checked" in output
    assert "unexplained" not in output


def test_a_key_found_in_the_ledger_is_said_to_prove_little(received):
    output = call("verify", received.ledger)
    assert "taken from the ledger's own folder" in output
    assert "Compare the fingerprint" in output
    assert re.search(r"key [0-9a-f]{64} \(taken", output)


def test_a_ledger_without_any_witness_key_is_verified_with_a_warning(received):
    (received.ledger / "witness.pub").unlink()
    output = call("verify", received.ledger, "--key", received.key)
    assert "warning: no witness key" in output
    assert "covering 0 records" in output


def test_a_broken_ledger_names_its_first_broken_record_and_exits_4(received):
    received.tamper()
    output = call("verify", received.ledger, "--key", received.key, code=4)
    assert output.startswith("site-a: BROKEN at record #4: does not match receipt")


def test_one_broken_ledger_among_several_fails_them_all_and_each_is_shown(received, another):
    another.tamper()
    output = call(
        *("verify", received.ledger, another.ledger, "--key", received.key),
        *("--key", another.key, "--witness", received.witness),
        code=4,
    )
    assert "site-a: 7 records, chain intact" in output
    assert "site-b: BROKEN" in output


def test_anything_sent_undeclared_fails(received):
    journal = received.journal(b"x" * 1000, b"smuggled")
    output = call("verify", received.ledger, "--key", received.key, "--journal", journal, code=4)
    assert "chain intact, 2 rounds, 3.0 kB out" in output
    assert "the courier's journal DOES NOT HOLD" in output
    assert "does not hold: line 3: 8 bytes" in output


def test_a_rewritten_history_is_shown_by_a_checkpoint_kept_elsewhere(received, tmp_path):
    kept = tmp_path / "kept.note"
    kept.write_bytes(received.receipt)
    call("verify", received.ledger, "--key", received.key, "--checkpoint", kept)
    shutil.rmtree(received.ledger)
    received.rewrite()
    call("verify", received.ledger, "--key", received.key)
    words = ("verify", received.ledger, "--key", received.key, "--witness", received.witness)
    output = call(*words, "--checkpoint", kept, code=4)
    assert "known checkpoint 1" in output


def test_json_carries_the_whole_verdict(received):
    journal = received.journal(b"x" * 1000, b"x" * 2000)
    words = ("verify", received.ledger, "--key", received.key, "--journal", journal, "--json")
    value = json.loads(call(*words))
    (verdict,) = value["ledgers"]
    assert value["passed"] is True
    assert verdict["intact"] is True
    assert verdict["broken"] is None
    assert verdict["records"] == 7
    assert verdict["bytes_by_round"] == [
        {"run": "run-1", "round": 1, "bytes": 1000},
        {"run": "run-1", "round": 2, "bytes": 2000},
    ]
    assert verdict["balance"]["holds"] is True
    assert sum(verdict["balance"]["causes"].values()) == verdict["balance"]["wire_bytes"]
    assert verdict["key"] == {"fingerprint": verdict["key"]["fingerprint"], "from_ledger": False}
    received.tamper()
    value = json.loads(call(*words, code=4))
    assert value["passed"] is False
    assert value["ledgers"][0]["broken"]["seq"] == 4


@pytest.mark.parametrize("command", ["verify", "show"])
def test_what_cannot_be_read_is_bad_input_and_not_a_verdict(received, tmp_path, command):
    assert "no ledger here" in call(command, tmp_path / "nowhere", code=6)
    assert "cannot read a key file" in call(
        command, received.ledger, "--key", tmp_path / "nokey", code=6
    )
    (received.ledger / "ledger.pub").unlink()
    assert "--key FILE" in call(command, received.ledger, code=6)


def test_a_misused_option_is_a_usage_error(received, another):
    two = ("verify", received.ledger, another.ledger)
    assert "--key is given once" in call(*two, "--key", received.key, code=2)
    assert "--checkpoint goes with" in call(*two, "--checkpoint", received.key, code=2)
    call("verify", code=2)
    call("show", received.ledger, "--event", "LEAK", code=2)
    call("show", received.ledger, "--round", "-1", code=2)


def test_show_lists_what_left_with_shapes_plan_and_policy(received):
    output = call("show", received.ledger, "--key", received.key)
    (line,) = [line for line in output.splitlines() if "run-1/2" in line]
    for cell in ("SEND", "2026-01-02T", "ModelUpdate", "2.0 kB", "fc1/weight float32[256, 512]"):
        assert cell in line
    assert "gaussian, total epsilon 3, delta 1e-6" in line
    assert "weights/fc1 must be finite <b>, got 3 NaN" in output
    assert "site-a: 7 records, chain intact" in output


def test_show_can_be_narrowed_to_an_event_and_a_round(received):
    words = ("show", received.ledger, "--key", received.key, "--json")
    assert [r["seq"] for r in json.loads(call(*words))["records"]] == list(range(7))
    sends = json.loads(call(*words, "--event", "send"))["records"]
    assert [(r["event"], r["round"]) for r in sends] == [("SEND", 1), ("SEND", 2)]
    assert [r["seq"] for r in json.loads(call(*words, "--round", 2))["records"]] == [4]


def test_show_hides_what_cannot_be_believed(received):
    received.tamper()
    value = json.loads(call("show", received.ledger, "--key", received.key, "--json", code=4))
    assert [record["seq"] for record in value["records"]] == [0, 1, 2, 3]
    assert value["verdict"]["broken"]["seq"] == 4


def test_the_report_stands_alone_and_escapes_what_it_shows(received, tmp_path):
    page = tmp_path / "report.html"
    output = call("report", received.ledger, "-o", page, "--key", received.key)
    assert f"written to {page}" in output
    text = page.read_text(encoding="utf-8")
    assert "site-a: 7 records, chain intact, 2 rounds, 3.0 kB out" in text
    assert text.count("<tr>") >= 7 + 2
    assert text.count("<rect ") == 2, "a bar for each round"
    assert 'width="230"' in text, "the first round is half as wide as the second"
    assert "finite &lt;b&gt;" in text
    assert "<b>" not in text
    assert "$" not in html.unescape(text)
    for outside in ("http:", "https:", "src=", "<script", "url(", "@import", "<link"):
        assert outside not in text


def test_the_report_tells_completeness_and_heeds_checkpoints_as_verify_does(received, tmp_path):
    page, kept = tmp_path / "report.html", tmp_path / "kept.note"
    kept.write_bytes(received.receipt)
    words = ("report", received.ledger, "-o", page, "--key", received.key, "--checkpoint", kept)
    call(*words, "--journal", received.journal(b"x" * 1000, b"x" * 2000))
    assert "0.0 % of the wire unexplained" in page.read_text(encoding="utf-8")
    call(*words, "--journal", received.journal(b"x" * 1000, b"smuggled"), code=4)
    assert "DOES NOT HOLD" in page.read_text(encoding="utf-8")
    shutil.rmtree(received.ledger)
    received.rewrite()
    call(*words, "--witness", received.witness, code=4)
    assert "known checkpoint 1" in page.read_text(encoding="utf-8")


def test_a_broken_ledger_is_reported_as_broken(received, tmp_path):
    received.tamper()
    page = tmp_path / "report.html"
    call("report", received.ledger, "-o", page, "--key", received.key, code=4)
    text = page.read_text(encoding="utf-8")
    assert "BROKEN at record #4" in text
    assert 'class="verdict bad"' in text


def test_a_report_that_cannot_be_written_is_bad_input(received, tmp_path):
    words = ("report", received.ledger, "-o", tmp_path / "no" / "report.html")
    assert "cannot write the report" in call(*words, code=6)


def test_nothing_in_a_ledger_is_changed_by_looking_at_it(received, tmp_path):
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in files(received.ledger)}
    call("verify", received.ledger)
    call("show", received.ledger)
    call("report", received.ledger, "-o", tmp_path / "report.html")
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in files(received.ledger)} == before


def test_help_teaches_and_names_the_exit_codes():
    assert "Exit codes: 0 everything holds" in call("--help")
    for command in ("verify", "show", "report"):
        assert "ledger" in call(command, "--help")
    assert "\n  site-a: 412 records, chain intact" in call("verify", "--help")


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())
