"""Runs: starting one, going on with one, ending one, following it to its end."""

from __future__ import annotations

import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aggregator.commands.options import FILE, run_argument, with_desk
from aggregator.desk.desk import Desk, Started, StartOrder, Stopping
from aggregator.report.live import status_json, watch
from aggregator.report.run import RunState
from aggregator.report.state import fold
from aggregator.rounds.embedding import CODEBOOK_FILE, GROUPS_FILE
from aggregator.rounds.events import RunFinished, read_events
from aggregator.rounds.pixels import CODEC_FILE, KEYS_FILE
from aggregator.rounds.store import APPROVAL_S, RunStore
from aggregator.rounds.training import START_FILE
from common.checkpoint import model_file
from common.cli import echo_json, json_option, shown
from common.errors import ExitCode, InternalError
from common.plan import read_plan

_LOOK_S = 0.5
_follow_option = click.option("--watch", "follow", is_flag=True, help="Show the run until it ends.")
_queue_option = click.option(
    "--no-queue",
    is_flag=True,
    help="Be refused (3) where another run goes on or waits; default: wait behind it.",
)
strict_option = click.option(
    "--strict", is_flag=True, help="End with 8 when the run is DEGRADED, not with 0."
)


@click.group("round")
def round_() -> None:
    """Start a run from a plan, go on with one, list them, or stop one.

    One run goes on at a time; the others wait, in the order they were started. The queue
    lies on the aggregator's disk: it outlives this terminal, and the aggregator.
    """


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
    type=click.Path(path_type=Path, exists=True),
    help="What PLAN starts from (start = its digest): a model's folder, or its safetensors "
    "file; default: of the newest run that came to it.",
)
@_queue_option
@_follow_option
@strict_option
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
    no_queue: bool,
    follow: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Validate PLAN, show what it will do, and start it, behind the runs that are there.

    Where another run goes on, this one is queued, and begins by itself when those before
    it have ended: `round list` shows them, `round stop` takes one out.

    \b
    Without --watch, 0 means that the run was started or queued. With --watch the run is followed
    to its end, and the exit code tells how it ended:
      0  COMPLETED, or DEGRADED: every round counted, with its quorum. A degraded run says
         on standard error, as its last line, which sites were missing or refused and
         when; cron mails that, and what comes after `&&` goes on with a model that counts
      8  DEGRADED, with --strict
      5  FAILED: a round did not reach its quorum, or the aggregator went away; go on with
         `round resume` once the sites are back
      3  FAILED: what was asked is refused    4  FAILED: a sum or signature does not hold
      6  FAILED: a document cannot be used    7  FAILED: see superexec.log
      10  STOPPED: somebody typed `round stop`, which is for good
      130  Ctrl-C: the run goes on; `cairn-aggregator watch` shows it again
    Before anything is started: 2, 3, 5 and 6 as everywhere.
    """  # noqa: D301 - \b is click's, and must not be an escape
    read_plan(plan_file)  # what is wrong with it is said here, before anybody is asked
    plan = plan_file.read_bytes()
    start_file = None if model is None else model_file(model)
    files = {CODEC_FILE: codec, CODEBOOK_FILE: book, START_FILE: start_file}
    attached = {name: path.read_bytes() for name, path in files.items() if path is not None}
    if not as_json:
        table = Table(show_header=False, box=None, pad_edge=False)
        for name, value in desk.facts(plan):
            table.add_row(Text(f"{name}  "), Text(value))
        Console().print(table)
    order = StartOrder(plan, min_sites, wait_s, approval_s, attached, wait=not no_queue)
    started = desk.start(order)
    _after_start(context, desk, started, follow=follow, strict=strict, as_json=as_json)


@round_.command("resume")
@run_argument
@with_desk
@_queue_option
@_follow_option
@strict_option
@json_option
@click.pass_context
def resume(
    context: click.Context,
    desk: Desk,
    name: str,
    *,
    no_queue: bool,
    follow: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Go on with an interrupted RUN (default: the newest) after its last finished round.

    It is queued like a new one. A run that was stopped cannot be gone on with.
    Ends with the codes of `round start`.
    """
    started = desk.resume(name, wait=not no_queue)
    _after_start(context, desk, started, follow=follow, strict=strict, as_json=as_json)


@round_.command("stop")
@run_argument
@with_desk
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for it to end.",
)
@json_option
@click.pass_context
def stop(context: click.Context, desk: Desk, name: str, wait_s: float, *, as_json: bool) -> None:
    """End RUN (default: the one that goes on) for good, also one that only waits.

    Sites that are online leave what they are at, record the aggregator's signed word in
    their ledgers, and go on to the next run; one that is not learns it from the next run's
    orders. Rounds that are finished stay as they are.

    \b
      0  it ended; what each site was told is said     3  it was over already
      5  it has not ended yet; it will, and `round list` shows it
    """  # noqa: D301 - \b is click's, and must not be an escape
    stopping = desk.stop(name)
    state = _await_end(desk, stopping, wait_s)
    if as_json:
        echo_json({"run": stopping.run, "state": state.standing, "reason": state.reason})
    elif state.verdict:
        click.echo(f"{stopping.run}: {state.verdict}, {shown(state.reason)}")
    else:
        click.echo(f"{stopping.run} is stopping; see `cairn-aggregator round list {desk.option}`")
    context.exit(int(ExitCode.OK if state.verdict else ExitCode.UNREACHABLE))


def _await_end(desk: Desk, stopping: Stopping, wait_s: float) -> RunState:
    """Return a run as it stands once it has ended, or when time is up."""
    until = time.monotonic() + wait_s
    while True:
        with desk.journal(stopping.run) as journal:
            state = fold(event for _, event in read_events(journal.path))
        if state.verdict or time.monotonic() >= until:
            return state
        time.sleep(min(_LOOK_S, max(0.0, until - time.monotonic())))


def end_with(end: RunFinished, *, strict: bool) -> int:
    """With which code a command ends that followed a run; says on standard error why not COMPLETED.

    Args:
        end: the run's last event.
        strict: a run that is DEGRADED does not end with 0.
    """
    if end.verdict == "COMPLETED":
        return int(ExitCode.OK)
    if end.verdict == "FAILED":
        code = end.exit_code or int(ExitCode.INTERNAL)
        click.echo(f"FAILED: {shown(end.reason)} (exit {code})", err=True)
        return code
    if end.verdict == "STOPPED":
        click.echo(f"STOPPED: {shown(end.reason)} (exit {int(ExitCode.STOPPED)})", err=True)
        return int(ExitCode.STOPPED)
    code = int(ExitCode.DEGRADED if strict else ExitCode.OK)
    click.echo(
        "DEGRADED: every round counted, but not every site was always there: "
        f"{shown(end.reason)} (exit {code})",
        err=True,
    )
    return code


def _follow(desk: Desk, run: str, since: int, console: Console) -> tuple[RunState, RunFinished]:
    """Show a run to its end; how it stands then, and its last event.

    Raises:
        InternalError: it can no longer be followed, and did not end.
    """
    with desk.journal(run, follow=True, since=since) as journal:
        state = watch(journal.path, console, journal.over, since=since)
        ends = [each for _, each in read_events(journal.path) if isinstance(each, RunFinished)]
    if not state.verdict or not ends:
        raise InternalError(
            "the run can no longer be watched",
            field=run,
            advice="See `cairn-aggregator status`, and superexec.log in the flower folder",
        )
    return state, ends[-1]


def _after_start(
    context: click.Context,
    desk: Desk,
    started: Started,
    *,
    follow: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Name the run, or follow it to its end and exit with its verdict's code."""
    if not follow:
        if as_json:
            echo_json(
                {
                    "run": started.run,
                    "folder": started.folder,
                    "queued_behind": list(started.ahead),
                }
            )
        else:
            click.echo(_words_of(started))
            click.echo(f"Follow it: cairn-aggregator watch {started.run} {desk.option}")
        return
    state, end = _follow(desk, started.run, started.since, Console(stderr=as_json))
    if as_json:
        echo_json(status_json(state, desk.certificate()))
    else:
        _say_what_was_kept(Path(started.folder))
        if state.kind == "training" and end.verdict not in ("FAILED", "STOPPED"):
            click.echo(f"Its model: cairn-aggregator model {state.run} -o model {desk.option}")
    context.exit(end_with(end, strict=strict))


def _words_of(started: Started) -> str:
    """Say that a run begins now, or behind which others it waits."""
    if not started.ahead:
        return f"Started {started.run}."
    runs = f"{len(started.ahead)} run{'s' if len(started.ahead) > 1 else ''}"
    return (
        f"Queued {started.run}, number {len(started.ahead) + 1}: it begins by itself after "
        f"{runs}, {', '.join(started.ahead)}."
    )


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


def follow_run(desk: Desk, name: str, *, strict: bool) -> int:
    """Show a run until it ends; returns the code to exit with."""
    return end_with(_follow(desk, name, 0, Console())[1], strict=strict)
