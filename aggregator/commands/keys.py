"""The aggregator's own key: showing it with its past, and exchanging it."""

from __future__ import annotations

from pathlib import Path

import click

from aggregator.admin.folder import FederationFolder
from aggregator.commands.options import dir_option
from common.cli import echo_json, json_option


@click.group("keys")
def keys() -> None:
    """Show or exchange the key that signs orders and cosigns the sites' ledgers."""


@keys.command("list")
@dir_option
@json_option
def list_(root: Path, *, as_json: bool) -> None:
    """Show the key that counts, and those before it, each with its fingerprint."""
    _show(root, as_json=as_json)


@keys.command("rotate")
@dir_option
@json_option
def rotate(root: Path, *, as_json: bool) -> None:
    """Put a new key in place of the one that counts; sites hear of it with their next order.

    \b
    The old key signs the new one, and is deleted. A site records the exchange (ROTATE) and
    takes nothing from then on that the old key signed, whoever has a copy of it. Auditors
    may go on with either key's witness.pub: `cairn-audit` follows the chain in the ledger.
    Do this once a year, and when somebody leaves who could read DIR/pki. If you think that
    the key was stolen, also telephone the sites: `cairn-site check` shows them the
    fingerprint of the key they trust, and a thief may have been first.
      3  a run goes on: wait for it, or `cairn-aggregator round stop`
    """  # noqa: D301 - \b is click's, and must not be an escape
    from aggregator.rotate import rotate_witness

    rotate_witness(FederationFolder(root))
    _show(root, as_json=as_json)


def _show(root: Path, *, as_json: bool) -> None:
    from aggregator.rotate import witness_history

    history = witness_history(FederationFolder(root))
    if as_json:
        past = [
            {"fingerprint": each.old.fingerprint, "until": each.ts} for each in history.rotations
        ]
        echo_json({"fingerprint": history.key.fingerprint, "before": past})
        return
    click.echo(f"{history.key.fingerprint}  counts now")
    for each in reversed(history.rotations):
        click.echo(f"{each.old.fingerprint}  until {each.ts}")
