"""Runs: starting one, going on with one, following it to its end."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aggregator.commands.options import FILE, run_argument, with_desk
from aggregator.desk.desk import Desk, Started, StartOrder
from aggregator.report.live import status_json, watch
from aggregator.rounds.embedding import CODEBOOK_FILE, GROUPS_FILE
from aggregator.rounds.events import read_events
from aggregator.rounds.pixels import CODEC_FILE, KEYS_FILE
from aggregator.rounds.store import APPROVAL_S, RunStore
from aggregator.rounds.training import START_FILE
from common.cli import echo_json, json_option
from common.errors import InternalError
from common.plan import read_plan


@click.group("round")
def round_() -> None:
    """Start a run from a plan, or go on with one."""


@round_.command("start")
@click.argument("plan_file", metavar="PLAN", type=click.Path(path_type=Path))
@with_desk
@click.option("--min-sites", type=click.IntRange(min=1), help="Wait for so many; default: all.")
@click.option(
    "--wait",
    "wait_s",
    default=60.0,
    show_default=True,
    help="Seconds to wait for them to be online, and for the federation key on its way to them.",
)
@click.option(
    "--approval-wait",
    "approval_s",
    type=click.FloatRange(min=0),
    default=APPROVAL_S,
    show_default="3 days",
    metavar="SECONDS",
    help="How long to wait for people at the sites to approve PLAN.",
)
@click.option("--codec", type=FILE, help="codec.json of a pixels run, for an embed plan.")
@click.option("--codebook", "book", type=FILE, help="Labelled codebook, for an embed plan.")
@click.option(
    "--model",
    type=FILE,
    help="What PLAN starts from (model.start); default: of the newest run that came to it.",
)
@click.option("--watch", "follow", is_flag=True, help="Show the run until it ends.")
@json_option
@click.pass_context
def start(
    context: click.Context,
    desk: Desk,
    plan_file: Path,
    min_sites: int | None,
    wait_s: float,
    approval_s: float,
    codec: Path | None,
    book: Path | None,
    model: Path | None,
    *,
    follow: bool,
    as_json: bool,
) -> None:
    """Validate PLAN, show what it will do, and start it."""
    read_plan(plan_file)  # what is wrong with it is said here, before anybody is asked
    plan = plan_file.read_bytes()
    files = {CODEC_FILE: codec, CODEBOOK_FILE: book, START_FILE: model}
    attached = {name: path.read_bytes() for name, path in files.items() if path is not None}
    if not as_json:
        table = Table(show_header=False, box=None, pad_edge=False)
        for name, value in desk.facts(plan):
            table.add_row(Text(f"{name}  "), Text(value))
        Console().print(table)
    started = desk.start(StartOrder(plan, min_sites, wait_s, approval_s, attached))
    _after_start(context, desk, started, follow=follow, as_json=as_json)


@round_.command("resume")
@run_argument
@with_desk
@click.option("--watch", "follow", is_flag=True, help="Show the run until it ends.")
@json_option
@click.pass_context
def resume(context: click.Context, desk: Desk, name: str, *, follow: bool, as_json: bool) -> None:
    """Go on with an interrupted RUN (default: the newest) after its last finished round."""
    _after_start(context, desk, desk.resume(name), follow=follow, as_json=as_json)


def exit_code_of(journal: Path) -> int:
    """With which code a command that followed this journal ends."""
    codes = [event.exit_code for _, event in read_events(journal) if event.event == "run_finished"]
    return codes[-1] if codes else 0


def _after_start(
    context: click.Context, desk: Desk, started: Started, *, follow: bool, as_json: bool
) -> None:
    """Name the run, or follow it to its end and exit with its verdict's code."""
    if not follow:
        if as_json:
            echo_json({"run": started.run, "folder": started.folder})
        else:
            click.echo(f"Started {started.run}. Follow it: cairn-aggregator watch {desk.option}")
        return
    with desk.journal(started.run, follow=True, since=started.since) as journal:
        console = Console(stderr=as_json)
        state = watch(journal.path, console, journal.over, since=started.since)
        code = exit_code_of(journal.path)
    if not state.verdict:
        raise InternalError(
            "the run can no longer be watched",
            field=started.run,
            advice="See `cairn-aggregator status`, and superexec.log in the flower folder",
        )
    if as_json:
        echo_json(status_json(state, desk.certificate()))
    else:
        _say_what_was_kept(Path(started.folder))
    context.exit(code)


def _say_what_was_kept(folder: Path) -> None:
    """Say where the documents of the last finished round lie, and what to do with them."""
    if not folder.is_dir():
        return  # at another machine: its keeper has them
    store = RunStore(folder)
    finished = store.finished_rounds()
    documents = store.round_folder(finished[-1]) if finished else store.folder
    if (documents / KEYS_FILE).exists():
        click.echo(f"Codec {documents / CODEC_FILE}; released keys {documents / KEYS_FILE}. Next:")
        click.echo(f"cairn-aggregator codebook build {documents / KEYS_FILE} -o codebook.json")
    if (documents / GROUPS_FILE).exists():
        click.echo(f"Pixels per group and site: {documents / GROUPS_FILE}")


def follow_run(desk: Desk, name: str) -> int:
    """Show a run until it ends; returns the code to exit with."""
    with desk.journal(name, follow=True) as journal:
        watch(journal.path, Console(), journal.over)
        return exit_code_of(journal.path)
