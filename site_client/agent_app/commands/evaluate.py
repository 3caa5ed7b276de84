"""``cairn-site evaluate``: a checkpoint measured beside a predictor that never looks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.cli import counted, echo_json, json_option
from site_client.agent_app.commands.changes import changed
from site_client.agent_app.commands.options import ANY, FOLDER, checkpoint_option, set_option
from site_client.agent_app.kinds import LANDMARKS

if TYPE_CHECKING:
    from site_client.agent_app.evaluating import Evaluation


@click.command()
@checkpoint_option
@click.option("--data", type=ANY, help="Held-out images; default: those the run held out.")
@click.option(
    "--landmarks", type=ANY, help="Their landmarks, when not beside them: folder, list or table."
)
@click.option("-o", "--output", type=FOLDER, help="Folder for predictions, metrics and page.")
@click.option("--pictures/--no-pictures", default=True, help="Show slices of cases on the page.")
@set_option
@json_option
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
    config = changed(checkpoint.config, changes)
    keep_freed_memory()
    beside = "" if landmarks is None else str(landmarks)
    with Meter() as meter:
        cases = evaluation_cases(config, data, beside, checkpoint, meter)
        if config.task.kind not in LANDMARKS:
            from site_client.agent_app.commands.searches import evaluate_search, tell_evaluation

            searched = evaluate_search(place, checkpoint, config, cases, meter, output)
            tell_evaluation(searched, output, as_json=as_json)
            return
        evaluation = measure(place, checkpoint, config, cases, meter)
        if output is not None:
            write_evaluation(output, evaluation, pictures=pictures)
    if as_json:
        echo_json(plain(evaluation.as_dict()))
        return
    _tell(evaluation)
    if output is not None:
        click.echo(f"Wrote {output / 'report.html'}, metrics.json and predictions/")


def _tell(evaluation: Evaluation) -> None:
    """Errors on landmarks, a table each for random poses and for images as acquired."""
    console = Console()
    titles = {"posed": "under random poses", "native": "as acquired"}
    for name, rows in evaluation.tables().items():
        table = Table(
            title=f"{counted(evaluation.cases, 'case')} {titles[name]}, errors in mm",
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
