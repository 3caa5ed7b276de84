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
from site_client.agent_app.kinds import KINDS, LANDMARKS

if TYPE_CHECKING:
    from site_client.agent_app.config import Config
    from site_client.agent_app.training import Outcome

_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)
_ANY = click.Path(path_type=Path)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
_SET = click.option(
    "--set", "changes", multiple=True, metavar="SECTION.KEY=VALUE", help="Change one setting."
)
_CHECKPOINT = click.option(
    "--checkpoint",
    "checkpoint_path",
    required=True,
    type=_FOLDER,
    help="A run's folder, or a checkpoint in it.",
)

# What may be changed of a trained network beside data, evaluation and pose.
_FREE = (
    "run.threads",
    "run.execution",
    "box.per_axis",
    "box.sizes_mm",
    "box.suppress_above",
    "box.least_score",
    "box.least_voxels",
    "registration.start",
)


@click.command()
@click.option("--config", "config_file", type=_FILE, help="Settings (TOML); see --print-config.")
@click.option(
    "--task",
    "kind",
    type=click.Choice(KINDS),
    help="Kind of task, for its defaults; a configuration names its own.",
)
@click.option("--data", type=_ANY, help="Images: a BIDS or flat folder, or a list of files.")
@click.option("-o", "--output", type=_FOLDER, help="Folder of the run; made when missing.")
@_SET
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
    """Train an agent on your own images; no federation is needed.

    \b
      cairn-site train --print-config --task landmark-2d > train.toml
      cairn-site train --config train.toml --data images/ --output run
      cairn-site evaluate --checkpoint run --data held-out/ -o result
      cairn-site play --checkpoint run new.nii.gz -o found

    It looks for landmarks, or with --task box-2d, box-3d for boxes around lesions or
    organs (label images <case>_label.nii.gz beside the images, or a table of boxes), with
    view-plane for the plane of task.plane_landmarks, with registration-2d, registration-3d
    for the rigid motion between two images; the last needs no annotation.

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
    from site_client.agent.networks import keep_freed_memory
    from site_client.agent_app.progress import Meter, stop_politely
    from site_client.agent_app.training import begin_or_resume
    from site_client.agent_app.training import train as run_training

    anew = not resume or config_file is not None or kind is not None or bool(changes)
    wanted = _configuration(config_file, kind, changes) if anew else None
    config, place, checkpoint = begin_or_resume(wanted, data, output, resume=resume)
    keep_freed_memory()
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
            else f"; an answer that never looks: {outcome.prior_mm:.2f}"
        )
        click.echo(
            f"error on {outcome.validation_cases} held-out cases {outcome.validation_mm:.2f} "
            f"{outcome.unit}, best {outcome.best_mm:.2f}{prior}"
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
    _apply(tables, changes)
    return parse_config(tables)


def _apply(tables: dict[str, Any], changes: tuple[str, ...]) -> None:
    """Put single changes into a configuration's tables.

    Raises:
        UsageError: a change is not understood.
    """
    for change in changes:
        name, equals, value = change.partition("=")
        section, dot, key = name.strip().partition(".")
        if not equals or not dot:
            raise UsageError("--set is not understood", expected="SECTION.KEY=VALUE", got=change)
        table = tables.setdefault(section, {})
        if isinstance(table, dict):
            table[key] = _value(value.strip())


def _value(text: str) -> object:
    """A value as TOML has it; what is none is taken as a text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


@click.command()
@_CHECKPOINT
@click.option("--data", type=_ANY, help="Held-out images; default: those the run held out.")
@click.option(
    "--landmarks", type=_ANY, help="Their landmarks, when not beside them: folder, list or table."
)
@click.option("-o", "--output", type=_FOLDER, help="Folder for predictions, metrics and page.")
@click.option("--pictures/--no-pictures", default=True, help="Show slices of cases on the page.")
@_SET
@_JSON
def evaluate(
    checkpoint_path: Path,
    data: Path | None,
    landmarks: Path | None,
    output: Path | None,
    changes: tuple[str, ...],
    *,
    pictures: bool,
    as_json: bool,
) -> None:
    """Measure a checkpoint in mm, beside a predictor that always answers the mean position.

    \b
      cairn-site evaluate --checkpoint run                    its held-out subjects
      cairn-site evaluate --checkpoint run --data more/ -o result
      cairn-site evaluate --checkpoint run --data xrays/ --landmarks points.csv \\
                          --set data.unit=mm --set data.pixel_mm=0.1

    A run's folder means its best checkpoint; name run/latest for the latest. Every
    search counts by itself; "agreed" is the error of what the starts of a case agree
    on, "≤2" the share of searches within 2 mm, "prior" the error of the mean position.
    "Posed" turns, shifts and scales the images at random; "native" leaves them.

    The folder gets report.html, metrics.json, predictions/<case>.mrk.json (opens in 3D
    Slicer) and predictions/predictions.csv. They hold names and pictures of cases.

    With --plan PLAN a federation's model is measured: cairn-site evaluate-plan --help.
    """  # noqa: D301 - \b is click's, and must not be an escape
    from site_client.agent.networks import keep_freed_memory
    from site_client.agent_app.evaluating import (
        evaluation_cases,
        measure,
        open_checkpoint,
        write_evaluation,
    )
    from site_client.agent_app.progress import Meter
    from site_client.agent_app.results import plain

    place, checkpoint = open_checkpoint(checkpoint_path)
    config = _changed(checkpoint.config, changes)
    keep_freed_memory()
    beside = "" if landmarks is None else str(landmarks)
    with Meter() as meter:
        cases = evaluation_cases(config, data, beside, checkpoint, meter)
        if config.task.kind not in LANDMARKS:
            from site_client.agent_app.search_commands import evaluate_search, tell_evaluation

            searched = evaluate_search(place, checkpoint, config, cases, meter, output)
            tell_evaluation(searched, output, as_json=as_json)
            return
        evaluation = measure(place, checkpoint, config, cases, meter)
        if output is not None:
            write_evaluation(output, evaluation, pictures=pictures)
    if as_json:
        echo_json(plain(evaluation.as_dict()))
        return
    console = Console()
    titles = {"posed": "under random poses", "native": "as acquired"}
    for name, rows in evaluation.tables().items():
        table = Table(
            title=f"{evaluation.cases} cases {titles[name]}, errors in mm",
            title_justify="left",
            box=None,
            pad_edge=False,
            header_style="dim",
        )
        table.add_column("landmark", overflow="fold")
        for head in ("prior", "mean ± std", "median", "≤2", "≤2.5", "≤3", "≤4", ">10", "agreed"):
            table.add_column(head, justify="right", no_wrap=True)
        for row in rows:
            cells = [
                "unknown" if row.prior_mm is None else f"{row.prior_mm:.2f}",
                f"{row.mean_mm:.2f} ± {row.std_mm:.2f}",
                f"{row.median_mm:.2f}",
                *(f"{share:.0%}" for share in row.within),
                f"{row.far:.0%}",
                f"{row.consensus_mm:.2f}",
            ]
            table.add_row(Text(row.landmark), *cells)
        console.print(table)
    if output is not None:
        click.echo(f"Wrote {output / 'report.html'}, metrics.json and predictions/")


@click.command()
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=_ANY)
@_CHECKPOINT
@click.option("-o", "--output", type=_FOLDER, help="Folder for positions and films.")
@click.option("--gif", is_flag=True, help="Film one search per image and landmark.")
@click.option("--mp4", is_flag=True, help="The same as MP4; needs an ffmpeg program.")
@_SET
@_JSON
def play(
    images: tuple[Path, ...],
    checkpoint_path: Path,
    output: Path | None,
    changes: tuple[str, ...],
    *,
    gif: bool,
    mp4: bool,
    as_json: bool,
) -> None:
    """Find landmarks in IMAGE (files, DICOM folders, folders, lists); no truth is needed.

    \b
      cairn-site play --checkpoint run new.nii.gz -o found --gif
      cairn-site play --checkpoint lesions new.nii.gz -o found     boxes, with scores
      cairn-site play --checkpoint aligner FIXED MOVING -o found   a rigid transform

    The folder gets <case>.mrk.json (opens in 3D Slicer) and predictions.csv; the error
    column says N/A. "Spread" is how far the searches ended from what they agree on: a
    large one is a warning, a small one no proof. Not a medical device.

    Boxes: predictions.csv, and ROI markups of volumes. A plane: <case>.mrk.json. Two
    images: FIXED_MOVING.tfm (ITK; maps points of FIXED to MOVING, as resampling MOVING
    onto FIXED wants it). All of them also as predictions.json.
    """  # noqa: D301 - \b is click's, and must not be an escape
    from site_client.agent.networks import keep_freed_memory
    from site_client.agent_app.cases import without_truth
    from site_client.agent_app.evaluating import open_checkpoint
    from site_client.agent_app.playing import play as search
    from site_client.agent_app.playing import require_ffmpeg, write_films
    from site_client.agent_app.progress import Meter
    from site_client.agent_app.results import write_predictions
    from site_client.agent_app.sources import find_source

    if (gif or mp4) and output is None:
        raise UsageError("films need a folder", expected="-o DIR")
    ffmpeg = require_ffmpeg() if mp4 else None
    _, checkpoint = open_checkpoint(checkpoint_path)
    config = _changed(checkpoint.config, changes)
    keep_freed_memory()
    if config.task.kind not in LANDMARKS:
        from site_client.agent_app.search_commands import play_command

        films = gif or mp4
        play_command(images, checkpoint, config, output, films=films, as_json=as_json)
        return
    with Meter() as meter:
        source = find_source(images, "", config.data, config.task.kind, need_truth=False)
        cases = without_truth(source, checkpoint.landmarks, config, meter)
        played = search(checkpoint, config, cases)
        written: list[Path] = []
        if output is not None:
            written += write_predictions(output, played.found)
        if output is not None and (gif or mp4):
            written += write_films(output, played, config, gif=gif, ffmpeg=ffmpeg)
    if as_json:
        echo_json(
            {"found": [e.as_dict() for e in played.found], "files": [str(p) for p in written]}
        )
        return
    table = Table("case", "landmark", title="Positions in LPS mm")
    for head in ("x", "y", "z", "spread", "error"):
        table.add_column(head, justify="right")
    for entry in played.found:
        numbers = [f"{value:.2f}" for value in (*entry.world_mm, entry.spread_mm)]
        table.add_row(Text(entry.name), Text(entry.landmark), *numbers, "N/A")
    Console().print(table)
    for path in written:
        click.echo(f"Wrote {path}")


@click.command("import-weights")
@click.argument("file", metavar="FILE.pt", type=_FILE)
@click.option("-o", "--output", required=True, type=_FOLDER, help="Folder of the checkpoint.")
@click.option(
    "--landmark",
    "landmarks",
    multiple=True,
    required=True,
    help="What its agents look for, in their order; one name for all, or one each.",
)
@_JSON
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


def _changed(config: Config, changes: tuple[str, ...]) -> Config:
    """A checkpoint's configuration with other ways of reading data or of evaluating.

    Raises:
        UsageError: a change would make it another network's.
        InputDataError: the change is not valid.
    """
    from site_client.agent_app.config import differences, parse_config

    tables = config.model_dump(mode="json")
    _apply(tables, changes)
    changed = parse_config(tables)
    fixed = [
        key
        for key in differences(config, changed)
        if key.partition(".")[0] not in ("data", "evaluation", "pose") and key not in _FREE
    ]
    if fixed:
        raise UsageError(
            "a checkpoint's network cannot be changed",
            field=", ".join(fixed),
            expected="as it was trained",
            advice=f"--set takes data.*, evaluation.*, pose.*, {', '.join(_FREE)} here",
        )
    return changed


COMMANDS: dict[str, click.Command] = {
    "train": train,
    "evaluate": evaluate,
    "play": play,
    "import-weights": import_weights,
}
