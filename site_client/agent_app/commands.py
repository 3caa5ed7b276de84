"""The agent's own commands: parse, call, print. What they do lives in the modules beside.

Torch, SimpleITK and matplotlib are imported by the commands that need them, so
that ``cairn-site --help`` needs none.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.cli import INTERRUPTED, echo_json
from common.errors import UsageError

if TYPE_CHECKING:
    from site_client.agent_app.config import Config
    from site_client.agent_app.training import Outcome

_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)
_ANY = click.Path(path_type=Path)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
_KINDS = ("landmark-3d", "landmark-3d-cube", "landmark-2d", "multi-agent-3d")


@click.command()
@click.option("--config", "config_file", type=_FILE, help="Settings (TOML); see --print-config.")
@click.option(
    "--task",
    "kind",
    type=click.Choice(_KINDS),
    help="Kind of task, for its defaults; a configuration names its own.",
)
@click.option("--data", type=_ANY, help="Images: a BIDS or flat folder, or a list of files.")
@click.option("-o", "--output", type=_FOLDER, help="Folder of the run; made when missing.")
@click.option(
    "--set", "changes", multiple=True, metavar="SECTION.KEY=VALUE", help="Change one setting."
)
@click.option("--resume", is_flag=True, help="Go on where the run in --output was stopped.")
@click.option("--print-config", is_flag=True, help="Print all settings with comments, and end.")
@_JSON
@click.pass_context
def train(
    ctx: click.Context,
    config_file: Path | None,
    kind: str | None,
    data: Path | None,
    output: Path | None,
    changes: tuple[str, ...],
    *,
    resume: bool,
    print_config: bool,
    as_json: bool,
) -> None:
    """Train a landmark agent on your own images; no federation is needed.

    \b
      cairn-site train --print-config --task landmark-2d > train.toml
      cairn-site train --config train.toml --data images/ --output run
      cairn-site evaluate --checkpoint run --data held-out/ -o result
      cairn-site play --checkpoint run new.nii.gz -o found

    Images: NIfTI, MetaImage, NRRD, DICOM series (a folder), PNG, JPEG, TIFF with
    data.pixel_mm. Landmarks: 3D Slicer (.mrk.json, .fcsv), one "x,y,z" voxel line
    per landmark (.txt), or one table (.csv). Without data.validation a fifth of the
    subjects is held out.

    The folder gets latest/ and best/ (safetensors and JSON), metrics.jsonl, config.toml,
    split.json and tensorboard/. "Best" is the smallest mean error over all landmarks on
    the held-out subjects. Ctrl-C or SIGTERM saves latest/ and exits 130; --resume goes on
    so that the weights become the same, bit for bit. These files hold case names.

    With --plan PLAN the network of a federation's plan is trained alone, as a
    baseline: cairn-site train-plan --help.
    """  # noqa: D301 - \b is click's, and must not be an escape
    from site_client.agent_app.config import render_config

    if print_config:
        config = _configuration(config_file, kind, changes)
        click.echo(render_config(config), nl=False)
        return
    from site_client.agent_app.progress import Meter, stop_politely
    from site_client.agent_app.training import begin_or_resume
    from site_client.agent_app.training import train as run_training

    anew = not resume or config_file is not None or kind is not None or bool(changes)
    wanted = _configuration(config_file, kind, changes) if anew else None
    config, place, checkpoint = begin_or_resume(wanted, data, output, resume=resume)
    with stop_politely() as stop, Meter() as meter:
        outcome = run_training(config, place, checkpoint, stop, meter)
    if as_json:
        echo_json(outcome.as_dict())
    else:
        _tell(outcome)
    ctx.exit(0 if outcome.finished else INTERRUPTED)


def _tell(outcome: Outcome) -> None:
    """A run's end in a few lines."""
    click.echo(
        f"{outcome.updates} of {outcome.planned} updates on {outcome.training_cases} cases; "
        f"weights {outcome.weights_sha256[:12]}"
    )
    if outcome.validation_mm is not None:
        prior = (
            ""
            if outcome.prior_mm is None
            else f"; always the mean position: {outcome.prior_mm:.2f}"
        )
        click.echo(
            f"error on {outcome.validation_cases} held-out cases {outcome.validation_mm:.2f} mm, "
            f"best {outcome.best_mm:.2f}{prior}"
        )
    if outcome.finished:
        click.echo(f"Now: cairn-site evaluate --checkpoint {outcome.output} --data HELD-OUT")
    else:
        click.echo(f"Stopped. Go on: cairn-site train --resume --output {outcome.output}")


def _configuration(file: Path | None, kind: str | None, changes: tuple[str, ...]) -> Config:
    """What file, kind and single changes say together.

    Raises:
        UsageError: they contradict each other, or a change is not understood.
        InputDataError: the configuration is not valid.
    """
    from site_client.agent_app.config import parse_config, read_tables

    tables: dict[str, Any] = {} if file is None else read_tables(file)
    task = tables.setdefault("task", {})
    if kind is not None and isinstance(task, dict):
        if task.get("kind", kind) != kind:
            raise UsageError("--task is not the task.kind of --config", expected=task["kind"])
        task["kind"] = kind
    for change in changes:
        name, equals, value = change.partition("=")
        section, dot, key = name.strip().partition(".")
        if not equals or not dot:
            raise UsageError("--set is not understood", expected="SECTION.KEY=VALUE", got=change)
        table = tables.setdefault(section, {})
        if isinstance(table, dict):
            table[key] = _value(value.strip())
    return parse_config(tables)


def _value(text: str) -> object:
    """A value as TOML has it; what is none is taken as a text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


COMMANDS: dict[str, click.Command] = {"train": train}
_ = (Console, Table, Text)
