"""``cairn-site dry-run``: a round without a network, and what it would have let out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.cli import echo_json, json_option, megabytes
from common.errors import ExitCode
from common.plan import read_plan
from common.reporter import Reporter
from site_client.commands.options import FILE, site_option
from site_client.files import write_atomically
from site_client.site import SiteFolder

if TYPE_CHECKING:
    from site_client.exposure.findings import Exposure
    from site_client.worker.dry_run import Rehearsal


@click.command("dry-run")
@click.argument("plan_file", metavar="PLAN", type=FILE)
@click.option("--codebook", type=FILE, help="Labelled codebook, for an embed plan.")
@click.option("--codec", type=FILE, help="Its codec; default: the one a pixels run left here.")
@click.option("-o", "--page", type=FILE, help="Also write a page with a picture of every array.")
@click.option(
    "--attacks/--no-attacks",
    default=True,
    help="Also say what known attacks read out of a round of training (default). "
    "Some seconds, and at most as long as the round again.",
)
@site_option
@json_option
@click.pass_context
def dry_run(
    ctx: click.Context,
    plan_file: Path,
    codebook: Path | None,
    codec: Path | None,
    page: Path | None,
    root: Path,
    *,
    attacks: bool,
    as_json: bool,
) -> None:
    """Work a round of PLAN without a network, and show exactly what would leave.

    The same policy and the same gate as in earnest; nothing is sent, and nothing
    enters the ledger or the outbox. Then known attacks try to read images out of what
    would leave; a page (-o) shows what they got and stays at the site. Exit 3 when the
    door would refuse.
    """
    from site_client.worker.dry_run import rehearse
    from site_client.worker.rehearsal_page import RehearsalPage

    pictures, plan = RehearsalPage(), read_plan(plan_file)
    seen = None if page is None else pictures.draw
    with Reporter() as progress:
        rehearsal = rehearse(
            SiteFolder(root), plan, progress, codebook, codec, seen, attacks=attacks
        )
    if page is not None:
        write_atomically(page, pictures.render(rehearsal).encode("utf-8"))
    if as_json:
        echo_json(rehearsal.as_dict())
    else:
        tell_rehearsal(rehearsal)
        if page is not None:
            click.echo(f"Pictures: {page}")
    ctx.exit(int(ExitCode.OK if rehearsal.allowed else ExitCode.REFUSED))


def tell_rehearsal(rehearsal: Rehearsal) -> None:
    """Print what would leave, as a table, its headers, and the sum."""
    from site_client.worker.dry_run import NOISE

    table = Table(title=f"What a round of {rehearsal.plan} lets out")
    for column in ("order", "record", "bytes", "arrays", "L2 norm", "fill", "door"):
        table.add_column(column, justify="right" if column == "bytes" else "left")
    for finding in rehearsal.findings:
        arrays = "\n".join(f"{a.name} {a.dtype}{list(a.shape)}" for a in finding.arrays)
        cells = (
            finding.phase,
            finding.record_type,
            f"{finding.bytes:,}",
            arrays or "none",
            "" if finding.l2 is None else f"{finding.l2:.4g}",
            "" if finding.fill is None else f"{finding.fill:.1%}",
            finding.refusal or "may leave",
        )
        table.add_row(*(Text(cell) for cell in cells))
    Console().print(table)
    for finding in rehearsal.findings:
        click.echo(f"{finding.phase} {finding.record_type}: {json.dumps(finding.header)}")
    _tell_exposure(rehearsal.exposure)
    if rehearsal.held_out:
        click.echo(f"Held out of training: {rehearsal.held_out}.")
    click.echo(
        f"{megabytes(rehearsal.bytes)} in all; policy {rehearsal.policy_sha256[:12]}, "
        f"plan {rehearsal.plan_fingerprint[:12]}. Noise: {NOISE}. Nothing was sent or recorded."
    )


def _tell_exposure(exposure: Exposure) -> None:
    """Print what known attacks read beside what a guess gets, as a table; or why none was tried."""
    if exposure.reason:
        click.echo(f"Known attacks: not applicable; {exposure.reason}.")
        return
    table = Table(title="What known attacks read out of it")
    for column in ("attack", "got", "a guess gets", "verdict"):
        table.add_column(column)
    for line in exposure.lines():
        table.add_row(*(Text(cell) for cell in line))
    Console().print(table)
