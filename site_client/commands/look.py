"""Looking at the site: check, status. Nothing here changes anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from common.cli import echo_json, json_option, megabytes
from common.plan import read_plan
from site_client.commands.options import FILE, site_option
from site_client.site import SiteFolder

if TYPE_CHECKING:
    from site_client.facts import Fact
    from site_client.status import SiteStatus

_MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]look[/]", "bad": "[red]BAD[/]"}


@click.command()
@site_option
@click.option("--plan", "plan_file", type=FILE, help="Say also whether this plan may be served.")
@click.option(
    "--confinement",
    is_flag=True,
    help="Look only at what the kernel lets this process do; for units that must not start "
    "without it.",
)
@json_option
@click.pass_context
def check(
    ctx: click.Context, root: Path, plan_file: Path | None, *, confinement: bool, as_json: bool
) -> None:
    """Say what is ready and what is not, one fact per line, each with what to do.

    Inside a container it looks at what that container has, and at what the kernel lets
    it do: `podman exec cairn-worker cairn-site check`. The units of deploy/systemd run it
    before they start: `journalctl --unit cairn-worker`.

    \b
    --json, for monitoring; fields are added and never renamed:
      {"ready": true,                     no fact is bad
       "facts": [{"name": "server",       what was looked at
                  "level": "ok",          or "warning" or "bad"
                  "says": "...",          what was found
                  "fix": ""}]}            what to do; empty when nothing

    Ends with 0 when ready, else with the code of the first bad fact.
    """  # noqa: D301 - \b is click's, and must not be an escape
    from site_client.checks import check_confinement, check_site
    from site_client.confinement import ROLE_VARIABLE, role

    if confinement and role() is None:
        raise click.UsageError(f"{ROLE_VARIABLE} has to say which one this is: worker or courier")
    facts: list[Fact] = []
    console = Console()
    plan = None if plan_file is None else read_plan(plan_file)
    site = SiteFolder(root)
    for fact in check_confinement(site) if confinement else check_site(site, plan):
        facts.append(fact)
        if not as_json:
            console.print(f"{_MARKS[fact.level]:>14} {fact.name}: ", end="")
            console.print(fact.says, markup=False, highlight=False, soft_wrap=True)
            if fact.fix:
                console.print(f"       {fact.fix}", markup=False, highlight=False, soft_wrap=True)
    worst = next((fact for fact in facts if fact.level == "bad"), None)
    if as_json:
        names = ("name", "level", "says", "fix")
        echo_json(
            {
                "ready": worst is None,
                "facts": [{name: getattr(fact, name) for name in names} for fact in facts],
            }
        )
    ctx.exit(0 if worst is None else int(worst.exit_code))


@click.command()
@site_option
@json_option
def status(root: Path, *, as_json: bool) -> None:
    """What this site did last: round, ledger, bytes out, last line of the log.

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

    Reads files only: it asks nobody, and works while worker and courier run.
    """  # noqa: D301 - \b is click's, and must not be an escape
    from site_client.status import read_status

    found = read_status(SiteFolder(root))
    if as_json:
        echo_json(found.as_dict())
        return
    _tell(found)


def _tell(found: SiteStatus) -> None:
    """How a site stands, a line for each matter."""
    last = found.last
    click.echo(f"site      {found.site}")
    if last is None:
        click.echo("last      no order yet")
    else:
        click.echo(
            f"last      {last['run']}, round {last['round']} ({last['phase']}): "
            f"{last['meaning']}, {last['seconds']} s, {last['at']}"
        )
    click.echo(
        f"ledger    {found.records} records, {found.refusals} refusals, "
        f"witnessed to {found.witnessed}"
    )
    click.echo(f"out       {megabytes(found.bytes_out)}")
    if found.budget is not None:
        click.echo(f"budget    {found.budget.says}")
    for item in () if found.budget is None else found.budget.spent:
        when = "for good" if item.frees is None else f"until {item.frees:%Y-%m-%d %H:%M} UTC"
        click.echo(f"SPENT     {item.item}: orders are refused {when}")
    click.echo(f"key       {'nothing heard yet' if found.key is None else found.key.says}")
    if found.key is not None and found.key.trouble:
        click.echo(f"REFUSED   {found.key.trouble}")
    for plan in found.plans:
        click.echo(
            f"PLAN      {plan['plan']} waits since {plan['since']} for a person: "
            f"cairn-site plans show {str(plan['fingerprint'])[:12]}"
        )
    if found.peers is not None:
        click.echo(f"peers     {found.peers['says']}")
    if found.certificate_days is not None:
        click.echo(f"ours      certificate good for {found.certificate_days} days")
    click.echo(f"waiting   {found.waiting[0]} orders, {found.waiting[1]} replies")
    click.echo(f"log       {found.log or 'empty'}")
