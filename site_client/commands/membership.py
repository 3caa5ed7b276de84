"""Becoming a member of a federation, and staying one: join, renew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from common.cli import echo_json, json_option
from common.enrolment import Invite, read_invite
from common.errors import InputDataError
from common.policy import read_policy
from common.wire.bounds import MAX_IMAGES
from site_client.commands.options import FILE, FOLDER, site_option
from site_client.site import SiteFolder

if TYPE_CHECKING:
    from site_client.join import Joined


@click.command()
@click.argument("invite_file", metavar="INVITE", type=FILE)
@click.option("--data", required=True, type=FOLDER, help="Folder of images and landmarks.")
@site_option
@click.option(
    "--federation-key", "key_file", type=FILE, help="By hand: the key that all sites share."
)
@click.option(
    "--new-federation-key", is_flag=True, help="By hand: make that key, at the first site."
)
@click.option(
    "--images",
    type=click.IntRange(0, MAX_IMAGES),
    help="How many images to say this site has; default: counted in the data folder.",
)
@click.option("--offline", is_flag=True, help="Use no network: send request.json by mail instead.")
def join(
    invite_file: Path,
    data: Path,
    root: Path,
    key_file: Path | None,
    images: int | None,
    *,
    new_federation_key: bool,
    offline: bool,
) -> None:
    """Make this site's keys and folder from an INVITE, and send the public halves.

    Private keys are made here and never leave. The invite's token lets them in, once;
    an invite without a token, or --offline, leaves a request.json to be sent by mail.
    The request also says how many images there are; none of them is opened.
    The key that all sites share is made by the first of them and comes, sealed, by
    itself from a site that your staff have confirmed by telephone (`cairn-site peers`);
    --federation-key and --new-federation-key are for carrying it by hand.
    Joining again keeps the keys: after a lost answer, or with a new invite.
    """
    from site_client.join import bring_federation_key, check_invite, join_again
    from site_client.join import join as join_federation

    if key_file is not None and new_federation_key:
        raise click.UsageError("give --federation-key or --new-federation-key, not both")
    site, invite = SiteFolder(root), read_invite(invite_file)
    check_invite(invite)
    shared = bring_federation_key(key_file, new=new_federation_key)
    online = invite.enrolment is not None and not offline
    if online:
        from site_client.enrol import look_who_answers

        look_who_answers(invite)
    if online and site.settings_file.exists():
        joined = join_again(invite, site, data, images)
    else:
        joined = join_federation(invite, site, data, shared, images)
    steps = [_send(invite, site)] if online else []
    if invite.relay:
        steps.append(
            f"Know that {invite.site} is behind relay {invite.relay}, {invite.address}: what "
            "leaves here goes to it, and it sees each update by itself, as an aggregator does."
        )
    click.echo(
        f"{invite.site} {'has joined' if online else 'is ready to join'} {invite.federation}."
    )
    steps.append(_call(joined))
    if not online:
        steps.append(f"Send {joined.request} (public keys, and how many images you have).")
    if site.has_certificate and online:
        from site_client.keys.first import key_step

        steps.append(key_step(site))
    elif new_federation_key:
        steps.append(f"Carry {site.federation_key} to the other sites; never to the aggregator.")
    elif not joined.has_federation_key:
        steps.append(f"Get the federation key from another site, as {site.federation_key}.")
    if not joined.images:
        steps.append(
            f"No images could be counted in {data}: {invite.site} counts as one of a single image "
            f"until the coordinator says: cairn-aggregator admit {invite.site} --images N"
        )
    for number, step in enumerate(steps, 1):
        click.echo(f"{number}. {step}")
    click.echo(f"Read {site.policy_file}: it bounds what may leave.")
    click.echo(_left_to_type(site, online=online))


def _call(joined: Joined) -> str:
    """The one telephone call: with the coordinator, and with the other sites' staff."""
    from site_client.keys.aloud import first_groups

    return (
        "Make one telephone call, to numbers that you know, with the coordinator and the other\n"
        "   sites' staff on the line. Compare with the coordinator:\n"
        f"     authority    {joined.ca_sha256}\n"
        f"     witness key  {joined.witness}\n"
        f"     ledger key   {joined.ledger}\n"
        f"   Read the first four groups of your ledger key to the other sites:\n"
        f"     {first_groups(joined.ledger)}\n"
        "   and write down what each of them reads to you."
    )


def _left_to_type(site: SiteFolder, *, online: bool) -> str:
    """The commands between joining and the first round; three of them, and check when in doubt."""
    where = "" if site.root == Path() else f" --site-dir {site.root}"
    try:
        least = read_policy(site.policy_file).peers.least_known
    except InputDataError:
        least = 0  # `cairn-site check` says what is wrong with it
    name = "NAME" if online else "NAME:FINGERPRINT"
    lines = {
        f"cairn-site peers confirm {name}...{where}": f"what the others read; at least {least}"
        if least
        else "what the others read",
        f"cairn-site plans{where}": "read the waiting plan, and approve it",
        f"cairn-site up{where}": "leave it running",
    }
    width = max(map(len, lines))
    commands = [f"  {line:<{width}}   {why}" for line, why in lines.items()]
    return "\n".join(
        ["Left to type:", *commands, f"What is missing, at any time: cairn-site check{where}"]
    )


def _send(invite: Invite, site: SiteFolder) -> str:
    """Send the request, and say in a line how the site stands now."""
    from site_client.enrol import send_request
    from site_client.probe import LARGEST_SKEW_S

    standing = send_request(invite, site)
    if abs(standing.skew_s) > LARGEST_SKEW_S:
        way = "ahead of" if standing.skew_s > 0 else "behind"
        click.echo(
            f"This machine's clock is {abs(standing.skew_s):.0f} s {way} the aggregator's: set it "
            "(NTP), or the courier will be refused.",
            err=True,
        )
    if standing.state == "waiting":
        return f"Wait for the coordinator, who has to: cairn-aggregator admit {invite.site}"
    return f"Admitted; the certificate is good for {standing.certificate_days} days."


@click.command()
@site_option
@json_option
def renew(root: Path, *, as_json: bool) -> None:
    """Renew this site's certificate in place; keys and name stay as they are.

    A site that waits for the coordinator learns here whether it was admitted.
    """
    from site_client.enrol import ask_standing, renew_certificate

    site, state = SiteFolder(root), "admitted"
    days: int | None = None
    if site.has_certificate:
        days = renew_certificate(site)
    else:
        standing = ask_standing(site)
        state, days = standing.state, standing.certificate_days
    if as_json:
        echo_json({"state": state, "certificate_days": days})
    elif days is None:
        click.echo("The coordinator has not admitted this site yet.")
    else:
        click.echo(f"The certificate is good for {days} days.")
