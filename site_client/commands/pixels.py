"""``cairn-site pixels``: the passes over this site's slides, shared out to several machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from common.cli import echo_json, json_option
from common.extras import require_extra
from common.reporter import Reporter
from site_client.commands.options import FILE, FOLDER, site_option
from site_client.site import SiteFolder

if TYPE_CHECKING:
    from site_client.worker.slide_shards import ShardWords

_PHASES = ("survey", "range", "sketch")


@click.group()
def pixels() -> None:
    """Count slides on several machines, and put what they counted together.

    \b
    On a Slurm array, a Kubernetes Job, or by hand, each with the same site folder:
      cairn-site pixels count --shard 1/4 --site-dir site
      …
      cairn-site pixels count --shard 4/4 --site-dir site
      cairn-site pixels merge --site-dir site

    With `slides = "shards"` in site.toml the worker waits for the merged result and
    answers the order with it. Results of slides hold keys: they stay in worker/pixels.
    """  # noqa: D301 - \b is click's, and must not be an escape


def _task_options(command: click.decorators.FC) -> click.decorators.FC:
    for option in (
        click.option(
            "--results",
            type=FOLDER,
            help="Where results of slides are kept. Default: worker/pixels below the site.",
        ),
        click.option("--codec", type=FILE, help="Of the order (JSON); with --plan."),
        click.option(
            "--phase", type=click.Choice(_PHASES), help="With --plan: what is looked for."
        ),
        click.option(
            "--plan", "plan_file", type=FILE, help="Default: the order that the worker is at."
        ),
    ):
        command = option(command)
    return command


@pixels.command()
@click.option("--shard", default="1/1", show_default=True, metavar="I/N", help="Which of all.")
@click.option("--threads", type=click.IntRange(1, 64), help="Default: slide_threads of site.toml.")
@click.option("--engine", type=click.Choice(("here", "dask")), default="here", show_default=True)
@click.option("--shards", type=click.IntRange(1, 10_000), help="With dask: how many.")
@click.option("--scheduler", metavar="tls://HOST:PORT", help="With dask: of this hospital.")
@click.option("--tls-ca", type=FILE, help="With dask: the authority of the cluster (PEM).")
@click.option("--tls-cert", type=FILE, help="With dask: our certificate (PEM).")
@click.option("--tls-key", type=FILE, help="With dask: its key (PEM).")
@_task_options
@site_option
@json_option
def count(
    shard: str,
    threads: int | None,
    engine: str,
    shards: int | None,
    scheduler: str | None,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    plan_file: Path | None,
    phase: str | None,
    codec: Path | None,
    results: Path | None,
    root: Path,
    *,
    as_json: bool,
) -> None:
    """Look through the slides of one shard, and keep what was found in each.

    What an earlier, interrupted call kept is not counted again, if plan, codec, key and
    every byte of the slide are the same.

    With --engine dask all shards are counted by the workers of a Dask cluster, which have
    this release and see the same folders under the same paths.
    """
    require_extra("worker")
    from site_client.worker.slide_shards import count_shard, open_pass

    words = _words(root, plan_file, phase, codec, results, threads)
    whole = open_pass(words)
    with Reporter() as progress:
        if engine == "dask":
            from site_client.commands.on_dask import Cluster, count_on

            if None in (shards, scheduler, tls_ca, tls_cert, tls_key) or shard != "1/1":
                raise click.UsageError(
                    "--engine dask needs --shards, --scheduler, --tls-ca, --tls-cert, --tls-key, "
                    "and no --shard."
                )
            files = [path or Path() for path in (tls_ca, tls_cert, tls_key)]
            done = count_on(Cluster(scheduler or "", *files), words, shards or 1, progress)
            shard = f"1 to {shards}"
        else:
            done = count_shard(SiteFolder(root), whole, shard, progress)
    if as_json:
        echo_json({"slides": done.slides, "pixels": done.pixels, "shard": shard})
        return
    click.echo(f"Shard {shard}: {done.slides} slides, {done.pixels:,} pixels, in {whole.folder}")


@pixels.command()
@click.option(
    "--from",
    "folders",
    multiple=True,
    type=FOLDER,
    help="Where shards kept their results; default: the folder that all shared. Repeatable.",
)
@_task_options
@site_option
@json_option
def merge(
    folders: tuple[Path, ...],
    plan_file: Path | None,
    phase: str | None,
    codec: Path | None,
    results: Path | None,
    root: Path,
    *,
    as_json: bool,
) -> None:
    """Put all shards of a pass together, for the worker's answer.

    Equal in every bit to one process. Refused, by name: shards that are missing or there
    twice, of another plan, codec or key, or that saw other slides.
    """
    require_extra("worker")
    from site_client.worker.slide_shards import merge_shards, open_pass

    whole = open_pass(_words(root, plan_file, phase, codec, results, None))
    done, target = merge_shards(whole, folders)
    if as_json:
        echo_json({"slides": done.slides, "pixels": done.pixels, "merged": str(target)})
        return
    click.echo(f"Merged {done.slides} slides, {done.pixels:,} pixels: {target}")


def _words(
    root: Path,
    plan_file: Path | None,
    phase: str | None,
    codec: Path | None,
    results: Path | None,
    threads: int | None,
) -> ShardWords:
    from site_client.worker.slide_shards import ShardWords

    if plan_file is None and (phase is not None or codec is not None):
        raise click.UsageError("--phase and --codec go with --plan.")
    if plan_file is not None and phase is None:
        raise click.UsageError("--plan needs --phase.")
    paths = [None if path is None else str(path.resolve()) for path in (plan_file, codec, results)]
    return ShardWords(str(root.resolve()), paths[0], phase, paths[1], paths[2], threads)
