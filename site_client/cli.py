"""The ``cairn-site`` command: a hospital's whole work, and the agent's on its own.

Each command is imported when it is typed. What a list says of it stands here, too; a test
holds the two together.
"""

from __future__ import annotations

from typing import Final, NoReturn

import click

from common.cli import complete, run
from common.lazy import Lazily, LazyGroup
from site_client.own_process import take_over

COMMANDS: Final = {
    "join": Lazily(
        "site_client.commands.membership:join",
        "Make this site's keys and folder from an INVITE, and send the public halves.",
    ),
    "renew": Lazily(
        "site_client.commands.membership:renew",
        "Renew this site's certificate in place; keys and name stay as they are.",
    ),
    "peers": Lazily(
        "site_client.commands.peers:peers",
        "Show the other sites, with what to compare by telephone, and who is confirmed.",
    ),
    "check": Lazily(
        "site_client.commands.look:check",
        "Say what is ready and what is not, one fact per line, each with what to do.",
    ),
    "status": Lazily(
        "site_client.commands.look:status",
        "Show what this site did last: round, ledger, bytes out, last line of the log.",
    ),
    "dry-run": Lazily(
        "site_client.commands.rehearse:dry_run",
        "Work a round of PLAN without a network, and show exactly what would leave.",
    ),
    "held-out": Lazily(
        "site_client.commands.held_out:held_out",
        "Show which subjects are kept out of training, and where that is set.",
    ),
    "plans": Lazily(
        "site_client.commands.plans:plans",
        "List the plans that this site was asked for: which wait, and who decided what.",
    ),
    "restore": Lazily(
        "site_client.commands.restore:restore",
        "Go on from a backup: record what the ledger has lost, and by whose word.",
    ),
    "witnesses": Lazily(
        "site_client.commands.witnesses:witnesses",
        "Show who witnesses this ledger, how far, and the key that a witness needs.",
    ),
    "worker": Lazily(
        "site_client.commands.serve:worker",
        "Answer orders: images in, released records out; no network.",
    ),
    "courier": Lazily(
        "site_client.commands.serve:courier",
        "Carry orders in and released replies out; opens no image.",
    ),
    "up": Lazily(
        "site_client.commands.serve:up",
        "Run worker and courier as two processes, and start again the one that dies.",
    ),
    "embed": Lazily(
        "site_client.commands.embedding:embed",
        "Map each SLIDE (a file, or a folder of single-band TIFFs) with a codebook.",
    ),
    "pixels": Lazily(
        "site_client.commands.pixels:pixels",
        "Count slides on several machines, and put what they counted together.",
    ),
    "models": Lazily(
        "site_client.commands.models:models",
        "List the models that federated runs came to at this site, newest first.",
    ),
    "train": Lazily(
        "site_client.agent_app.commands.train:train",
        "Train an agent on your own images; no federation is needed.",
    ),
    "evaluate": Lazily(
        "site_client.agent_app.commands.evaluate:evaluate",
        "Measure a checkpoint in mm, beside a predictor that always answers the mean position.",
    ),
    "play": Lazily(
        "site_client.agent_app.commands.play:play",
        "Find landmarks in IMAGE (files, DICOM folders, folders, lists); no truth is needed.",
    ),
    "simulate-sites": Lazily(
        "site_client.commands.simulate:simulate_sites",
        "Hold made-up sites for `cairn-aggregator simulate`, which starts this by itself.",
    ),
    "import-weights": Lazily(
        "site_client.agent_app.commands.import_weights:import_weights",
        "Make a checkpoint of a network that rl-medical trained; nothing in FILE is run.",
    ),
}


@click.group("cairn-site", cls=LazyGroup, lazily=COMMANDS)
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


complete(cli)


def main() -> NoReturn:
    """Entry point of ``cairn-site``."""
    take_over()
    run(cli)


if __name__ == "__main__":
    main()
