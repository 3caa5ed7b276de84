"""What ``cairn-site evaluate`` and ``play`` print and write for boxes, planes and motions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.cli import counted, echo_json
from common.errors import UsageError
from site_client.agent_app.cases import Cases, without_truth
from site_client.agent_app.checkpoint import Checkpoint
from site_client.agent_app.config import Config
from site_client.agent_app.findings import FoundBox, FoundMotion, FoundPlane
from site_client.agent_app.kinds import REGISTRATIONS
from site_client.agent_app.measuring import (
    SearchEvaluation,
    measure_search,
    write_search_evaluation,
)
from site_client.agent_app.progress import Meter
from site_client.agent_app.results import ENOUGH_IOU, error_text, plain
from site_client.agent_app.search_playing import (
    PlayedSearch,
    play_search,
    write_played,
    write_played_films,
)
from site_client.agent_app.sources import find_source

_TITLES: Final = {"posed": "under random poses", "native": "as acquired"}


def evaluate_search(
    place: Path,
    checkpoint: Checkpoint,
    config: Config,
    cases: Cases,
    meter: Meter,
    output: Path | None,
) -> SearchEvaluation:
    """Measure, and write what was asked for."""
    evaluation = measure_search(place, checkpoint, config, cases, meter)
    if output is not None:
        write_search_evaluation(output, evaluation)
    return evaluation


def tell_evaluation(evaluation: SearchEvaluation, output: Path | None, *, as_json: bool) -> None:
    """Print what was measured."""
    if as_json:
        echo_json(plain(evaluation.as_dict()))
        return
    unit = evaluation.report.unit
    console = Console()
    for name, rows in evaluation.tables().items():
        table = _table(f"{counted(evaluation.cases, 'case')} {_TITLES[name]}, errors in {unit}")
        table.add_column("what", overflow="fold")
        for head in ("prior", "mean ± std", "median", "agreed", *evaluation.figures):
            table.add_column(head, justify="right", no_wrap=True)
        for label, row in rows.items():
            errors = [
                error_text(unit, row.prior),
                f"{error_text(unit, row.mean)} ± {error_text(unit, row.std)}",
                error_text(unit, row.median),
                error_text(unit, row.consensus),
            ]
            own = [f"{row.further[figure]:.2f}" for figure in evaluation.figures]
            table.add_row(Text(label), *errors, *own)
        console.print(table)
    if evaluation.detection:
        table = _table(f"looking all over each image; right from an IoU of {ENOUGH_IOU:g} on")
        for head in ("label", "true", "found", "recall", "precision", "mean IoU"):
            table.add_column(head, justify="left" if head == "label" else "right")
        for label, report in evaluation.detection.items():
            shares = [f"{v:.2f}" for v in (report.recall, report.precision, report.mean_iou)]
            table.add_row(Text(label), str(report.true), str(report.found), *shares)
        console.print(table)
    if output is not None:
        click.echo(f"Wrote {output / 'report.html'}, metrics.json and predictions/")


def play_command(
    images: tuple[Path, ...],
    checkpoint: Checkpoint,
    config: Config,
    output: Path | None,
    *,
    gif: bool,
    ffmpeg: str | None,
    as_json: bool,
) -> None:
    """Search images of which nothing is known, print and write what was found.

    Args:
        images: files or folders; of a registration the fixed and the moving image.
        checkpoint: whose network searches.
        config: its configuration, perhaps with other settings of evaluation.
        output: folder for what is written; None writes nothing.
        gif: film one search for each thing that is looked for.
        ffmpeg: the program that makes the same as MP4; None makes none.
        as_json: print one JSON object.

    Raises:
        UsageError: a registration of another number of images than two.
        InputDataError: an image cannot be used.
    """
    kind = config.task.kind
    with Meter() as meter:
        cases = _pair(images, config, meter) if kind in REGISTRATIONS else None
        if cases is None:
            source = find_source(images, "", config.data, kind, need_truth=False)
            cases = without_truth(replace(source, partners={}), (), config, meter)
        played = play_search(checkpoint, config, cases)
        written = [] if output is None else write_played(output, played)
        if output is not None and (gif or ffmpeg is not None):
            written += write_played_films(output, played, config, gif=gif, ffmpeg=ffmpeg)
    if as_json:
        found = [each.as_dict() for each in played.found]
        echo_json(
            plain({"cases": list(played.cases), "found": found, "files": [str(p) for p in written]})
        )
        return
    _tell_played(played)
    for path in written:
        click.echo(f"Wrote {path}")


def _pair(images: tuple[Path, ...], config: Config, meter: Meter) -> Cases:
    """The fixed and the moving image, each from its own path: both may have one name."""
    if len(images) != 2:
        raise UsageError(
            "a registration is of two images", expected="FIXED MOVING", got=f"{len(images)} paths"
        )
    kind = config.task.kind
    each = [
        without_truth(
            find_source([path], "", config.data, kind, need_truth=False), (), config, meter
        )
        for path in images
    ]
    return Cases(
        (),
        tuple(case for cases in each for case in cases.volumes),
        tuple(case for cases in each for case in cases.pictures),
    )


def _tell_played(played: PlayedSearch) -> None:
    """What was found, in a table; an error is known of nothing."""
    table = _table(f"{len(played.found)} found, mm")
    if not played.found:
        click.echo(
            "Nothing was found; box.least_score says from which score on a box is a finding."
        )
        return
    heads: tuple[str, ...] = ()
    rows: list[list[str]] = []
    for each in played.found:
        if isinstance(each, FoundBox):
            heads = ("case", "label", "lower corner", "upper corner", "score")
            corners = [_numbers(corner) for corner in each.corners_mm.tolist()]
            rows.append([each.name, each.label, *corners, f"{each.score:.2f}"])
        elif isinstance(each, FoundPlane):
            heads = ("case", "point", "normal", "spread (deg)")
            normal = _numbers(each.normal.tolist(), 3)
            point = _numbers(each.point_mm.tolist())
            rows.append([each.name, point, normal, f"{each.spread_deg:.2f}"])
        elif isinstance(each, FoundMotion):
            heads = ("fixed", "moving", "translation", "turn (deg)", "spread (mm)")
            moved = _numbers(each.motion.translation_mm.tolist())
            turn = f"{each.motion.angle_deg:.2f}"
            rows.append([*played.cases, moved, turn, f"{each.spread_mm:.2f}"])
    for head in heads:
        table.add_column(head)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def _numbers(values: list[float], digits: int = 1) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
