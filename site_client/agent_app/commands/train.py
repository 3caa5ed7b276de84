"""``cairn-site train``: an agent on one's own images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from common.cli import INTERRUPTED, counted, echo_json, json_option
from common.errors import UsageError
from common.settings import KINDS
from site_client.agent_app.beginning import begin_or_resume, with_start
from site_client.agent_app.checkpoint import Checkpoint, open_checkpoint
from site_client.agent_app.commands.changes import configuration
from site_client.agent_app.commands.options import (
    ANY,
    FILE,
    FOLDER,
    chosen,
    set_option,
    with_model,
)
from site_client.agent_app.config import Config, render_config
from site_client.console import Meter, stop_politely

if TYPE_CHECKING:
    from site_client.agent_app.training import TrainingOutcome


@click.command()
@click.option("--config", "config_file", type=FILE, help="Settings (TOML); see --print-config.")
@click.option("--plan", "plan_file", type=FILE, help="Settings from a federation's plan.")
@click.option(
    "--task",
    "kind",
    type=click.Choice(list(KINDS)),
    help="Kind of task, for its defaults; a configuration names its own.",
)
@with_model
@click.option("--data", type=ANY, help="Images: a BIDS or flat folder, or a list of files.")
@click.option("-o", "--output", type=FOLDER, help="Folder of the run; made when missing.")
@set_option
@click.option("--resume", is_flag=True, help="Go on where the run in --output was stopped.")
@click.option("--print-config", is_flag=True, help="Print all settings with comments, and end.")
@json_option
@click.pass_context
def train(
    ctx: click.Context,
    config_file: Path | None,
    plan_file: Path | None,
    kind: str | None,
    checkpoint_path: Path | None,
    model: str | None,
    site_dir: Path,
    data: Path | None,
    output: Path | None,
    changes: tuple[str, ...],
    *,
    resume: bool,
    print_config: bool,
    as_json: bool,
) -> None:
    """Train an agent on your own images; no federation is needed.

    \b
      cairn-site train --print-config --task landmark-2d > train.toml
      cairn-site train --config train.toml --data images/ --output run
      cairn-site evaluate --checkpoint run --data held-out/ -o result
      cairn-site play --checkpoint run new.nii.gz -o found

    It looks for landmarks, or with --task box-2d, box-3d for boxes around lesions or
    organs (label images <case>_label.nii.gz beside the images, or a table of boxes), with
    turned-box-2d for boxes that lie any way in an image (label images), with
    view-plane for the plane of task.plane_landmarks, with registration-2d, registration-3d
    for the rigid motion between two images; the last needs no annotation. With
    centreline-2d, centreline-3d it traces vessels from a seed: beside each image a curve of
    3D Slicer (.mrk.json), or one table case,curve,x_mm,y_mm,z_mm; to play, two points do.
    With seed-2d, seed-3d it learns where to put the seed of a region that grows to a label
    (label images), with glimpses-2d where to look in a large image, and how closely, to find
    a label in it, with tracking-2d to follow landmarks through the frames of a subject.

    Images: NIfTI, MetaImage, NRRD, DICOM series (a folder), PNG, JPEG, TIFF with
    data.pixel_mm. Landmarks: 3D Slicer (.mrk.json, .fcsv), one "x,y,z" voxel line
    per landmark (.txt), or one table (.csv). Without data.validation a fifth of the
    subjects is held out.

    The folder gets latest/ and best/ (safetensors and JSON), metrics.jsonl, config.toml,
    split.json and tensorboard/. "Best" is the smallest mean error over all landmarks on
    the held-out subjects. Ctrl-C or SIGTERM saves latest/ and exits 130; --resume goes on
    so that the weights become the same, bit for bit. These files hold case names.

    With --plan PLAN the agent of a federation's plan is trained alone, with as many
    updates as all of its rounds have: the baseline beside the federation.

    With --checkpoint or --model it begins with that model's weights instead of first ones, and
    with its settings where no file, plan or kind says others: a new hospital comes to the same
    error in a fraction of the updates (deploy/results/LEARNERS.md).

    \b
      cairn-site train --model latest --site-dir site --data images/ -o run
    """  # noqa: D301 - \b is click's, and must not be an escape
    if resume and (checkpoint_path or model):
        raise UsageError(
            "a run goes on, or begins with a model",
            field="--resume",
            expected="--resume alone, or --checkpoint or --model without it",
            got="both",
        )
    start, base = _start(checkpoint_path, model, site_dir)
    if print_config:
        config = configuration(config_file, plan_file, kind, changes, base)
        click.echo(render_config(with_start(config, start)), nl=False)
        return
    from site_client.agent.networks import keep_freed_memory
    from site_client.agent_app.training import train as run_training

    anew = not resume or bool(config_file or plan_file or kind or changes)
    settings = configuration(config_file, plan_file, kind, changes, base) if anew else None
    if settings is not None and not resume:
        settings = with_start(settings, start)
    config, place, checkpoint = begin_or_resume(settings, data, output, resume=resume)
    keep_freed_memory()
    with stop_politely() as stop, Meter() as meter:
        outcome = run_training(config, place, checkpoint, stop, meter, start)
    if as_json:
        echo_json(outcome.as_dict())
    else:
        _tell(outcome)
    ctx.exit(0 if outcome.finished else INTERRUPTED)


def _start(
    checkpoint: Path | None, model: str | None, site: Path
) -> tuple[Checkpoint | None, Config | None]:
    """Read the model that training begins with, and how its settings read this site's images."""
    if checkpoint is None and model is None:
        return None, None
    named = chosen(checkpoint, model, site)
    start = open_checkpoint(named.place)[1]
    return start, named.config(start.config)


def _tell(outcome: TrainingOutcome) -> None:
    """A run's end in a few lines."""
    click.echo(
        f"{outcome.updates} of {outcome.planned} updates on "
        f"{counted(outcome.training_cases, 'case')}; weights {outcome.weights_sha256[:12]}"
    )
    if outcome.validation_mm is not None:
        prior = (
            ""
            if outcome.prior_mm is None
            else f"; an answer that never looks: {outcome.prior_mm:.2f}"
        )
        click.echo(
            f"error on held-out {counted(outcome.validation_cases, 'case')}: "
            f"{outcome.validation_mm:.2f} {outcome.unit}, best {outcome.best_mm:.2f}{prior}"
        )
    if outcome.finished:
        click.echo(f"Now: cairn-site evaluate --checkpoint {outcome.output} --data HELD-OUT")
    else:
        click.echo(f"Stopped. Go on: cairn-site train --resume --output {outcome.output}")
