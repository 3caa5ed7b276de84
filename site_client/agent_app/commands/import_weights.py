"""``cairn-site import-weights``: a checkpoint of a network that rl-medical trained."""

from __future__ import annotations

from pathlib import Path

import click

from common.cli import echo_json, json_option
from site_client.agent_app.commands.options import FILE, FOLDER


@click.command("import-weights")
@click.argument("file", metavar="FILE.pt", type=FILE)
@click.option("-o", "--output", required=True, type=FOLDER, help="Folder of the checkpoint.")
@click.option(
    "--landmark",
    "landmarks",
    multiple=True,
    required=True,
    help="What its agents look for, in their order; one name for all, or one each; a "
    "name given twice sends two agents after it.",
)
@json_option
def import_weights(file: Path, output: Path, landmarks: tuple[str, ...], *, as_json: bool) -> None:
    """Make a checkpoint of a network that rl-medical trained; nothing in FILE is run.

    \b
      cairn-site import-weights SingleAgent.pt --landmark AC -o ac
      cairn-site evaluate --checkpoint ac --data images.txt --landmarks points.txt
      cairn-site play --checkpoint ac head.nii.gz -o found

    Network3D (one agent) and CommNet (several, with or without attention) are known.
    There is no constant prior to compare with: the file does not hold one.
    """  # noqa: D301 - \b is click's, and must not be an escape
    from site_client.agent_app.importing import import_checkpoint

    checkpoint = import_checkpoint(file, landmarks, output)
    config, numbers = checkpoint.config, sum(v.size for v in checkpoint.weights.values())
    if as_json:
        echo_json(
            {
                "output": str(output),
                "architecture": config.network.architecture,
                "task": config.task.kind,
                "landmarks": list(checkpoint.landmarks),
                "parameters": numbers,
                "origin": checkpoint.origin,
            }
        )
        return
    names = ", ".join(landmarks)
    click.echo(f"{config.network.architecture}, {numbers:,} parameters, for {names}: {output}")
    click.echo(f"Now: cairn-site play --checkpoint {output} IMAGE -o found")
