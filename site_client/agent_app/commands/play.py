"""``cairn-site play``: search images of which nothing is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.cli import echo_json, json_option
from common.errors import UsageError
from site_client.agent_app.commands.changes import changed
from site_client.agent_app.commands.options import ANY, FOLDER, checkpoint_option, set_option
from site_client.agent_app.kinds import LANDMARKS

if TYPE_CHECKING:
    from site_client.agent_app.playing import Played


@click.command()
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=ANY)
@checkpoint_option
@click.option("-o", "--output", type=FOLDER, help="Folder for positions and films.")
@click.option(
    "--gif", is_flag=True, help="Film one search per image and landmark, box, plane or pair."
)
@click.option("--mp4", is_flag=True, help="The same as MP4; needs an ffmpeg program.")
@set_option
@json_option
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
    from site_client.agent_app.films import require_ffmpeg, write_films
    from site_client.agent_app.playing import films
    from site_client.agent_app.playing import play as search
    from site_client.agent_app.progress import Meter
    from site_client.agent_app.results import write_predictions
    from site_client.agent_app.sources import find_source

    if (gif or mp4) and output is None:
        raise UsageError("films need a folder", expected="-o DIR")
    ffmpeg = require_ffmpeg() if mp4 else None
    _, checkpoint = open_checkpoint(checkpoint_path)
    config = changed(checkpoint.config, changes)
    keep_freed_memory()
    if config.task.kind not in LANDMARKS:
        from site_client.agent_app.commands.searches import play_command

        play_command(images, checkpoint, config, output, gif=gif, ffmpeg=ffmpeg, as_json=as_json)
        return
    with Meter() as meter:
        source = find_source(images, "", config.data, config.task.kind, need_truth=False)
        cases = without_truth(source, checkpoint.landmarks, config, meter)
        played = search(checkpoint, config, cases)
        written: list[Path] = []
        if output is not None:
            written += write_predictions(output, played.found)
        if output is not None and (gif or mp4):
            written += write_films(output, films(played, config), gif=gif, ffmpeg=ffmpeg)
    if as_json:
        echo_json(
            {"found": [e.as_dict() for e in played.found], "files": [str(p) for p in written]}
        )
        return
    _tell(played)
    for path in written:
        click.echo(f"Wrote {path}")


def _tell(played: Played) -> None:
    """Positions in a table; an error is known of none."""
    table = Table("case", "landmark", title="Positions in LPS mm")
    for head in ("x", "y", "z", "spread", "error"):
        table.add_column(head, justify="right")
    for entry in played.found:
        numbers = [f"{value:.2f}" for value in (*entry.world_mm, entry.spread_mm)]
        table.add_row(Text(entry.name), Text(entry.landmark), *numbers, "N/A")
    Console().print(table)
