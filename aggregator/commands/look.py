"""Looking at runs: runs, status, watch, report. Nothing here changes anything."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from aggregator.commands.options import NEW_FILE, run_argument, warn_of, with_desk
from aggregator.commands.rounds import follow_run, strict_option
from aggregator.desk.desk import Desk
from aggregator.report.live import status_json, status_table
from aggregator.report.state import fold
from aggregator.report.text import duration
from aggregator.rounds.events import read_events
from common.cli import echo_json, json_option
from common.ledger.durable import replace_durably


@click.command("watch")
@run_argument
@with_desk
@strict_option
@click.pass_context
def watch_(context: click.Context, desk: Desk, name: str, *, strict: bool) -> None:
    """Show RUN (default: the newest) as it goes on; a line per event when not a terminal.

    Ends with the codes of `round start --watch`.
    """
    context.exit(follow_run(desk, name, strict=strict))


@click.command()
@run_argument
@with_desk
@json_option
def status(desk: Desk, name: str, *, as_json: bool) -> None:
    """Show the sites of RUN (default: the newest), what they sent, and how it stands."""
    with desk.journal(name) as journal:
        state = fold(event for _, event in read_events(journal.path))
    certificate = desk.certificate()
    if as_json:
        echo_json(status_json(state, certificate))
        return
    Console().print(status_table(state, now=datetime.now(UTC)))
    warn_of(certificate)


@click.command()
@run_argument
@with_desk
@click.option("-o", "--output", required=True, type=NEW_FILE)
def report(desk: Desk, name: str, output: Path) -> None:
    """Write RUN (default: the newest) as one self-contained HTML file."""
    replace_durably(output, b"".join(desk.report(name)))
    click.echo(f"Wrote {output}")


@click.command()
@with_desk
@json_option
def runs(desk: Desk, *, as_json: bool) -> None:
    """Every run, oldest first: how it stands, when it was queued, how long it waited and took.

    \b
    The state is queued, stopping, what it is at (waiting for sites, training, ...), or how
    it ended: COMPLETED, DEGRADED, FAILED, STOPPED. With --json also its plan, its sites, and
    every time to the microsecond.
    """  # noqa: D301 - \b is click's, and must not be an escape
    lines = desk.runs()
    if as_json:
        echo_json({"runs": [asdict(line) for line in lines]})
        return
    longest = max((len(line.name) for line in lines), default=0)  # it is typed elsewhere, whole
    run = Column("run", min_width=longest, no_wrap=True)
    state = Column("state", min_width=max((len(line.state) for line in lines), default=0))
    columns = (run, state, "rounds", "sites", "queued", "waited", "took")
    table = Table(*columns, box=None, pad_edge=False, header_style="dim")
    for line in lines:
        rounds, sites = f"{line.rounds_done} of {line.rounds}", f"{len(line.sites) or '-'}"
        queued = _minute(line.queued_at or line.started_at)
        waited = _between(line.queued_at, line.started_at or line.ended_at)
        cells = (line.name, line.state, rounds, sites, queued, waited)
        took = _between(line.started_at, line.ended_at)
        table.add_row(*(Text(cell) for cell in (*cells, took)))
    Console().print(table if lines else Text("no run was started yet", style="dim"))


def _minute(moment: str) -> str:
    """Return an ISO time as people of this machine's zone read it."""
    return f"{datetime.fromisoformat(moment).astimezone():%m-%d %H:%M}" if moment else "-"


def _between(first: str, last: str) -> str:
    """Return how long it is from one ISO time to another; to now while there is no other."""
    if not first:
        return "-"
    end = datetime.fromisoformat(last) if last else datetime.now(UTC)
    return duration((end - datetime.fromisoformat(first)).total_seconds())
