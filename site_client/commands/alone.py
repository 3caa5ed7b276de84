"""A federation's plan, model or codebook on one machine alone: train-plan, evaluate-plan, embed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.cli import echo_json, json_option
from common.plan import read_plan
from site_client.commands.options import FILE, FOLDER, plan_option, site_option
from site_client.console import Reporter
from site_client.files import write_atomically
from site_client.site import SiteFolder

if TYPE_CHECKING:
    from site_client.agent.evaluation import EvaluationReport


@click.command("train-plan", hidden=True)
@plan_option
@click.option("--data", required=True, type=FOLDER, help="Folder of images to train on.")
@click.option("-o", "--output", required=True, type=FOLDER, help="Folder for the results.")
@json_option
def train_plan(plan_file: Path, data: Path, output: Path, *, as_json: bool) -> None:
    """Train on one folder alone, with as many updates as the plan's rounds: the baseline.

    Writes weights.safetensors and metrics.json into the output folder. Needs no site
    folder and no federation.
    """
    from site_client.worker.local import train_alone

    plan = read_plan(plan_file)
    with Reporter() as progress:
        rounds, digest = train_alone(plan, data, output, progress)
    metrics = {
        "plan": plan.name,
        "plan_fingerprint": plan.fingerprint,
        "weights_sha256": digest,
        "rounds": [entry.as_dict() for entry in rounds],
    }
    write_atomically(output / "metrics.json", (json.dumps(metrics, indent=2) + "\n").encode())
    if as_json:
        echo_json(metrics)
    else:
        last = rounds[-1].training
        click.echo(
            f"{last.updates_total} updates on {last.images} images, loss {last.loss_mean:.3f}; "
            f"{output / 'weights.safetensors'}"
        )


@click.command("evaluate-plan", hidden=True)
@plan_option
@click.option("--model", required=True, type=FILE, help="Weights (safetensors).")
@click.option("--data", required=True, type=FOLDER, help="Folder of held-out images.")
@click.option("--training", type=FOLDER, help="Folder trained on, for the constant predictor.")
@click.option("--trajectory", type=FILE, help="Also write every search, step by step (JSON).")
@json_option
def evaluate_plan(
    plan_file: Path,
    model: Path,
    data: Path,
    training: Path | None,
    trajectory: Path | None,
    *,
    as_json: bool,
) -> None:
    """Measure a model on held-out images, in mm, beside a predictor that never looks.

    A trajectory file holds case names and positions: it stays at the site.
    """
    from site_client.worker.local import evaluate_alone, read_weights, trajectories

    plan = read_plan(plan_file)
    weights = read_weights(model, plan)
    with Reporter() as progress:
        report = evaluate_alone(plan, weights, data, training, progress)
        if trajectory is not None:
            paths = trajectories(plan, weights, data, progress)
            write_atomically(trajectory, json.dumps(paths).encode())
    if as_json:
        echo_json(report.as_dict())
        return
    Console().print(_errors(plan.name, report))


def _errors(plan: str, report: EvaluationReport) -> Table:
    """Errors of every landmark, posed and as acquired."""
    table = Table(title=f"{plan} on {report.cases} cases, errors in {report.unit}")
    for column in ("landmark", "pose", "mean", "std", "median", "over 10", "consensus", "prior"):
        table.add_column(column, justify="left" if column in ("landmark", "pose") else "right")
    for pose, summaries in (("random", report.posed), ("as acquired", report.native)):
        for name, s in summaries.items():
            prior = "" if s.prior is None else f"{s.prior:.2f}"
            far = "" if s.share_above_10mm is None else f"{s.share_above_10mm:.1%}"
            table.add_row(
                name,
                pose,
                f"{s.mean:.2f}",
                f"{s.std:.2f}",
                f"{s.median:.2f}",
                far,
                f"{s.consensus:.2f}",
                prior,
            )
    return table


@click.command()
@click.argument(
    "slides", metavar="SLIDE…", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--codebook", "book", required=True, type=FILE, help="Labelled codebook (JSON).")
@click.option(
    "--codec", type=FILE, help="Its codec (JSON); default: as a run of pixels left it here."
)
@click.option(
    "-o", "--output", required=True, type=FILE, help="The map: .mha, .nii or .nii.gz; labels."
)
@click.option("--group", metavar="NAME", help="Write 255 where a pixel is of this group, else 0.")
@click.option(
    "--pixel-mm",
    default=1.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Distance of neighbouring pixels, for the map's header.",
)
@site_option
@json_option
def embed(
    slides: tuple[Path, ...],
    book: Path,
    codec: Path | None,
    output: Path,
    group: str | None,
    pixel_mm: float,
    root: Path,
    *,
    as_json: bool,
) -> None:
    """Map each SLIDE (a file, or a folder of single-band TIFFs) with a codebook.

    Every pixel becomes 0 (background) or 1 plus the number of its group. Nothing leaves;
    no federation is needed once you have the two files.

    Several slides of one place, say four consecutive ones, become the channels of one
    image, which an agent searches as any other: cairn-site train --task landmark-2d.
    """
    from site_client.worker.embedding import MapFile, embed_alone

    worker_folder, written = SiteFolder(root).worker, MapFile(output, group, pixel_mm)
    with Reporter() as progress:
        counts = embed_alone(slides, book, codec, worker_folder, written, progress)
    if as_json:
        echo_json({"output": str(output), "pixels": counts})
        return
    table = Table("label", "group", box=None, pad_edge=False, header_style="dim")
    table.add_column("pixels", justify="right")
    for label, (name, pixels) in enumerate(counts.items()):
        table.add_row(str(label), Text(name), f"{pixels:,}")
    Console().print(table)
    click.echo(f"Wrote {output}")
