"""Options that the agent's commands share."""

from __future__ import annotations

from pathlib import Path

import click

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
ANY = click.Path(path_type=Path)
set_option = click.option(
    "--set", "changes", multiple=True, metavar="SECTION.KEY=VALUE", help="Change one setting."
)
checkpoint_option = click.option(
    "--checkpoint",
    "checkpoint_path",
    required=True,
    type=FOLDER,
    help="A run's folder, or a checkpoint in it.",
)
