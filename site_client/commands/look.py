"""Looking at the site: check, status. Nothing here changes anything but the page one asks for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from common.cli import counted, echo_json, json_option, megabytes, shown
from common.errors import UsageError
from common.plan import read_plan
from common.reporter import Reporter
from site_client.commands.options import FILE, site_option
from site_client.files import write_atomically
from site_client.site import SiteFolder

if TYPE_CHECKING:
    from common.plan import FederationPlan
    from site_client.data_check.review import Review
    from site_client.facts import Fact
    from site_client.status import SiteStatus

_MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]look[/]", "bad": "[red]BAD[/]"}
_LEVELS = {"bad": "[red]BAD[/]", "look": "[yellow]look[/]", "note": "[dim]note[/]"}
_SHOWN = 5


@click.command()
@site_option
@click.option("--plan", "plan_file", type=FILE, help="Say also whether this plan may be served.")
@click.option("--data", is_flag=True, help="Open every image, and say what is wrong with which.")
@click.option("-o", "--page", type=FILE, help="With --data: write a page of every scan, too.")
@click.option(
    "--confinement",
    is_flag=True,
    help="Look only at what the kernel lets this process do; for units that must not start "
    "without it.",
)
@json_option
@click.pass_context
def check(
    ctx: click.Context,
    root: Path,
    plan_file: Path | None,
    page: Path | None,
    *,
    data: bool,
    confinement: bool,
    as_json: bool,
) -> None:
    """Say what is ready and what is not, one fact per line, each with what to do.

    Inside a container it looks at what that container has, and at what the kernel lets
    it do: `podman exec cairn-worker cairn-site check`. The units of deploy/systemd run it
    before they start: `journalctl --unit cairn-worker`.

    With --data it opens every image as training would, and tells apart what is cut
    short, unreadable, empty, misnamed, unlabelled, a duplicate, unlike the others in
    spacing or orientation, and landmarks that lie outside, look mirrored, shifted,
    exchanged, or of another frame or unit; with --plan, also names that the plan
    misses. The page (-o) shows every scan with its landmarks on three cuts. It shows
    patients, and stays at the site.

    \b
    --json, for monitoring; fields are added and never renamed:
      {"ready": true,                     no fact is bad
       "facts": [{"name": "server",       what was looked at
                  "level": "ok",          or "warning" or "bad"
                  "says": "...",          what was found
                  "fix": ""}],            what to do; empty when nothing
       "data": {"takes": {...},           with --data only: kinds of files taken,
                "leaves_out": [...],      what is not, and why
                "scans": [{"name": ...,   every scan, with
                           "faults": [    kind, level ("bad", "look", "note"), says
                ...]}], ...}}

    Ends with 0 when ready, else with the code of the first bad fact.
    """  # noqa: D301 - \b is click's, and must not be an escape
    from site_client.checks import check_confinement, check_site
    from site_client.confinement import ROLE_VARIABLE, role

    if page is not None and not data:
        raise UsageError("a page needs --data", field="--page", expected="--data beside it")
    if confinement and role() is None:
        raise click.UsageError(f"{ROLE_VARIABLE} has to say which one this is: worker or courier")
    facts: list[Fact] = []
    site, plan = SiteFolder(root), None if plan_file is None else read_plan(plan_file)
    for fact in check_confinement(site) if confinement else check_site(site, plan):
        facts.append(fact)
        if not as_json:
            _tell_fact(fact)
    review = _review(site, plan) if data and all(f.level != "bad" for f in facts[:1]) else None
    if review is not None:
        facts.append(review.fact)
        if page is not None:
            _write_page(review, page)
        if not as_json:
            _tell_review(review, page)
    worst = next((fact for fact in facts if fact.level == "bad"), None)
    if as_json:
        names = ("name", "level", "says", "fix")
        told: dict[str, object] = {
            "ready": worst is None,
            "facts": [{name: getattr(fact, name) for name in names} for fact in facts],
        }
        echo_json(told if review is None else told | {"data": review.as_dict()})
    ctx.exit(0 if worst is None else int(worst.exit_code))


def _tell_fact(fact: Fact) -> None:
    console = Console()
    console.print(f"{_MARKS[fact.level]:>14} {fact.name}: ", end="")
    console.print(fact.says, markup=False, highlight=False, soft_wrap=True)
    if fact.fix:
        console.print(f"       {fact.fix}", markup=False, highlight=False, soft_wrap=True)


def _review(site: SiteFolder, plan: FederationPlan | None) -> Review:
    from site_client.checks import review_data

    with Reporter() as progress:
        return review_data(site, plan, progress)


def _write_page(review: Review, page: Path) -> None:
    """Write the page of a review, whole or not at all."""
    from site_client.data_check.page import render_page

    write_atomically(page, render_page(review).encode("utf-8", "replace"))


def _tell_review(review: Review, page: Path | None) -> None:
    """The fact, then every fault on a line, then what is taken and left."""
    _tell_fact(review.fact)
    console = Console()
    for name, fault in review.named_faults:
        console.print(f"{_LEVELS[fault.level]:>14} ", end="")
        text = f"{name}: {fault.kind}: {fault.says}" if name else f"{fault.kind}: {fault.says}"
        console.print(shown(text), markup=False, highlight=False, soft_wrap=True)
    if review.inventory is not None:
        takes = ", ".join(f"{count} {what}" for what, count in review.inventory.takes)
        click.echo(shown(f"Taken: {takes}"))
        for leftover in review.inventory.leaves:
            click.echo(shown(f"Left out: {leftover.count} {leftover.what}: {leftover.why}"))
    if page is not None:
        click.echo(f"Pictures: {page}. It shows patients: it stays at this site")


@click.command()
@site_option
@json_option
def status(root: Path, *, as_json: bool) -> None:
    """Show what this site did last: round, ledger, bytes out, last line of the log.

    \b
    --json, for monitoring; fields are added and never renamed:
      site              its name
      last              null, or {run, round, phase, plan, code, meaning, seconds, at}
      records           in the ledger
      bytes_out         recorded as sent
      refusals          by the door or the worker
      witnessed         records that the aggregator has cosigned
      waiting           [orders not yet answered, replies not yet fetched]
      log               last line of the worker's log
      key               null, or how the federation key stands
      peers             null, or {confirmed, others, needed, changed, says}
      certificate_days  until ours expires; negative: it has; null: none
      plans             that wait for a person: [{fingerprint, plan, since, run, ...}]
      budget            null, or {days, runs, rounds, evaluations, bytes}; of each but days
                        {spent, most, left, frees}: frees is when there is more of it
      restore           null, or what the ledger lacks, until `cairn-site restore`:
                        {records, lost_size, run, round, says}
      trouble           null, or the last order that failed for the data here, with the
                        problems [{where, says, fix}] and their count; never leaves
      held_out          null, or who is kept out of training: {subjects, held_out_subjects,
                        images, held_out_images, says}
      errors            null, or the last that were told: {run, round, unit, parts}; of
                        "held-out" and "training" {searches, mean, prior}
      put_aside         what arrived and was refused, oldest first: [{sha256, bytes, culprit,
                        what, error, why, at}]; the bytes lie in worker/quarantine
      witnesses         null, or {quorum, witnessed, at, witnesses}: records that a quorum
                        of third witnesses has seen; of each witness {names, url, size,
                        at, trouble, contradicts, proven}

    Reads files only: it asks nobody, and works while worker and courier run.
    """  # noqa: D301 - \b is click's, and must not be an escape
    from site_client.status import read_status

    state = read_status(SiteFolder(root))
    if as_json:
        echo_json(state.as_dict())
        return
    _tell(state)


def _tell_witnesses(state: SiteStatus) -> None:
    if state.witnesses is None:
        return
    click.echo(f"witnesses {state.witnesses.says}")
    for seen in state.witnesses.witnesses.values():
        if seen.contradicts or seen.trouble:
            click.echo(f"{'ALARM    ' if seen.contradicts else '         '} {seen.says}")


def _tell(state: SiteStatus) -> None:
    """Print how a site stands, a line for each matter."""
    last = state.last
    click.echo(f"site      {state.site}")
    if last is None:
        click.echo("last      no order yet")
    else:
        click.echo(
            f"last      {last['run']}, round {last['round']} ({last['phase']}): "
            f"{last['meaning']}, {last['seconds']} s, {last['at']}"
        )
    click.echo(
        f"ledger    {state.records} records, {state.refusals} refusals, "
        f"witnessed to {state.witnessed}"
    )
    _tell_witnesses(state)
    click.echo(f"out       {megabytes(state.bytes_out)}")
    if state.budget is not None:
        click.echo(f"budget    {state.budget.says}")
    for item in () if state.budget is None else state.budget.spent:
        when = "for good" if item.frees is None else f"until {item.frees:%Y-%m-%d %H:%M} UTC"
        click.echo(f"SPENT     {item.item}: orders are refused {when}")
    click.echo(f"key       {'nothing heard yet' if state.key is None else state.key.says}")
    if state.key is not None and state.key.trouble:
        click.echo(f"REFUSED   {state.key.trouble}")
    for plan in state.plans:
        click.echo(
            f"PLAN      {plan['plan']} waits since {plan['since']} for a person: "
            f"cairn-site plans show {str(plan['fingerprint'])[:12]}"
        )
    if state.peers is not None:
        click.echo(f"peers     {state.peers['says']}")
    if state.held_out is not None:
        click.echo(f"held out  {state.held_out['says']}")
    if state.errors is not None:
        click.echo(f"errors    {state.errors.says}")
    if state.certificate_days is not None:
        click.echo(f"ours      certificate good for {state.certificate_days} days")
    if state.restore is not None:
        click.echo(f"LEDGER    {state.restore['says']}: cairn-site restore")
    if state.trouble is not None:
        click.echo(f"DATA      {state.trouble.says}")
        for problem in state.trouble.problems[:_SHOWN]:
            click.echo(f"          {problem.says}")
        if state.trouble.count > _SHOWN:
            click.echo(
                f"          and {state.trouble.count - _SHOWN} more: cairn-site check --data"
            )
    if state.put_aside:
        newest = state.put_aside[-1]
        click.echo(
            f"REFUSED   {counted(len(state.put_aside), 'thing')} that arrived lie in "
            f"worker/quarantine; the newest, {newest['at']}: {newest['why']}"
        )
    click.echo(f"waiting   {state.waiting[0]} orders, {state.waiting[1]} replies")
    click.echo(f"log       {state.log or 'empty'}")
