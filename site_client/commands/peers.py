"""Knowing the other sites: peers, peers confirm, peers forget. One telephone call each."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from common.cli import echo_json, json_option
from common.errors import UsageError
from site_client.commands.options import site_option
from site_client.site import SiteFolder

if TYPE_CHECKING:
    from site_client.keys.directory import Directory, PeerEntry

_by_option = click.option(
    "--by", "person", metavar="PERSON", help="Who decides.  [default: the login name]"
)
_MARKS = {"confirmed": "confirmed", "unconfirmed": "NOT CONFIRMED", "changed": "CHANGED KEY"}


@click.group(invoke_without_command=True)
@site_option
@json_option
@click.pass_context
def peers(ctx: click.Context, root: Path, *, as_json: bool) -> None:
    """Show the other sites, with what to compare by telephone, and who is confirmed.

    The aggregator says who the other sites are, and could invent them. So a site takes
    part in a run, and shares the federation key, only beside sites whose fingerprints
    its staff have heard from their own staff.

    \b
    The telephone call, once for each of the other sites, or one with all of them:
      1. Call a number that you know, not one that came with the invite.
      2. Read aloud your own fingerprint: the first four groups that this shows.
      3. Have them read theirs, and type what you hear:
           cairn-site peers confirm site-b
      4. If it differs, confirm nothing, and tell the coordinator.

    \b
    --json; fields are added and never renamed:
      site, fingerprint   our name and our own ledger key's fingerprint
      confirmed, needed   how many others are, and must be (peers.least_known)
      says, fix           how it stands, and what to do
      asked               empty, or why the desk could not be asked just now
      peers               [{site, standing, shows, confirmed_key, person, at}];
                          standing: confirmed, unconfirmed or changed
    """  # noqa: D301 - \b is click's, and must not be an escape
    if ctx.invoked_subcommand is not None:
        return
    from common.crypto.identity import read_signing_key
    from site_client.keys.directory import read_directory
    from site_client.keys.first import hear

    site = SiteFolder(root)
    fingerprint = read_signing_key(site.ledger_key).public.fingerprint
    unasked = hear(site)
    directory = read_directory(site)
    if as_json:
        echo_json(_as_dict(directory, fingerprint, unasked))
    else:
        _tell(directory, fingerprint, unasked)


@peers.command()
@click.argument("names", metavar="NAME[:FINGERPRINT]...", nargs=-1, required=True)
@_by_option
@site_option
@click.pass_context
def confirm(ctx: click.Context, names: tuple[str, ...], person: str | None, root: Path) -> None:
    """Confirm sites whose fingerprints you heard by telephone.

    Type at least the first four groups (16 digits) as the other site's own staff read
    them aloud; they see them in their `cairn-site peers`. Without :FINGERPRINT you are
    asked for them. Spaces, hyphens and capitals do not matter. Never copy them from
    this screen: then nobody has compared anything.

    \b
      cairn-site peers confirm site-b site-c
      cairn-site peers confirm site-b:4f3a-91c2-77d0-e81b --by "M. Curie"

    A site that joined by mail, of which no desk tells, is confirmed with all 64 digits.
    All are recorded in the ledger, with who decided, or none. Ends with 4 when a
    fingerprint differs.
    """  # noqa: D301 - \b is click's, and must not be an escape
    from common.crypto.identity import read_signing_key
    from site_client.decisions.making import Decision, decide
    from site_client.keys.confirming import agree
    from site_client.keys.directory import read_directory
    from site_client.keys.first import hear

    site, by = _folder(ctx, root), person or _login()
    fingerprint = read_signing_key(site.ledger_key).public.fingerprint
    hear(site)
    agreed = agree(names, read_directory(site), fingerprint, _ask)
    decisions = [
        Decision.made(event="CONFIRM", person=by, peer=one.site, peer_key=one.fingerprint)
        for one in agreed
        if not one.already
    ]
    if decisions:
        decide(site, decisions)
    for one in agreed:
        click.echo(
            f"{one.site} was confirmed already, with this key; nothing is recorded twice."
            if one.already
            else f"{one.site} is confirmed by {by}; it stands in the ledger."
        )
    _tell_how_it_stands(read_directory(site))


@peers.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@_by_option
@site_option
@click.pass_context
def forget(ctx: click.Context, names: tuple[str, ...], person: str | None, root: Path) -> None:
    """Take back that sites were confirmed.

    They are given no newer key and count in no run any more. The key that they have
    they keep, until the coordinator revokes them and another is made.
    """
    from site_client.decisions.making import Decision, decide
    from site_client.keys.confirming import require_confirmed
    from site_client.keys.directory import read_directory

    site, by = _folder(ctx, root), person or _login()
    forgotten = require_confirmed(names, read_directory(site))
    decide(site, [Decision.made(event="FORGET", person=by, peer=name) for name in forgotten])
    for name in forgotten:
        click.echo(f"{name} is forgotten by {by}; it stands in the ledger.")
    _tell_how_it_stands(read_directory(site))


def _folder(ctx: click.Context, root: Path) -> SiteFolder:
    """The folder named after the command, else the one named before it."""
    if ctx.get_parameter_source("root") is not ParameterSource.COMMANDLINE and ctx.parent:
        root = ctx.parent.params.get("root", root)
    return SiteFolder(root)


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError) as error:
        raise UsageError(
            "it must be recorded who decides",
            field="--by",
            expected="a person's name",
            got="a login without a name",
        ) from error


def _ask(peer: PeerEntry) -> str:
    """Have a person type what the other site's staff read aloud."""
    from site_client.keys.aloud import first_groups, groups

    for shown in peer.shows:
        click.echo(f"{peer.site}, says the aggregator: {groups(shown)}", err=True)
    if peer.standing == "changed":
        click.echo(f"LOOK: {peer.site} shows another key than before.", err=True)
    example = first_groups("0123456789abcdef")
    return str(
        click.prompt(
            f"Type what {peer.site}'s own staff read aloud, at least four groups ({example})",
            err=True,
        )
    )


def _tell(directory: Directory, own: str, unasked: str) -> None:
    from site_client.keys.aloud import LEAST_DIGITS, first_groups, groups

    def lit(fingerprint: str) -> str:
        return f"{click.style(first_groups(fingerprint), bold=True)} " + groups(
            fingerprint[LEAST_DIGITS:]
        )

    click.echo(f"{directory.site} of {directory.federation}; read this aloud, at least the first")
    click.echo("four groups, when another site's staff ask for your fingerprint:")
    click.echo(f"  {lit(own)}")
    for peer in directory.peers.values():
        known = peer.confirmed
        by = f", by {known.decided.person}, {known.decided.ts}" if known else ""
        loud = peer.standing != "confirmed"
        mark = click.style(_MARKS[peer.standing], fg="red" if loud else "green", bold=loud)
        click.echo(f"{click.style(peer.site, bold=True)}: {mark}{by}")
        if known is not None and known.ledger_key not in peer.shows:
            click.echo(f"  {lit(known.ledger_key)} (as confirmed)")
        for shown in peer.shows:
            click.echo(f"  {lit(shown)}" + (" (as it shows now)" if loud and known else ""))
    if unasked:
        click.echo(f"The desk was not asked just now: {unasked}.")
    _tell_how_it_stands(directory)


def _tell_how_it_stands(directory: Directory) -> None:
    from site_client.keys.directory import lost_promises

    click.echo(f"{directory.says[0].upper()}{directory.says[1:]}.")
    for lost in lost_promises(directory.policy):
        click.echo(f"LOOK: {lost}.")
    if directory.fix:
        click.echo(f"Next: {directory.fix}")


def _as_dict(directory: Directory, fingerprint: str, unasked: str) -> dict[str, object]:
    return {
        "site": directory.site,
        "fingerprint": fingerprint,
        "confirmed": len(directory.named("confirmed")),
        "needed": directory.policy.peers.least_known,
        "says": directory.says,
        "fix": directory.fix,
        "asked": unasked,
        "peers": [
            {
                "site": peer.site,
                "standing": peer.standing,
                "shows": list(peer.shows),
                "confirmed_key": peer.confirmed and peer.confirmed.ledger_key,
                "person": peer.confirmed and peer.confirmed.decided.person,
                "at": peer.confirmed and peer.confirmed.decided.ts,
            }
            for peer in directory.peers.values()
        ],
    }
