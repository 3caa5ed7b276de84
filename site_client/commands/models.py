"""Looking at the models that this site's runs came to, and taking one elsewhere."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.cli import echo_json, json_option, shown
from site_client.commands.options import FILE, site_option
from site_client.kept import Kept, KeptModels

_PARTS = {"held-out": "held out", "training": "training"}
_DIGITS = 12


@click.group(invoke_without_command=True)
@site_option
@json_option
@click.pass_context
def models(ctx: click.Context, root: Path, *, as_json: bool) -> None:
    """List the models that federated runs came to at this site, newest first.

    \b
      cairn-site models --site-dir site
      cairn-site play --model latest --site-dir site scan.nii.gz -o found
      cairn-site evaluate --model 3f9c2a71 --site-dir site --data images/
      cairn-site models export latest --onnx model.onnx --site-dir site

    The site computed them itself, from sums that it verified; nothing was sent to it. Each is
    a folder of safetensors and JSON in worker/models, named by the digest of its weights, as
    the coordinator's `status` names it; the newest 20 are kept. A later plan may start from
    one. Errors are this site's own, beside an answer that never looks ("prior"); those on
    training cases are smaller than those on new ones. Not a medical device.

    \b
    --json: {"models": [{"weights": ..., "folder": ..., "run": ..., "plan": fingerprint,
             "plan_name": ..., "task": ..., "looks_for": [...], "unit": ..., "at": ...,
             "images": ..., "errors": [{"label", "part", "searches", "mean", "prior"}]}]}
    """  # noqa: D301 - \b is click's, and must not be an escape
    if ctx.invoked_subcommand is not None:
        ctx.obj = root
        return
    kept = KeptModels.of_site(root)
    each = kept.each()
    if as_json:
        told = [m.model_dump(mode="json") | {"folder": str(kept.place(m.weights))} for m in each]
        echo_json({"models": told})
        return
    if not each:
        click.echo("No run has come to a model here yet.")
        return
    table = Table(
        *("model", "plan", "run", "kept", "looks for", "error", "prior"),
        box=None,
        pad_edge=False,
        header_style="dim",
    )
    table.columns[0].no_wrap = True
    for model in each:
        table.add_row(*(Text(_lines(cell), overflow="fold") for cell in _cells(model)))
    Console(highlight=False).print(table)
    click.echo(
        f"Mark a scan: cairn-site play --model latest --site-dir {root} scan.nii.gz -o found"
    )


@models.command()
@click.argument("model", metavar="MODEL")
@click.option("--onnx", "file", required=True, type=FILE, help="File to write.")
@click.option(
    "--site-dir", "root", envvar="CAIRN_SITE", type=click.Path(path_type=Path, file_okay=False)
)
@json_option
@click.pass_context
def export(ctx: click.Context, model: str, file: Path, root: Path | None, *, as_json: bool) -> None:
    """Write MODEL (latest, a digest, or a folder) for programs that read ONNX.

    \b
      cairn-site models export latest --onnx model.onnx --site-dir site
      cairn-site models export model/ --onnx model.onnx      what `cairn-aggregator model` wrote

    The file is the Q-network alone: observations, level and head in, a value for every action
    out. What it is shown, where it steps and when it stops, checkpoint.json says and the
    program around it must do. What is written was first computed by the onnx package and
    compared with torch, to within 1e-5. Needs the extra "onnx".
    """  # noqa: D301 - \b is click's, and must not be an escape
    from site_client.agent.exporting import export_onnx
    from site_client.agent_app.checkpoint import open_checkpoint

    place = KeptModels.of_site(root or ctx.obj).find(model)
    _, checkpoint = open_checkpoint(place)
    exported = export_onnx(checkpoint.config, checkpoint.weights, checkpoint.origin, file)
    if as_json:
        echo_json(exported.as_dict())
        return
    click.echo(f"Wrote {file}: {exported.says}")


def _lines(cell: str) -> str:
    """Clean each line of a cell, and keep the lines."""
    return "\n".join(shown(line) for line in cell.split("\n"))


def _cells(model: Kept) -> tuple[str, ...]:
    parts = model.errors_by_part
    errors = [
        f"{mean:.2f} {model.unit} ({_PARTS[part]})" for part, (mean, _) in sorted(parts.items())
    ]
    priors = [f"{prior:.2f}" for _, (_, prior) in sorted(parts.items())]
    names = ", ".join(model.looks_for)
    return (
        model.weights[:_DIGITS],
        model.plan_name,
        model.run,
        f"{model.at:%Y-%m-%d %H:%M}",
        f"{model.task}: {names if len(names) <= 60 else names[:59] + '…'}",
        "\n".join(errors) or "not measured",
        "\n".join(priors),
    )
