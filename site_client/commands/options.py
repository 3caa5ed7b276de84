"""Options that many commands share."""

from __future__ import annotations

from pathlib import Path

import click

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
site_option = click.option(
    "--site-dir",
    "root",
    envvar="CAIRN_SITE",
    default=".",
    show_default=True,
    type=FOLDER,
    help="The site's folder.",
)
plan_option = click.option(
    "--plan", "plan_file", required=True, type=FILE, help="The federation plan (TOML)."
)
