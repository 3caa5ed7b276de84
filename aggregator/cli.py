"""The ``cairn-aggregator`` command: a coordinator's whole work, one line each."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import click

from aggregator.commands import (
    federation,
    keys,
    look,
    model,
    plans,
    relays,
    rounds,
    serve,
    simulate,
)
from aggregator.commands.options import DESK_KEY, NEW_FILE
from aggregator.embedding.cli import codebook
from common.cli import complete, run


@click.group("cairn-aggregator")
@click.option(
    "--desk",
    "credential",
    type=NEW_FILE,
    help="A coordinator's credential: ask the federation on another machine.",
)
@click.pass_context
def cli(context: click.Context, credential: Path | None) -> None:
    """Coordinate a federation: invite sites, start rounds, look at what came of them.

    \b
    A first run, where the federation's folder is:
      cairn-aggregator init fed --name brains --address fed.example.org:9443
      cairn-aggregator up --dir fed                     (leave it running)
      cairn-aggregator invite site-a --dir fed          -> site-a.invite.toml, for that site
      cairn-aggregator plan explain plan.toml           what its people will be asked to approve
      cairn-aggregator round start plan.toml --dir fed --min-sites 3 --watch
      cairn-aggregator model latest -o model --dir fed   what it came to, to use and to give away

    \b
    From another machine, with fed/coordinator.toml or a credential of your own:
      cairn-aggregator --desk coordinator.toml round start plan.toml --watch

    Exit codes: 0 fine; 2 usage; 3 refused; 4 verification failed; 5 unreachable,
    or a round without its quorum; 6 bad input; 7 internal; 8 and 10 see `round start`.
    """  # noqa: D301 - \b is click's, and must not be an escape
    if credential is not None:
        context.find_root().meta[DESK_KEY] = credential


for command in (
    federation.init,
    federation.invite,
    federation.admit,
    federation.revoke,
    federation.sites,
    federation.coordinator,
    federation.signing_request,
    keys.keys,
    relays.relay,
    serve.up,
    plans.plan,
    simulate.simulate,
    rounds.round_,
    look.watch_,
    look.status,
    look.runs,
    look.report,
    model.model,
    codebook,
):
    cli.add_command(command)
complete(cli)
rounds.round_.add_command(look.runs, "list")  # once completed, the same command by both names


def main() -> NoReturn:
    """Entry point."""
    run(cli)
