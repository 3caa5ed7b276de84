"""``cairn-site play``: search images of which nothing is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from common.cli import echo_json, json_option
from common.errors import UsageError
from site_client.agent_app.commands.changes import changed
from site_client.agent_app.commands.options import ANY, FOLDER, chosen, set_option, with_model
from site_client.console import Meter
from site_client.files import plain
from site_client.kinds.tables import print_texts

if TYPE_CHECKING:
    from site_client.agent_app.playing import Played


@click.command()
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=ANY)
@with_model
@click.option("-o", "--output", type=FOLDER, help="Folder for positions and films.")
@click.option(
    "--gif", is_flag=True, help="Film one search per image and landmark, box, plane or pair."
)
@click.option("--mp4", is_flag=True, help="The same as MP4; needs an ffmpeg program.")
@set_option
@json_option
def play(
    images: tuple[Path, ...],
    checkpoint_path: Path | None,
    model: str | None,
    site_dir: Path,
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
      cairn-site play --model latest --site-dir site new.nii.gz -o found
      cairn-site play --checkpoint lesions new.nii.gz -o found     boxes, with scores
      cairn-site play --checkpoint aligner FIXED MOVING -o found   a rigid transform

    --model latest is what the newest federated run came to at this site; `cairn-site models`
    lists all. Images are then read as the site's worker/data.toml says.

    The folder gets <case>.mrk.json (opens in 3D Slicer) and predictions.csv; the error
    column says N/A. "Spread" is how far the searches ended from what they agree on: a
    large one is a warning, a small one no proof. Where the run kept the federation's
    experience, "met" says how much of it lies in places no more familiar than this one,
    and below 2 % play warns. Not a medical device.

    After a training with task.crops every landmark has a score, 0 to 1, of how sure it is that
    the image does not show it; from one half on it is reported as absent, and marked
    "missing" in its .mrk.json.

    Boxes: predictions.csv, and ROI markups of volumes. A plane: <case>.mrk.json. Two
    images: FIXED_MOVING.tfm (ITK; maps points of FIXED to MOVING, as resampling MOVING
    onto FIXED wants it). All of them also as predictions.json.
    """  # noqa: D301 - \b is click's, and must not be an escape
    from site_client.agent.networks import keep_freed_memory
    from site_client.agent_app.checkpoint import open_checkpoint
    from site_client.agent_app.playing import cases_to_play, familiar_places
    from site_client.agent_app.playing import play as search
    from site_client.imaging.films import require_ffmpeg, write_films

    if (gif or mp4) and output is None:
        raise UsageError("films need a folder", expected="-o DIR")
    ffmpeg = require_ffmpeg() if mp4 else None
    named = chosen(checkpoint_path, model, site_dir)
    place, checkpoint = open_checkpoint(named.place)
    config = changed(named.config(checkpoint.config), changes)
    keep_freed_memory()
    with Meter() as meter:
        cases = cases_to_play(images, checkpoint, config, meter)
        played = search(checkpoint, config, cases, familiar_places(place, checkpoint))
        written = [] if output is None else played.write(output)
        if output is not None and (gif or mp4):
            written += write_films(output, played.films(), gif=gif, ffmpeg=ffmpeg)
    if as_json:
        echo_json(plain({**played.as_dict(), "files": [str(path) for path in written]}))
        return
    _tell(played)
    for path in written:
        click.echo(f"Wrote {path}")


def _tell(played: Played) -> None:
    """Print what was found in a table; an error is known of nothing."""
    findings = played.answers.findings
    if not findings:
        click.echo(played.kind.nothing)
        return
    rows = [played.kind.row(finding) for finding in findings]
    texts = [list(row.values()) for row in rows]
    title = played.kind.title.format(count=len(findings))
    print_texts(title, list(rows[0]), texts, names=played.kind.texts)
    for warning in played.answers.warnings:
        click.echo(f"Warning: {warning}", err=True)
