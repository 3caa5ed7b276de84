"""``cairn-site evaluate``: a checkpoint measured beside a predictor that never looks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from common.cli import counted, echo_json, json_option
from site_client.agent_app.commands.changes import changed
from site_client.agent_app.commands.options import ANY, FOLDER, chosen, set_option, with_model
from site_client.console import Meter
from site_client.files import plain

if TYPE_CHECKING:
    from site_client.agent_app.evaluating import Evaluation

_TITLES: Final = {"posed": "under random poses", "native": "as acquired"}


@click.command()
@with_model
@click.option("--data", type=ANY, help="Held-out images; default: those the run held out.")
@click.option(
    "--landmarks", type=ANY, help="Their landmarks, when not beside them: folder, list or table."
)
@click.option("-o", "--output", type=FOLDER, help="Folder for predictions, metrics and page.")
@click.option("--pictures/--no-pictures", default=True, help="Show slices of cases on the page.")
@set_option
@json_option
def evaluate(
    checkpoint_path: Path | None,
    model: str | None,
    site_dir: Path,
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
      cairn-site evaluate --model latest --site-dir site --data more/
      cairn-site evaluate --checkpoint run --data xrays/ --landmarks points.csv \\
                          --set data.unit=mm --set data.pixel_mm=0.1

    --model is what a federated run came to (`cairn-site models`); it knows no training cases,
    so nothing stands beside its errors. A run's folder means its best checkpoint; name
    run/latest for the latest. Every search counts by itself; "agreed" is the error of what
    the starts of a case agree on, "≤2" the share of searches within 2 mm, "prior" the error
    of the mean position.
    "Posed" turns, shifts and scales the images at random; "native" leaves them.

    After a training with task.crops the images are also cropped at random, and a table says how
    well the landmarks that are cut off are told; a landmark that a Markups file marks as
    missing, or a table as "absent", counts as such.

    The folder gets report.html, metrics.json, predictions/<case>.mrk.json (opens in 3D
    Slicer) and predictions/predictions.csv. They hold names and pictures of cases.
    """  # noqa: D301 - \b is click's, and must not be an escape
    from site_client.agent.networks import keep_freed_memory
    from site_client.agent_app.checkpoint import open_checkpoint
    from site_client.agent_app.evaluating import evaluation_cases, measure, write_evaluation

    named = chosen(checkpoint_path, model, site_dir)
    place, checkpoint = open_checkpoint(named.place)
    config = changed(named.config(checkpoint.config), changes)
    keep_freed_memory()
    truth = "" if landmarks is None else str(landmarks)
    with Meter() as meter:
        cases = evaluation_cases(config, data, truth, checkpoint, meter)
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
    """Print errors, a table each for random poses and for images as acquired."""
    unit, cases = evaluation.measured.report.unit, counted(evaluation.cases, "case")
    for name, table in evaluation.tables().items():
        table.print(f"{cases} {_TITLES[name]}, errors in {unit}")
    if evaluation.checkpoint.prior_mm is None:
        click.echo("No prior: the model comes without the mean position of its training cases.")
    for extra in evaluation.measured.answers.extras:
        extra.table.print(extra.said)
