"""``cairn-audit`` says what left, what is broken, and ends with the right code."""

from __future__ import annotations

import html
import json
import re
import shutil

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec

from common.audit.cli import cli
from common.cli import megabytes
from common.crypto.certificates import node_public_line
from common.errors import CairnError


def call(*words, code=0):
    """Run the command; its output, after checking its exit code."""
    result = CliRunner().invoke(cli, [str(word) for word in words])
    if isinstance(result.exception, CairnError):
        assert int(result.exception.exit_code) == code, str(result.exception)
        return str(result.exception)
    assert result.exit_code == code, result.output
    return result.output


LINE = "site-a: chain intact, its end NOT WITNESSED, 7 records, 2 rounds, {size} out"


def out_of(received) -> str:
    return megabytes(sum(map(len, received.payloads)))


def test_a_ledger_that_is_intact_and_witnessed_ends_with_0(received):
    output = call(
        *("verify", received.ledger, *received.held),
        *received.sent(*received.payloads),
    )
    first, *details = output.splitlines()
    size = out_of(received)
    assert first == (
        f"site-a: chain intact and witnessed, 7 records, 2 rounds, {size} out, "
        "0.0 % of the wire unexplained"
    )
    assert any("2 receipts, covering 7 records; 1 refusal;" in line for line in details)
    assert any("end: 7 of 7 records seen by aggregator/witness" in line for line in details)
    assert all("given by you" in line for line in details if "key " in line)
    assert "NOT WITNESSED" not in output


@pytest.mark.parametrize("lacking", ["--key", "--witness", "--checkpoint"])
def test_without_one_of_key_witness_and_checkpoint_the_end_is_not_witnessed(received, lacking):
    words = list(received.held)
    at = words.index(lacking)
    del words[at : at + 2]
    output = call("verify", received.ledger, *words, code=9)
    assert output.startswith(LINE.format(size=out_of(received)))
    assert lacking in output


def test_a_checkpoint_that_covers_less_leaves_the_end_unwitnessed(received, tmp_path):
    stale = tmp_path / "stale.note"
    stale.write_bytes(received.receipt)
    output = call("verify", received.ledger, *received.held[:-1], stale, code=9)
    assert "the last 2 of 7 records have no witness from outside the ledger" in output


def test_an_old_cosignature_does_not_vouch_for_the_end_where_a_fresh_one_is_asked(received):
    output = call("verify", received.ledger, *received.held, "--fresh-within", 1, code=9)
    assert "known checkpoint 1 is too old: cosigned 2026-01-02" in output


def test_files_of_the_ledgers_own_folder_are_not_taken_for_others(received):
    own = next((received.ledger / "receipts").iterdir())
    words = ("verify", received.ledger, *received.held[:-1])
    assert "proves nothing about it" in call(*words, own, code=2)
    output = call(
        *("verify", received.ledger, "--key", received.ledger / "ledger.pub"),
        *received.held[2:], code=9,
    )  # fmt: skip
    assert "the site's key came with the ledger" in output


def test_without_a_journal_nothing_is_claimed_about_completeness(received):
    output = call("verify", received.ledger, *received.held)
    assert "completeness not checked" in output
    assert "undeclared" not in output


def test_a_key_found_in_the_ledger_is_said_to_prove_little(received):
    output = call("verify", received.ledger, code=9)
    assert "taken from the ledger's own folder" in output
    assert "Compare the fingerprint" in output
    assert re.search(r"key [0-9a-f]{64} \(taken", output)


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
    assert "site-a: chain intact" in output
    assert "site-b: BROKEN" in output


def test_anything_sent_undeclared_breaks_even_a_witnessed_ledger(received):
    sent = received.sent(received.payloads[0], b"smuggled")
    output = call("verify", received.ledger, *received.held, *sent, code=4)
    assert output.startswith("site-a: INCOMPLETE, chain intact, 7 records, 2 rounds")
    assert "does not hold: line 3: 8 bytes" in output


def test_a_journal_whose_courier_nobody_names_vouches_for_nothing(received):
    words = ("verify", received.ledger, *received.held)
    output = call(*words, "--journal", received.journal(*received.payloads), code=9)
    assert "the courier's key came with its journal" in output


def test_a_courier_other_than_the_one_that_was_admitted_breaks_it(received, tmp_path):
    other = tmp_path / "other.pub"
    other.write_text(node_public_line(ec.derive_private_key(77, ec.SECP384R1())))
    words = ("verify", received.ledger, *received.held, *received.sent(*received.payloads)[:2])
    output = call(*words, "--courier-key", other, code=4)
    assert "another courier's" in output


def test_a_rewritten_history_is_shown_by_a_checkpoint_kept_elsewhere(received, tmp_path):
    kept = tmp_path / "kept.note"
    kept.write_bytes(received.receipt)
    shutil.rmtree(received.ledger)
    received.rewrite()
    call("verify", received.ledger, "--key", received.key, code=9)
    words = ("verify", received.ledger, "--key", received.key, "--witness", received.witness)
    output = call(*words, "--checkpoint", kept, code=4)
    assert "known checkpoint 1" in output


def test_json_carries_the_whole_verdict(received):
    sent = received.sent(*received.payloads)
    words = ("verify", received.ledger, *received.held, *sent, "--json")
    value = json.loads(call(*words))
    (verdict,) = value["ledgers"]
    assert value["passed"] is True
    assert (verdict["verdict"], verdict["intact"], verdict["broken"]) == ("witnessed", True, None)
    assert verdict["doubts"] == []
    assert (verdict["end"]["records"], verdict["end"]["witnessed"]) == (7, 7)
    assert verdict["records"] == 7
    assert [each["bytes"] for each in verdict["bytes_by_round"]] == [
        len(payload) for payload in received.payloads
    ]
    assert verdict["balance"]["holds"] is True
    assert sum(verdict["balance"]["causes"].values()) == verdict["balance"]["wire_bytes"]
    assert verdict["key"] == {"fingerprint": verdict["key"]["fingerprint"], "from_ledger": False}
    received.tamper()
    value = json.loads(call(*words, code=4))
    assert value["passed"] is False
    assert value["ledgers"][0]["verdict"] == "broken"
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
    assert "--checkpoint is given once" in call(*two, "--checkpoint", received.key, code=2)
    call("verify", code=2)
    call("show", received.ledger, "--event", "LEAK", code=2)
    call("show", received.ledger, "--round", "-1", code=2)


def test_show_lists_what_left_with_shapes_plan_and_policy(received):
    output = call("show", received.ledger, "--key", received.key)
    (line,) = [line for line in output.splitlines() if "run-1/2" in line]
    for cell in (
        "SEND",
        "2026-01-02T",
        "ModelUpdate",
        megabytes(len(received.payloads[1])),
        "int32[",
    ):
        assert cell in line
    assert "gaussian, total epsilon 1.5, delta 1e-6" in output
    assert "weights/fc1 must be finite <b>, got 3 NaN" in output
    assert LINE.format(size=out_of(received)) in output


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
    output = call("report", received.ledger, "-o", page, *received.held)
    assert f"written to {page}" in output
    text = page.read_text(encoding="utf-8")
    assert "INTACT AND WITNESSED" in text
    assert text.count("<tr>") >= 7 + 2
    assert text.count("<rect ") == 2, "a bar for each round"
    assert 'width="460"' in text
    assert "finite &lt;b&gt;" in text
    assert "<b>" not in text
    assert "a site's signed append-only log" in html.unescape(text)
    assert "$" not in html.unescape(text)
    for outside in ("http:", "https:", "src=", "<script", "url(", "@import", "<link"):
        assert outside not in text


def test_the_report_tells_completeness_and_heeds_checkpoints_as_verify_does(received, tmp_path):
    page = tmp_path / "report.html"
    words = ("report", received.ledger, "-o", page, *received.held)
    call(*words, *received.sent(*received.payloads))
    text = page.read_text(encoding="utf-8")
    assert "0.0 % of the wire unexplained" in text
    assert "<h2>Balance of the wire</h2>" in text
    assert "records that the ledger declares</td>" in text
    call(*words, *received.sent(b"smuggled"), code=4)
    text = page.read_text(encoding="utf-8")
    assert "INCOMPLETE" in text
    assert "<li>does not hold: " in text
    call(*words[:-2], code=9)
    assert "ITS END NOT WITNESSED" in page.read_text(encoding="utf-8")
    shutil.rmtree(received.ledger)
    received.rewrite()
    call(*words, code=4)
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
    call("verify", received.ledger, code=9)
    call("show", received.ledger)
    call("report", received.ledger, "-o", tmp_path / "report.html", code=9)
    call("left", received.ledger, "--csv", "-", code=9)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in files(received.ledger)} == before


def test_help_teaches_and_names_the_exit_codes():
    assert "Exit codes: 0 intact, and witnessed" in call("--help")
    for command in ("verify", "left", "show", "report"):
        assert "ledger" in call(command, "--help")
    assert "\n  site-a: chain intact and witnessed, 412 records" in call("verify", "--help")


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())
