"""Who witnesses this site's ledger beside the aggregator: show it, and set it."""

from __future__ import annotations

from pathlib import Path

import click

from common.cli import echo_json, json_option
from common.crypto.identity import read_public_key
from common.ledger.layout import Layout
from common.ledger.notes import NoteKey, ledger_key, ledger_origin
from site_client.commands.options import site_option
from site_client.site import SiteFolder


@click.group(invoke_without_command=True)
@site_option
@json_option
@click.pass_context
def witnesses(ctx: click.Context, root: Path, *, as_json: bool) -> None:
    """Show who witnesses this ledger, how far, and the key that a witness needs.

    \b
      cairn-site witnesses --site-dir site                    how things stand
      cairn-site witnesses set policy --site-dir site         from now on these

    A witness is somebody else who runs `cairn-witness serve`, or any other C2SP
    tlog-witness. It sees how large the ledger is and its root, and no record. Worker and
    courier take a new policy with their next start.
    """  # noqa: D301 - \b is click's, and must not be an escape
    if ctx.invoked_subcommand is not None:
        return
    from common.witness.vkeys import vkey_text
    from site_client.witnesses.standing import read_standing, site_policy

    site = SiteFolder(root)
    policy = site_policy(site)
    standing = read_standing(site) if policy is not None else None
    vkey = _vkey(site)
    text = None if vkey is None else vkey_text(vkey)
    if as_json:
        echo_json(
            {
                "ledger": text,
                "quorum": None if policy is None else policy.says,
                "standing": None if standing is None else standing.as_dict(),
            }
        )
        return
    click.echo(f"ledger    {text or 'not begun; the worker begins it'}")
    click.echo(f"quorum    {'nobody is asked' if policy is None else policy.says}")
    if standing is not None:
        click.echo(f"standing  {standing.says}")
        for seen in standing.witnesses.values():
            click.echo(f"          {seen.says}")


@witnesses.command("set")
@click.argument("policy", type=click.Path(path_type=Path))
@site_option
@json_option
def set_policy(policy: Path, root: Path, *, as_json: bool) -> None:
    """Have the witnesses of POLICY, a policy file, cosign this ledger from now on.

    \b
      witness north witness.north.example/w1+5f3a...+BE...  https://witness.north.example
      witness south witness.south.example/w+91cc...+Bi...   https://witness.south.example
      group both all north south
      quorum both

    It is checked, and kept in site.toml. Give each operator the ledger's key that
    `cairn-site witnesses` prints. A certificate authority of their own goes into
    courier/witnesses.crt.
    """  # noqa: D301 - \b is click's, and must not be an escape
    from common.witness.policy import parse_policy
    from common.witness.policy_text import read_text
    from site_client.files import write_atomically
    from site_client.join import settings_text

    site = SiteFolder(root)
    text = read_text(policy)
    read = parse_policy(text)
    settings = site.settings().model_copy(update={"witness_policy": text})
    write_atomically(site.settings_file, settings_text(settings))
    unasked = [witness.name for witness in read.witnesses if not witness.url]
    if as_json:
        echo_json({"quorum": read.says, "without_address": unasked})
        return
    click.echo(f"{read.says}; from the next start of worker and courier")
    if unasked:
        click.echo(f"never asked, for no address stands there: {', '.join(unasked)}")


def _vkey(site: SiteFolder) -> NoteKey | None:
    path = Layout(site.ledger).ledger_key
    if not path.exists():
        return None
    return ledger_key(ledger_origin(site.settings().site), read_public_key(path))
