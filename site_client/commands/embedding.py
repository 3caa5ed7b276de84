"""``cairn-site embed``: slides mapped with a codebook, on one machine alone."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.cli import echo_json, json_option
from common.reporter import Reporter
from site_client.commands.options import FILE, site_option
from site_client.site import SiteFolder


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
