"""Going on where an export came to: nothing lost, nothing twice, no rewriting unseen."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from common.audit.cli import cli
from common.cli import run
from common.errors import ExitCode


def export(capsys, *args) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        run(cli, ["export", *map(str, args)])
    out = capsys.readouterr()
    return int(ended.value.code), out.out, out.err


@pytest.fixture
def into(received, tmp_path):
    files = ("-o", tmp_path / "out", "--state", tmp_path / "state")
    return (received.ledger, "--format", "jsonl", *files)


def lines(tmp_path) -> list[dict]:
    return [json.loads(each) for each in (tmp_path / "out").read_bytes().splitlines()]


def test_only_what_is_new_is_added(received, into, tmp_path, capsys):
    assert export(capsys, *into)[0] == ExitCode.OK
    first = (tmp_path / "out").read_bytes()
    assert len(first.splitlines()) == 7
    received.grow()
    assert export(capsys, *into)[0] == ExitCode.OK
    after = (tmp_path / "out").read_bytes()
    assert after.startswith(first)
    assert [each["seq"] for each in lines(tmp_path)] == list(range(8))


@pytest.mark.parametrize("kept", [0, 1, 200, 5000])
def test_an_export_that_was_killed_before_its_state_writes_no_line_twice(
    into, tmp_path, capsys, kept
):
    export(capsys, *into)
    whole = (tmp_path / "out").read_bytes()
    (tmp_path / "state").unlink()
    (tmp_path / "out").write_bytes(whole[:kept])
    export(capsys, *into)
    assert (tmp_path / "out").read_bytes() == whole


def test_a_file_that_was_rotated_away_begins_again_with_what_is_new(
    received, into, tmp_path, capsys
):
    export(capsys, *into)
    (tmp_path / "out").rename(tmp_path / "out.1")
    received.grow()
    export(capsys, *into)
    assert [each["seq"] for each in lines(tmp_path)] == [7]


def test_a_ledger_that_was_rewritten_since_is_one_alert(received, into, tmp_path, capsys):
    export(capsys, *into)
    for path in (*received.ledger.glob("receipts/*"), *received.ledger.glob("payloads/*")):
        path.unlink()
    for name in ("log.jsonl", "checkpoint"):
        (received.ledger / name).unlink()
    received.shorten()  # another past, signed by the key's own holder: it verifies
    code, _, err = export(capsys, *into)
    assert code == ExitCode.VERIFICATION_FAILED
    assert "does not continue what was exported before" in err
    assert [each["event"] for each in lines(tmp_path)][7:] == ["ALERT"]
    assert lines(tmp_path)[7]["alarm"] == "rewritten"
    assert export(capsys, *into)[0] == ExitCode.VERIFICATION_FAILED
    assert len(lines(tmp_path)) == 8  # a standing alert is sent once


def test_a_recorded_restore_explains_what_a_rewriting_would_not(received, into, tmp_path, capsys):
    shutil.copytree(received.ledger, tmp_path / "backup")
    lost = received.grow()
    export(capsys, *into)
    shutil.rmtree(received.ledger)
    shutil.copytree(tmp_path / "backup", received.ledger)
    received.restore(lost)
    code, _, _ = export(capsys, *into)
    assert code == ExitCode.OK
    told = [(each["seq"], each["event"]) for each in lines(tmp_path)]
    assert told[7:] == [(7, "DECLINE"), (7, "RESTORE")]
    assert lines(tmp_path)[8]["lost_size"] == 8


def test_a_broken_ledger_is_an_alert_and_nothing_else(received, into, tmp_path, capsys):
    received.tamper()
    code, _, err = export(capsys, *into)
    assert code == ExitCode.VERIFICATION_FAILED
    assert "BROKEN" in err
    (only,) = lines(tmp_path)
    assert (only["event"], only["outcome"], only["alarm"]) == ("ALERT", "alert", "broken")


@pytest.mark.parametrize("form", ["fhir", "dicom", "jsonl"])
def test_a_broken_ledger_is_no_success_on_standard_output_either(received, capsys, form):
    received.tamper()
    with pytest.raises(SystemExit) as ended:
        run(cli, ["export", str(received.ledger), "--format", form])
    assert ended.value.code == ExitCode.VERIFICATION_FAILED


def test_a_state_of_another_ledger_is_refused(received, another, into, tmp_path, capsys):
    export(capsys, *into)
    code, _, err = export(capsys, another.ledger, *into[1:])
    assert code == ExitCode.USAGE
    assert "belongs to another export" in err


def test_a_damaged_state_is_refused(into, tmp_path, capsys):
    (tmp_path / "state").write_text("{}")
    assert export(capsys, *into)[0] == ExitCode.BAD_INPUT


def test_only_what_the_witness_has_seen_is_exported_if_so_wished(into, tmp_path, capsys):
    code, out, _ = export(capsys, *into, "--witnessed")
    assert code == ExitCode.OK
    assert "2 wait for the witness" in out
    assert all(each["witnessed"] for each in lines(tmp_path))
    assert [each["seq"] for each in lines(tmp_path)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("typed", "count"),
    [
        (("--month", "2026-01"), 7),
        (("--month", "2026-02"), 0),
        (("--since", "2026-01-03"), 0),
        (("--since", "2026-01-02", "--until", "2026-01-02"), 7),
        (("--until", "2026-01-02T03:07:05Z"), 2),
    ],
)
def test_a_period_leaves_out_the_rest(received, tmp_path, capsys, typed, count):
    arguments = (received.ledger, "--format", "jsonl", "-o", tmp_path / "out", *typed)
    assert export(capsys, *arguments)[0] == ExitCode.OK
    assert len(lines(tmp_path)) == count


@pytest.mark.parametrize(
    "typed",
    [
        ("--follow",),
        ("--state", "s"),
        ("--json",),
        ("--bundle",),
        ("--to", "host"),
        ("-o", "a", "--state", "s", "--month", "2026-01"),
        ("--month", "2026-13"),
        ("--month", "2026-01", "--since", "2026-01-01"),
        ("--since", "yesterday"),
        ("--since", "2026-02-01", "--until", "2026-01-01"),
    ],
)
def test_what_does_not_go_together_is_refused(received, capsys, typed):
    assert export(capsys, received.ledger, "--format", "jsonl", *typed)[0] == ExitCode.USAGE


def test_following_writes_what_comes_until_it_is_told_to_stop(received, into, tmp_path):
    program = "from common.audit.cli import main; main()"
    words = ["export", *map(str, into), "--follow", "--every", "0.1"]
    follower = subprocess.Popen(
        [sys.executable, "-c", program, *words], env=os.environ, stdout=subprocess.DEVNULL
    )
    try:
        _until(lambda: (tmp_path / "state").exists() and len(lines(tmp_path)) == 7)
        received.grow()
        _until(lambda: len(lines(tmp_path)) == 8)
    finally:
        follower.send_signal(signal.SIGTERM)
    assert follower.wait(timeout=60) == ExitCode.OK


def _until(holds) -> None:
    deadline = time.monotonic() + 90
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)
