"""``cairn-audit left`` and ``report``: the auditor's questions of a period, and their answers.

The same answers as a table, as JSON, as rows for a spreadsheet and as a page; each of
them carries the verdict on the ledger that it was read from.
"""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from pathlib import Path

import click

from common.audit.held_to import HeldTo, held_to
from common.audit.left import Left, what_left
from common.audit.load import Audited, detail_lines, verdict_dict, verdict_line
from common.audit.period import Period, in_period
from common.audit.report import render_report
from common.audit.table import print_groups
from common.cli import counted, echo_json, json_option, megabytes
from common.errors import InputDataError
from common.ledger.verdict import Finding

_FOLDER = click.Path(path_type=Path)
_FILE = click.Path(path_type=Path)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
MARKS = {
    Finding.WITNESSED: "",
    Finding.NOT_WITNESSED: "Nobody outside vouches for the end of this ledger: more may have left.",
    Finding.BROKEN: "THIS LEDGER IS BROKEN: only records before the breakage are counted, "
    "and nothing here can be relied upon.",
}


@click.command()
@click.argument("ledger", type=_FOLDER)
@in_period
@held_to
@click.option(
    "--csv",
    "csv_file",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE",
    help="Write every release as a row; - for standard output, and nothing else there.",
)
@click.option("--html", type=_FILE, metavar="FILE", help="Write the answers as a page.")
@json_option
@click.pass_context
def left(
    ctx: click.Context,
    ledger: Path,
    period: Period,
    against: HeldTo,
    csv_file: Path | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Answer what left a site in a period, to whom, under what, and by whose yes.

    How many releases and bytes, by type and receiver; under which plan and which policy of
    the site, and who had approved it before; what was refused, and what the archive has
    deleted by rule. Days and months are UTC, by the site's clock; both ends count.

    The ledger is verified first, as by `verify`. Of a broken one only the records before
    the breakage are counted; every form of the answer is marked so.

    \b
    cairn-audit left site-a/worker/ledger --month 2026-11 --key site-a.pub \\
        --witness witness.pub --checkpoint checkpoint.note
    cairn-audit left ledger --since 2026-11-01 --until 2026-11-14 --csv - > november.csv

    \b
    --json: {"verdict": {...}, "marked": "", "left": {"site": ..., "period": {...},
             "releases": 54, "bytes": 2890112, "by_type_and_receiver": [...],
             "by_plan": [...], "by_run": [...], "every_release": [...]}}

    Exit codes: 0 intact and witnessed; 4 broken; 9 intact, its end not witnessed.
    """  # noqa: D301 - the backspace tells click to keep the lines as they are
    audited = against.audit_one(ledger)
    answer = what_left(audited, period)
    to_stdout = csv_file is not None and str(csv_file) == "-"
    if csv_file is not None:
        _write_csv(csv_file, answer, audited)
    if html is not None:
        _write_page(html, audited, answer)
    if as_json and not to_stdout:
        mark = MARKS[audited.verdict.finding]
        echo_json({"verdict": verdict_dict(audited), "marked": mark, "left": answer.as_dict()})
    elif not to_stdout:
        _print(answer, audited)
    ctx.exit(audited.verdict.exit_code)


@click.command()
@click.argument("ledger", type=_FOLDER)
@click.option(
    "-o", "--output", type=_FILE, required=True, metavar="FILE", help="The HTML file to write."
)
@in_period
@held_to
@json_option
@click.pass_context
def report(
    ctx: click.Context, ledger: Path, output: Path, period: Period, against: HeldTo, as_json: bool
) -> None:
    """Write the audit of a ledger as one self-contained HTML file.

    With the answers of `left`, of a period or of all time, what was asked and who agreed,
    every record of it, and a glossary. A broken ledger is reported too, with what is wrong
    at the top.

    \b
    cairn-audit report site-a/worker/ledger --month 2026-11 -o november.html \\
        --key site-a.pub --witness witness.pub --checkpoint checkpoint.note

    Exit codes: 0 intact and witnessed; 4 broken; 9 intact, its end not witnessed.
    """  # noqa: D301 - the backspace tells click to keep the lines as they are
    audited = against.audit_one(ledger)
    _write_page(output, audited, what_left(audited, period))
    if as_json:
        echo_json({"report": str(output), "verdict": verdict_dict(audited)})
    else:
        click.echo(verdict_line(audited))
        click.echo(f"  written to {output}")
    ctx.exit(audited.verdict.exit_code)


def _print(answer: Left, audited: Audited) -> None:
    total = f"{counted(len(answer.releases), 'release')}, {megabytes(answer.bytes)}"
    click.echo(f"What left {answer.site} {answer.period.says}: {total}")
    if mark := MARKS[audited.verdict.finding]:
        click.echo(mark)
    print_groups("By type and receiver", ("type", "to"), answer.by_type)
    print_groups(
        "By plan, policy and approval", ("plan", "fingerprint", "policy", "approved by"),
        answer.by_plan,
    )  # fmt: skip
    print_groups("By run", ("run",), answer.by_run)
    held_back = f"{counted(answer.refused, 'refusal')} held something back"
    click.echo(f"{held_back}; {counted(answer.expired, 'payload')} deleted by rule\n")
    click.echo(verdict_line(audited))
    for line in detail_lines(audited):
        click.echo(f"  {line}")


def csv_text(answer: Left, audited: Audited) -> str:
    """Return one row for every release; the verdict stands in each, so that it cannot be lost."""
    text = io.StringIO()
    rows = [release.as_dict() for release in answer.releases]
    start = {"site": answer.site, "verdict": audited.verdict.finding.value}
    columns = [*start, *(rows[0] if rows else ("seq", "ts", "record_type", "bytes", "receiver"))]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in {**start, **row}.items()})
    return text.getvalue()


def _cell(value: object) -> object:
    """Keep a spreadsheet from reading a person's name as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _write_csv(path: Path, answer: Left, audited: Audited) -> None:
    text = csv_text(answer, audited)
    if str(path) == "-":
        click.echo(text, nl=False)
        if mark := MARKS[audited.verdict.finding]:
            click.echo(mark, err=True)
        return
    _write(path, text, "rows")


def _write_page(path: Path, audited: Audited, answer: Left) -> None:
    mark = MARKS[audited.verdict.finding]
    _write(path, render_report(audited, answer, datetime.now(UTC), mark), "report")


def _write(path: Path, text: str, what: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputDataError(
            f"cannot write the {what}", field=str(path), got=error.strerror or "an error"
        ) from error
