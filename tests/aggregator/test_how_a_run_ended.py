"""The codes with which `round start --watch`, `round resume --watch` and `watch` end."""

from __future__ import annotations

import tomllib

import pytest

from aggregator.admin.enrol import create_federation
from aggregator.admin.folder import FederationFolder, FederationSettings
from aggregator.cli import cli
from aggregator.commands.rounds import end_with
from aggregator.rounds.events import RunFinished, RunStarted
from aggregator.rounds.store import RunOptions, RunStore
from common.cli import run
from common.errors import ExitCode
from common.plan import parse_plan
from tests.programs import NO_OP_PLAN

LATE = "site-c was absent or late (rounds 2-3)"


@pytest.fixture
def federation(tmp_path) -> FederationFolder:
    folder = FederationFolder(tmp_path / "fed")
    settings = FederationSettings(name="x", address="127.0.0.1:9", port=1000)
    create_federation(folder, settings, ["127.0.0.1"])
    return folder


def a_run(federation: FederationFolder, **end) -> None:
    """A run that is over, as its journal tells."""
    plan = parse_plan(tomllib.loads(NO_OP_PLAN.format(rounds=1, quorum=2, deadline=30.0)))
    options = RunOptions(min_sites=2, wait_s=1.0)
    store = RunStore.create(federation.runs / "20260101-000000-x", plan, options)
    store.record(
        RunStarted(
            run=store.name,
            federation="x",
            plan_name="x",
            plan_fingerprint=plan.fingerprint,
            kind="no-op",
            rounds=1,
            quorum=2,
            sites=("site-a",),
        )
    )
    if end:
        store.record(RunFinished(rounds=1, **end))


def watch(capsys, federation: FederationFolder, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        run(cli, ["watch", "--dir", str(federation.root), *words])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_a_completed_run_ends_with_0_and_says_nothing_on_standard_error(capsys, federation):
    a_run(federation, verdict="COMPLETED")
    for words in ((), ("--strict",)):
        code, out, err = watch(capsys, federation, *words)
        assert (code, err) == (0, "")
        assert "verdict=COMPLETED" in out


def test_a_degraded_run_ends_with_0_and_a_loud_last_line_or_with_8_when_strict(capsys, federation):
    a_run(federation, verdict="DEGRADED", reason=LATE)
    said = "DEGRADED: every round counted, but not every site was always there: "
    code, _, err = watch(capsys, federation)
    assert (code, err) == (0, f"{said}{LATE} (exit 0)\n")
    code, _, err = watch(capsys, federation, "--strict")
    assert (code, err) == (8, f"{said}{LATE} (exit 8)\n")


@pytest.mark.parametrize("code", [3, 4, 5, 6, 7])
def test_a_failed_run_ends_with_the_code_of_its_reason(capsys, federation, code):
    a_run(federation, verdict="FAILED", reason="why\x1b[2J", exit_code=code)
    for words in ((), ("--strict",)):
        ended, _, err = watch(capsys, federation, *words)
        assert (ended, err) == (code, f"FAILED: why?[2J (exit {code})\n")


def test_a_failed_run_never_ends_with_0():
    """A journal of an earlier release could name no code."""
    end = RunFinished(verdict="FAILED", reason="why", rounds=0)
    assert end_with(end, strict=False) == ExitCode.INTERNAL


def test_the_documented_codes_are_what_they_were():
    numbers = {code.name: int(code) for code in ExitCode}
    assert numbers == {
        "OK": 0,
        "USAGE": 2,
        "REFUSED": 3,
        "VERIFICATION_FAILED": 4,
        "UNREACHABLE": 5,
        "BAD_INPUT": 6,
        "INTERNAL": 7,
        "DEGRADED": 8,
        "NOT_WITNESSED": 9,
        "STOPPED": 10,
    }


def test_the_help_names_every_code_that_it_can_end_with(capsys):
    # As a user asks for it: a command that is asked by itself remembers that it has no -h.
    with pytest.raises(SystemExit):
        run(cli, ["round", "start", "--help"])
    text = capsys.readouterr().out
    named = {line.split()[0] for line in text.splitlines() if line.strip()[:2].strip().isdigit()}
    assert {"0", "3", "5", "6", "8"} <= named
    for code in ("4", "7"):
        assert f"    {code}  FAILED" in text
