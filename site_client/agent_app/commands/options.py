"""Options that the agent's commands share, and the model that three of them name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from common.errors import UsageError
from site_client.agent_app.config import Config
from site_client.imaging.data_settings import read_data_settings
from site_client.kept import KeptModels

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
ANY = click.Path(path_type=Path)
set_option = click.option(
    "--set", "changes", multiple=True, metavar="SECTION.KEY=VALUE", help="Change one setting."
)
checkpoint_option = click.option(
    "--checkpoint",
    "checkpoint_path",
    type=FOLDER,
    help="A run's folder, a checkpoint in it, or the folder of a federation's model.",
)
model_option = click.option(
    "--model",
    "model",
    metavar="MODEL",
    help="Instead: what a federated run came to at this site: latest, a digest, or a folder.",
)
site_option = click.option(
    "--site-dir",
    "site_dir",
    envvar="CAIRN_SITE",
    default=".",
    show_default=True,
    type=FOLDER,
    help="The site's folder, for --model.",
)
# How a site's images are read; where they lie is said on the command line.
_READING: Final[tuple[str, ...]] = ("subject", "unit", "coordinate_system", "names", "pixel_mm")


@dataclass(frozen=True)
class Chosen:
    """The model that a person named.

    Attributes:
        place: its folder.
        site: the site's folder, for a model named by --model; None else.
    """

    place: Path
    site: Path | None

    def config(self, config: Config) -> Config:
        """Return its configuration, with how the site reads its images where that is said.

        Raises:
            InputDataError: the site's ``data.toml`` cannot be used.
        """
        if self.site is None:
            return config
        site = read_data_settings(self.site / "worker" / "data.toml", Path())
        said: dict[str, Any] = {
            key: getattr(site, key) for key in _READING if key in site.model_fields_set
        }
        return config.model_copy(update={"data": config.data.model_copy(update=said)})


def with_model(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``--checkpoint``, ``--model`` and ``--site-dir``."""
    return checkpoint_option(model_option(site_option(command)))


def chosen(checkpoint: Path | None, model: str | None, site: Path) -> Chosen:
    """Find the model that the options name.

    Raises:
        UsageError: none is named, or two are.
        InputDataError: there is no such model.
    """
    if (checkpoint is None) == (model is None):
        raise UsageError(
            "name one model",
            field="--checkpoint, --model",
            expected="one of the two: --checkpoint FOLDER, or --model latest --site-dir SITE",
            got="none" if model is None else "both",
        )
    if checkpoint is not None:
        return Chosen(checkpoint, None)
    return Chosen(KeptModels.of_site(site).find(model or ""), site)
