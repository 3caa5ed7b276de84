"""One question, four forms of its answer: what left in a period, to whom, under whose yes."""

from __future__ import annotations

import csv
import html
import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from common.audit.cli import cli
from common.audit.period import Period, parse_period
from common.crypto.identity import write_public_key
from common.errors import CairnError, UsageError
from common.ledger.proof import cosign
from common.ledger.records import make_record
from tests.ledgers import AGGREGATOR, NO_OP, PEER, Written, policy_of, report, update


class Year:
    """A ledger with releases in November and December, under a plan that Ada approved."""

    def __init__(self, folder, *, person: str = "Ada", approval: str = "each") -> None:
        self.ledger = folder / "site-a"
        self.note, self.key, self.witness = (
            folder / name for name in ("newest.note", "site-a.pub", "witness.pub")
        )
        policy = policy_of(plans={"approval": approval})
        start = datetime(2026, 11, 1, tzinfo=UTC) - timedelta(minutes=4)
        self.written = written = Written(self.ledger, policy=policy, moment=start)
        with written.ledger as ledger:
            if approval == "each":
                ledger.append("APPROVE", plan_fingerprint=NO_OP.fingerprint, person=person)
            ledger.append("CONFIRM", peer="site-b", peer_key=PEER, person="Bo")
            self.november = [report(NO_OP, 1), update(NO_OP, 1)]
            written.release(self.november)
            ledger.append("REFUSE", code=5)
            written.moment = datetime(2026, 11, 30, 23, 59, tzinfo=UTC)
            self.december = report(NO_OP, 2)
            written.release([self.december])
            last = ledger.append("REFUSE", code=5)
            self.note.write_bytes(cosign(last.checkpoint, AGGREGATOR, written.clock()))
        write_public_key(self.key, written.signing.public)
        write_public_key(self.witness, AGGREGATOR.public)

    def ask(self, *words, code=0):
        held = ("--key", self.key, "--witness", self.witness, "--checkpoint", self.note)
        call = ("left", self.ledger, *held, *words)
        result = CliRunner().invoke(cli, [str(word) for word in call])
        if isinstance(result.exception, CairnError):
            assert int(result.exception.exit_code) == code, str(result.exception)
            return str(result.exception)
        assert result.exit_code == code, result.output
        return result.stdout

    def tamper(self) -> None:
        log = self.ledger / "log.jsonl"
        log.write_bytes(log.read_bytes().replace(b'"round":2', b'"round":3'))


@pytest.fixture
def year(tmp_path) -> Year:
    return Year(tmp_path)


def test_a_month_is_answered_by_type_receiver_plan_policy_and_person(year):
    told = json.loads(year.ask("--month", "2026-11", "--json"))
    left = told["left"]
    assert (told["verdict"]["verdict"], told["marked"]) == ("witnessed", "")
    assert (left["releases"], left["refused"]) == (2, 1)
    assert left["bytes"] == sum(map(len, year.november))
    assert left["by_type_and_receiver"] == [
        {
            "record_type": kind,
            "to": "hub.example.org:9443",
            "releases": 1,
            "bytes": len(payload),
        }
        for kind, payload in zip(("ModelUpdate", "RoundReport"), year.november[::-1], strict=True)
    ]
    (plan,) = left["by_plan"]
    assert (plan["plan_name"], plan["plan"]) == ("no-op", NO_OP.fingerprint[:16])
    assert plan["policy"] == year.written.policy.sha256[:16]
    assert plan["approved_by"] == "Ada, 2026-10-31T23:58:00Z"
    out = year.ask("--month", "2026-11")
    assert out.startswith("What left site-a from 2026-11-01T00:00:00Z to 2026-12-01T00:00:00Z: 2 ")
    assert "hub.example.org:9443" in out


def test_the_months_add_up_to_everything(year):
    whole = json.loads(year.ask("--json"))["left"]["bytes"]
    parts = [
        json.loads(year.ask("--month", month, "--json"))["left"]["bytes"]
        for month in ("2026-10", "2026-11", "2026-12")
    ]
    assert parts == [0, sum(map(len, year.november)), len(year.december)]
    assert sum(parts) == whole


def test_both_days_of_a_span_count_and_a_time_is_taken_as_it_stands(year):
    for words, releases in (
        (("--since", "2026-12-01"), 1),
        (("--until", "2026-11-30"), 2),
        (("--since", "2026-11-01", "--until", "2026-12-01"), 3),
        (("--until", "2026-12-01T00:00:00Z"), 2),
    ):
        assert json.loads(year.ask(*words, "--json"))["left"]["releases"] == releases, words


@pytest.mark.parametrize(
    "words",
    [
        ("--month", "2026-13"),
        ("--month", "November"),
        ("--month", "2026-11", "--since", "2026-11-01"),
        ("--since", "2026-11-31"),
        ("--since", "2026-11-02", "--until", "2026-11-01"),
        ("--until", "9999-12-31"),
    ],
)
def test_a_span_that_is_none_is_a_usage_error(year, words):
    year.ask(*words, code=2)


@given(st.integers(2020, 2022), st.integers(1, 12), st.integers(0, 1095 * 86_400))
def test_a_month_holds_its_own_moments_and_no_others(year, month, seconds):
    text = f"{year:04d}-{month:02d}"
    moment = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    record = make_record(seq=0, event="GENESIS", now=moment, site="a", fields={})
    inside = parse_period(text, None, None).holds(record)
    assert inside == ((moment.year, moment.month) == (year, month))


def test_a_day_before_all_days_is_no_day():
    with pytest.raises(UsageError):
        parse_period(None, "0000-01-01", None)
    assert Period().says == "ever"


def test_rows_for_a_spreadsheet_carry_the_verdict_and_no_formula(tmp_path):
    year = Year(tmp_path, person="=HYPERLINK(1)")
    rows = list(csv.DictReader(io.StringIO(year.ask("--csv", "-"))))
    assert [row["verdict"] for row in rows] == ["witnessed"] * 3
    assert {row["approved_by"] for row in rows} == {"'=HYPERLINK(1)"}
    assert [int(row["bytes"]) for row in rows] == [
        *map(len, year.november),
        len(year.december),
    ]
    year.tamper()
    file = tmp_path / "left.csv"
    year.ask("--csv", file, code=4)
    rows = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))
    assert [row["verdict"] for row in rows] == ["broken"] * 2, "only what was before the breakage"


def test_answers_of_a_ledger_that_nobody_vouches_for_say_so_in_every_form(year, tmp_path):
    words = ("left", year.ledger, "--key", year.key, "--witness", year.witness)
    page = tmp_path / "page.html"
    result = CliRunner().invoke(cli, [str(w) for w in (*words, "--html", page)])
    assert result.exit_code == 9
    assert "more may have left" in result.output
    assert "more may have left" in page.read_text(encoding="utf-8")
    result = CliRunner().invoke(cli, [str(w) for w in (*words, "--json")])
    assert "more may have left" in json.loads(result.output)["marked"]


def test_answers_of_a_broken_ledger_are_marked_in_every_form(year, tmp_path):
    year.tamper()
    assert "THIS LEDGER IS BROKEN" in year.ask(code=4)
    assert "THIS LEDGER IS BROKEN" in json.loads(year.ask("--json", code=4))["marked"]
    page = tmp_path / "page.html"
    year.ask("--html", page, code=4)
    text = page.read_text(encoding="utf-8")
    assert 'class="verdict bad"' in text
    assert "THIS LEDGER IS BROKEN" in text


def test_who_is_asked_of_a_bounded_policy_is_nobody_by_name(tmp_path):
    out = Year(tmp_path, approval="bounded").ask()
    assert "nobody: the policy in force serves plans within its bounds" in out


def test_the_page_of_a_month_tells_only_that_month_and_explains_its_words(year, tmp_path):
    page = tmp_path / "page.html"
    year.ask("--month", "2026-12", "--html", page)
    text = html.unescape(page.read_text(encoding="utf-8"))
    assert "What left from 2026-12-01T00:00:00Z to 2027-01-01T00:00:00Z" in text
    assert "RoundReport" in text
    assert "ModelUpdate" not in text.split("What was asked")[0]
    assert "a checkpoint that the aggregator has cosigned" in text
    assert "prefers-color-scheme: dark" in text
    for outside in ("http:", "https:", "src=", "<script", "url(", "@import", "<link"):
        assert outside not in text
