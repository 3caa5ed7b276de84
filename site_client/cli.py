"""The ``cairn-site`` command: a hospital's whole work, and the agent's on its own."""

from __future__ import annotations

from typing import NoReturn

import click

from common.cli import complete, run
from site_client.agent_app.commands import evaluate, import_weights, play, train
from site_client.commands import (
    embedding,
    held_out,
    look,
    membership,
    models,
    peers,
    plans,
    rehearse,
    serve,
    witnesses,
)


@click.group("cairn-site")
def cli() -> None:
    """Take part in a federation with this hospital's images, which stay here.

    \b
    From an invite to the first round:
      cairn-site join site-a.invite.toml --data /images --site-dir site
      cairn-site peers confirm site-b site-c --site-dir site    after a telephone call
      cairn-site check --site-dir site           what is missing, and what to do
      cairn-site dry-run plan.toml --site-dir site      exactly what would leave
      cairn-site plans --site-dir site           what waits for a person, and how to decide
      cairn-site up --site-dir site              (leave it running)

    What may leave is bounded by site/policy.toml, which is yours to edit; what
    left stands in site/worker/ledger, which `cairn-audit` verifies.

    What runs came to: models, and play --model latest SCAN marks a new scan with it.

    The agent on its own, without a federation: train, evaluate, play, import-weights.

    Exit codes: 0 fine; 2 usage; 3 refused by policy; 4 verification failed;
    5 peer unreachable; 6 bad input data; 7 internal.
    """  # noqa: D301 - \b is click's, and must not be an escape


for command in (
    membership.join,
    membership.renew,
    peers.peers,
    look.check,
    look.status,
    rehearse.dry_run,
    held_out.held_out,
    plans.plans,
    witnesses.witnesses,
    serve.worker,
    serve.courier,
    serve.up,
    embedding.embed,
    models.models,
    train.train,
    evaluate.evaluate,
    play.play,
    import_weights.import_weights,
):
    cli.add_command(command)
complete(cli)


def main() -> NoReturn:
    """Entry point of ``cairn-site``."""
    run(cli)


if __name__ == "__main__":
    main()
