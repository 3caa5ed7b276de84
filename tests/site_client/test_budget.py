"""What a site has spent over all runs is told by ``status`` and ``check``, from its own files."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from common.crypto.identity import read_signing_key
from common.ledger.log import Ledger
from common.ledger.notes import ledger_origin
from site_client.cli import cli

DAY = timedelta(days=1)


def call(*words: object):
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.fixture
def answered(make_site):
    """A site that answered three rounds of two runs and failed one, on different days."""
    site = make_site()
    now = datetime.now(UTC)
    moments = iter([now - 40 * DAY, now - 40 * DAY, now - 9 * DAY, now - 2 * DAY, now - 1 * DAY])
    key = read_signing_key(site.folder.ledger_key)
    name = ledger_origin(site.folder.settings().site)
    rounds = [("old", 1, "train"), ("one", 1, "train"), ("one", 5, "evaluate"), ("one", 6, "train")]
    with Ledger.open(site.folder.ledger, name, key, lambda: next(moments)) as ledger:
        for number, (run, round_, phase) in enumerate(rounds):
            ledger.append(
                "SEND",
                run=run,
                round=round_,
                phase=phase,
                record_type="RoundReport",
                payload_sha256=f"{number}" * 64,
                order_sha256="d" * 64,
                bytes=1_000_000,
                arrays=(),
                plan_fingerprint="a" * 64,
                policy_sha256="e" * 64,
                code=14 if round_ == 6 else None,
            )
    return site.folder


def set_budget(folder, **values: int) -> None:
    text = folder.policy_file.read_text()
    before, _, after = text.partition("[budget]")
    for name, value in values.items():
        after, found = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value}", after)
        assert found == 1
    folder.policy_file.write_text(f"{before}[budget]{after}")


def test_status_says_what_is_spent_in_the_window_and_of_how_much(answered):
    told = call("status", "--site-dir", answered.root).output
    line = next(line for line in told.splitlines() if line.startswith("budget"))
    assert line == (
        "budget    1 of 40 runs, 1 of 600 rounds, 1 of 60 evaluations, 3.0 MB of 8.6 GB in 30 days"
    )
    assert "SPENT" not in told


def test_json_says_what_is_left_and_when_there_is_more(answered):
    budget = json.loads(call("status", "--json", "--site-dir", answered.root).stdout)["budget"]
    assert list(budget) == ["days", "runs", "rounds", "evaluations", "bytes"]
    assert budget["days"] == 30
    rounds = budget["rounds"]
    assert (rounds["spent"], rounds["most"], rounds["left"]) == (1, 600, 599)
    frees = datetime.strptime(rounds["frees"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs(frees - datetime.now(UTC) - 21 * DAY) < timedelta(minutes=10)
    assert budget["bytes"]["spent"] == 3_000_000, "a failure's bytes left, too"


def test_check_warns_when_the_budget_is_spent_and_says_until_when(answered):
    def fact():
        facts = json.loads(call("check", "--json", "--site-dir", answered.root).stdout)["facts"]
        return next(fact for fact in facts if fact["name"] == "budget")

    assert fact()["level"] == "ok"
    set_budget(answered, evaluations=1)
    assert fact()["level"] == "warning"
    assert fact()["says"].startswith("spent: 1 of 40 runs")
    assert "Orders are refused until 20" in fact()["fix"]
    assert "budget.evaluations" in fact()["fix"]
    told = call("status", "--site-dir", answered.root).output
    assert "SPENT     evaluations: orders are refused until 20" in told


def test_a_window_that_is_shorter_forgets_sooner(answered):
    set_budget(answered, days=5)
    budget = json.loads(call("status", "--json", "--site-dir", answered.root).stdout)["budget"]
    assert (budget["rounds"]["spent"], budget["evaluations"]["spent"]) == (0, 1)


def test_status_works_where_the_policy_is_out_of_sight(answered):
    answered.policy_file.unlink()
    done = call("status", "--json", "--site-dir", answered.root)
    assert done.exit_code == 0
    assert json.loads(done.stdout)["budget"] is None
    assert "budget" not in call("status", "--site-dir", answered.root).output
