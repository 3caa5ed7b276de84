"""Making a federation, and who is in it: init, invite, admit, revoke, sites, coordinator."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from aggregator.admin.credentials import (
    FIRST_COORDINATOR,
    coordinators,
    issue_credential,
    make_signing_request,
    withdraw_credential,
    write_credential,
)
from aggregator.admin.enrol import create_federation
from aggregator.admin.folder import FederationFolder, FederationSettings
from aggregator.admin.invites import DAYS
from aggregator.commands.options import FILE, FOLDER, NEW_FILE, dir_option, warn_of, with_desk
from aggregator.desk.desk import Desk, SiteLine
from common.cli import echo_json, json_option
from common.crypto.certificates import certificate_fingerprint, read_certificate
from common.crypto.files import write_secret
from common.enrolment import read_request
from common.errors import RefusedError
from common.extras import require_extra
from common.wire.bounds import MAX_IMAGES


@click.command()
@click.argument("root", metavar="DIR", type=FOLDER)
@click.option("--name", required=True, help="The federation's name, lower case.")
@click.option(
    "--address", required=True, metavar="HOST:PORT", help="Where the sites will reach it."
)
@click.option("--bind", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(1, 65532),
    help="Port to listen on, and with the next three for the desk; default: ADDRESS's.",
)
@click.option(
    "--host", "hosts", multiple=True, help="A further name or address for the certificate."
)
@click.option("--behind-proxy", is_flag=True, help="A reverse proxy stands in front: see deploy/.")
@click.option("--desk-bind", help="Address on which coordinators are answered; default: --bind.")
def init(
    root: Path,
    name: str,
    address: str,
    bind: str,
    port: int | None,
    hosts: tuple[str, ...],
    desk_bind: str | None,
    *,
    behind_proxy: bool,
) -> None:
    """Make a federation in DIR: authority, server certificate, witness key, settings.

    DIR/coordinator.toml lets the first coordinator work from another machine.
    """
    require_extra("aggregator")
    folder = FederationFolder(root)
    host, _, public = address.rpartition(":")
    if not host or not public.isdigit():
        raise click.BadParameter(
            "must be HOST:PORT, e.g. fed.example.org:9443", param_hint="ADDRESS"
        )
    try:
        settings = FederationSettings(
            name=name,
            address=address,
            bind_host=bind,
            port=port or int(public),
            behind_proxy=behind_proxy,
            desk_host=desk_bind,
        )
    except ValueError as error:
        raise click.BadParameter(
            "a name is lower-case letters, digits and hyphens; a port is 1 to 65532"
        ) from error
    names = list(dict.fromkeys([host.strip("[]"), "127.0.0.1", "localhost", *hosts]))
    create_federation(folder, settings, names)
    fingerprint = certificate_fingerprint(read_certificate(folder.pki / "ca.crt"))
    click.echo(f"Federation {name} made in {root}.")
    click.echo(f"CA fingerprint (read it to each site by telephone): {fingerprint}")
    click.echo(f"To coordinate from another machine: {root / FIRST_COORDINATOR}.toml (keep secret)")
    click.echo(f"Next: cairn-aggregator up --dir {root}   (leave it running)")
    click.echo(f"      cairn-aggregator invite SITE --dir {root}")


_REVOKED = (
    "Nothing that it sends is accepted from now on, and its courier is disconnected.",
    "The name and its keys never return: it can join again under a new name only.",
    "It still has the federation key. The other sites make a new one among themselves, and the "
    "next run uses it; a run that goes on keeps the old one. Where keys are carried by hand, "
    "have a new one carried.",
    "What it contributed to finished rounds stays in their sums.",
)
_WITHDRAWN = (
    "Every open invite and its waiting request are withdrawn; no keys of it were admitted.",
    "The name stays free: invite it again at any time.",
)
_images_option = click.option(
    "--images",
    type=click.IntRange(1, MAX_IMAGES),
    help="Most images that the site's updates count as; default: as many as it declares.",
)


@click.command()
@click.argument("site")
@with_desk
@click.option("-o", "--output", type=NEW_FILE, help="Default: SITE.invite.toml.")
@click.option(
    "--days",
    default=DAYS,
    show_default=True,
    type=click.IntRange(1, 90),
    help="How long the token lets keys in.",
)
@click.option(
    "--auto-admit/--wait",
    default=True,
    show_default=True,
    help="Admit the first keys that come with the token, or let them wait for `admit`.",
)
@click.option("--by-mail", is_flag=True, help="Without a token: the site's request comes by mail.")
@_images_option
@click.option("--relay", default="", help="Relay that the site will be behind; - for none.")
def invite(
    desk: Desk,
    site: str,
    output: Path | None,
    days: int,
    images: int | None,
    relay: str,
    *,
    auto_admit: bool,
    by_mail: bool,
) -> None:
    """Write the small file with which SITE joins.

    It holds a token that lets in one set of keys under this name, once: send it to
    that site only. The keys themselves are made at the site.
    """
    path = output or Path(f"{site}.invite.toml")
    data = desk.invite(
        site, days=days, auto_admit=auto_admit, by_mail=by_mail, images=images, relay=relay
    )
    path.unlink(missing_ok=True)
    write_secret(path, data)  # whoever reads the token can enrol
    click.echo(f"Wrote {path}. Send it to the site; there: cairn-site join {path.name} --data DIR")
    if by_mail:
        click.echo("Its request.json comes back by mail; then: cairn-aggregator admit request.json")
    else:
        then = "is admitted at once" if auto_admit else f"waits for: cairn-aggregator admit {site}"
        click.echo(f"Good for {days} days and one set of keys, which {then}.")


@click.command()
@click.argument("who", nargs=-1, required=True, metavar="SITE|REQUEST...")
@with_desk
@_images_option
def admit(desk: Desk, who: tuple[str, ...], images: int | None) -> None:
    """Accept the public keys of sites: by name those that wait, or request.json files.

    Compare the fingerprint with the site by telephone. With --images also sites that are
    admitted: from the next run on their updates count as at most so many images.
    """
    for word in who:
        path = Path(word)
        is_file = path.exists() or path.suffix == ".json" or len(path.parts) > 1
        done = desk.admit(read_request(path) if is_file else word, images)
        click.echo(f"Admitted {done.site}; fingerprint of its ledger key: {done.ledger_sha256}")
        if done.counts_as:  # an aggregator of an earlier release does not say
            click.echo(f"It counts as {done.counts_as} images at most; --images N changes that.")


@click.command()
@click.argument("site")
@click.option("--yes", is_flag=True, help="Do not ask; needed where nobody can answer.")
@with_desk
def revoke(desk: Desk, site: str, *, yes: bool) -> None:
    """Withdraw SITE: nothing it sends is accepted, and its name and keys never return.

    Asks first, with the site's fingerprint and what follows. Of a site that was not admitted
    yet, its invites and its waiting request are withdrawn, and the name stays free.
    """
    if not yes:
        _ask_to_revoke(desk, site)
    done = desk.revoke(site)
    if not done.was_admitted:
        click.echo(f"Withdrew every invite of {site}; no keys of it were admitted.")
        return
    if done.disconnected:
        click.echo("Its courier was disconnected.")
    else:
        click.echo("The aggregator does not run now; the site is refused when it does.")
    click.echo(f"Revoked {site}. The name and its keys never return; invite under a new name.")


def _ask_to_revoke(desk: Desk, site: str) -> None:
    """Say whom this is about and what follows, and go on only with a yes.

    Raises:
        click.UsageError: nobody is there to answer.
        RefusedError: the answer is no.
    """
    if not sys.stdin.isatty():
        raise click.UsageError(f"nobody can be asked here; to revoke {site} all the same: --yes")
    line = next((line for line in desk.sites() if line.name == site), None)
    if line is None or line.state == "revoked":
        return  # the desk says what is wrong with it
    question = (
        f"fingerprint of its ledger key {line.ledger_sha256}" if line.ledger_sha256 else "no keys"
    )
    click.echo(f"{site}: {line.state}, {question}")
    for follows in _REVOKED if line.state == "admitted" else _WITHDRAWN:
        click.echo(f"  - {follows}")
    if not click.confirm(f"Revoke {site}?"):
        raise RefusedError("nothing was changed", expected="a yes", got="another answer")


@click.command()
@with_desk
@json_option
def sites(desk: Desk, *, as_json: bool) -> None:
    """Every site: invited, waiting, admitted or revoked; what it counts as; days left."""
    lines = desk.sites()
    certificate = desk.certificate()
    if as_json:
        days = None if certificate is None else certificate.days
        echo_json({"sites": [asdict(line) for line in lines], "server_certificate_days": days})
        return
    table = Table("site", "state", "connected", box=None, pad_edge=False, header_style="dim")
    table.add_column("counts as", justify="right")
    table.add_column("certificate", justify="right")
    table.add_column("ledger key")
    table.add_column("relay")
    total = sum(line.counts_as or 0 for line in lines)
    for line in lines:
        table.add_row(*(Text(cell) for cell in _cells(line, total)))
    Console().print(table if lines else Text("no site was invited yet", style="dim"))
    warn_of(certificate)


def _cells(line: SiteLine, total: int) -> tuple[str, ...]:
    """One row; ``total``: what all sites count as together."""
    online = {True: "yes", False: "no", None: "?"}[line.online]
    days = "" if line.certificate_days is None else f"{line.certificate_days} days"
    state = f"{line.state} until {line.invite_expires}" if line.state == "invited" else line.state
    shown = online if line.state == "admitted" else ""
    counts = "" if line.counts_as is None else f"{line.counts_as} ({line.counts_as / total:.0%})"
    return line.name, state, shown, counts, days, line.ledger_sha256[:16], line.relay


@click.command()
@click.argument("name")
@dir_option
@click.option("-o", "--output", type=NEW_FILE, help="Where to write the credential.")
@click.option("--csr", type=FILE, help="Their signing request: no private key is handed over.")
@click.option("--withdraw", is_flag=True, help="End NAME's access instead, at once.")
def coordinator(
    name: str, root: Path, output: Path | None, csr: Path | None, *, withdraw: bool
) -> None:
    """Let NAME coordinate from another machine, with the file that this writes.

    With --csr (made there by `cairn-aggregator signing-request NAME`) the file holds
    no private key. A second credential for a name ends the first.
    """
    folder = FederationFolder(root)
    folder.settings()
    if withdraw:
        withdraw_credential(folder, name)
        remaining = ", ".join(coordinators(folder)) or "nobody"
        click.echo(f"{name} is refused from now on; still on the list: {remaining}")
        return
    if output is None:
        raise click.UsageError("say where to write the credential: -o FILE")
    credential = issue_credential(folder, name, csr.read_bytes() if csr else None)
    write_credential(output, credential)
    click.echo(f"Wrote {output}, for {credential.address}.")
    if csr:
        click.echo(f"There: put it beside {csr.with_suffix('.key').name}, under the same name.")
    else:
        click.echo("It holds a private key: hand it over in person or sealed.")
    click.echo(f"There: cairn-aggregator --desk {output.name} status")


@click.command("signing-request")
@click.argument("name")
@click.option("-o", "--output", type=NEW_FILE, help="Default: NAME.csr; the key goes to NAME.key.")
def signing_request(name: str, output: Path | None) -> None:
    """Make a key here, and the request for a credential that NAME can use with it."""
    made = make_signing_request(output or Path(f"{name}.csr"), name)
    click.echo(f"Wrote {made.key} (stays here) and {made.signing_request} (send it).")
    click.echo(f"There: cairn-aggregator coordinator {name} --csr FILE -o {made.key.stem}.toml")
