"""``cairn-site restore``: a person says that this site's folder was put back from a backup."""

from __future__ import annotations

import getpass
from pathlib import Path

import click

from common.cli import counted, echo_json, json_option
from common.errors import InputDataError
from site_client.commands.options import site_option
from site_client.restoring import Lost, read_lost
from site_client.site import SiteFolder


@click.command()
@site_option
@click.option(
    "--by", "person", metavar="PERSON", help="Who says so, as they write it; default: your login."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def restore(root: Path, person: str | None, *, yes: bool, as_json: bool) -> None:
    """Go on from a backup: record what the ledger has lost, and by whose word.

    Put the site's whole folder back, start it (`cairn-site up`), and wait for the
    aggregator's next order. It brings the newest checkpoint that both have signed. If
    the ledger lacks it, the site stops there and signs nothing; `cairn-site status`
    says so. This command shows what is lost and asks you. Your yes is a RESTORE
    record; then the waiting order is answered, in the same run.

    The records in between are gone here, and every audit says so from now on, with
    your name. The aggregator keeps what was sent to it. If nobody here put a backup
    back, say no: somebody cut the ledger. Call the auditor.

    \b
      cairn-site restore --site-dir site            what is lost; asks
      cairn-site restore --site-dir site --by "Ada Byron" --yes

    Exit codes: 0 recorded, or nothing is lost; 5 a worker runs and was busy, and will
    record it; 6 not a site folder.
    """  # noqa: D301 - \b is click's, and must not be an escape
    site = SiteFolder(root)
    site.settings()
    lost = read_lost(site)
    if lost is None:
        _say_nothing_is_lost(as_json=as_json)
        return
    if not as_json:
        click.echo(f"{lost.says}.".capitalize())
        click.echo(f"It came with round {lost.round} of {lost.run}, which waits for you.")
    if not yes:
        if as_json:
            raise InputDataError("--json does not ask", field="--yes", expected="given")
        click.confirm("Was this folder put back from a backup?", abort=True)
    _record(site, person or getpass.getuser(), lost)
    if as_json:
        echo_json({"restored": True, **lost.as_dict()})
    else:
        click.echo("Recorded. The site goes on by itself.")


def _record(site: SiteFolder, person: str, lost: Lost) -> None:
    from site_client.decisions.making import Decision, decide

    decide(site, [Decision.made(event="RESTORE", person=person, lost_size=lost.size)])


def _say_nothing_is_lost(*, as_json: bool) -> None:
    if as_json:
        echo_json({"restored": False})
        return
    click.echo("Nothing has shown that this ledger lacks a record.")
    click.echo(
        f"{counted(1, 'order')} of the aggregator is enough to show it: start the site and wait "
        "for the next round."
    )
