"""``make demo-pixels``: three sites and an aggregator make a codebook of a scene together.

Types the same commands that a coordinator, three sites and an auditor would type; what
it adds is the data, the names of the clusters, and the comparison with the truth.
"""

from __future__ import annotations

import json
import shlex
import signal
import sys
import time
import tomllib
from pathlib import Path
from typing import Final

import click
import numpy as np
import tomli_w

from aggregator.report.extras import LedgerVerdict
from common.canonical import sha256_hex
from common.errors import InternalError
from common.keys.codebook import Codebook
from common.keys.key_counts import KeyCounts
from common.keys.pixel_agreement import read_component_codec
from common.plan import FederationPlan
from deploy.demo.__main__ import (
    LIMIT_S,
    approve,
    audit,
    clean_folder,
    enrol,
    narrate,
    start_sites,
    write_demo_key,
    write_plan,
)
from deploy.demo.processes import NICE, Processes
from deploy.demo_pixels import judge
from deploy.demo_pixels.data import (
    CLASSES,
    PARTS,
    SITES,
    Block,
    Labels,
    blocks,
    read_scene,
    slide_name,
)
from deploy.demo_pixels.picture import write_picture
from deploy.demo_pixels.summary import WHAT, FederationResults, measure

PLANS: Final = Path(__file__).resolve().parent.parent / "plans"
CLUSTERS: Final = 24
NEIGHBOURS: Final = 15

# What hospital IT would edit in policy.toml before a plan about slides is served.
_ALLOW: Final = (
    ('"RoundReport"]', '"RoundReport", "PixelStatistics", "PixelSketches", "HeavyHitters", '
     '"GroupCounts"]'),
    ('"no-op"]', '"no-op", "pixels", "embed"]'),
    ("pixels = 10_000", "pixels = 5_000"),
    ("key_pixels = 50", "key_pixels = 20"),
)  # fmt: skip


def allow_pixels(folder: Path) -> None:
    """Change every site's policy as its owner would.

    Raises:
        InternalError: the file that ``join`` writes no longer says what is changed.
    """
    for site in SITES:
        path = folder / site / "policy.toml"
        text = path.read_text(encoding="utf-8")
        for before, after in _ALLOW:
            if text.count(before) != 1:
                raise InternalError("the default policy reads differently", field=before)
            text = text.replace(before, after)
        path.write_text(text, encoding="utf-8")


def run_plan(processes: Processes, folder: Path, *words: str) -> Path:
    """Have a plan carried out, watched to its end; returns the run's folder."""
    processes.run(
        *("cairn-aggregator", "round", "start", *words, "--dir", "federation"),
        *("--min-sites", str(len(SITES)), "--watch"),
        quiet=False,
    )
    processes.require_alive()
    return max((folder / "federation" / "runs").iterdir(), key=lambda run: run.name)


def last_round(run: Path) -> Path:
    """Return the folder of what a run's last round came to."""
    return max((run / "rounds").iterdir(), key=lambda folder: folder.name)


def shown(path: Path, folder: Path) -> str:
    """Return a path as it is typed in the folder of the demonstration."""
    return str(path.relative_to(folder))


def start_codebook(processes: Processes, seed: int) -> None:
    """Begin the coordinator's part between the runs early: UMAP compiles while sites join."""
    processes.start(
        "codebook",
        *("cairn-aggregator", "codebook", "build", "keys.safetensors", "--wait", "600"),
        *("-o", "codebook.json", "--page", "codebook.html", "--points", "points.npy"),
        *("--seed", str(seed), "--clusters", f"kmeans:{CLUSTERS}"),
        *("--neighbours", str(NEIGHBOURS)),
        nice=NICE // 2,
    )


def finish_codebook(processes: Processes, folder: Path, round_folder: Path) -> None:
    """Give it the run's keys, whole."""
    part = folder / "keys.safetensors.part"
    part.write_bytes((round_folder / "keys.safetensors").read_bytes())
    part.replace(folder / "keys.safetensors")
    processes.wait("codebook", LIMIT_S)


def write_maps_plan(folder: Path, codec: bytes, book: Codebook, seed: int) -> None:
    """Write the follow-up plan with the digests and groups that now exist."""
    data = tomllib.loads((PLANS / "pixels-demo-maps.toml").read_text(encoding="utf-8"))
    data["seed"] = seed
    data["embed"] |= {
        "codec": sha256_hex(codec),
        "codebook": book.digest,
        "groups": list(book.group_names),
    }
    (folder / "maps.toml").write_text(tomli_w.dumps(data), encoding="utf-8")


def name_clusters(processes: Processes, folder: Path, codec: bytes) -> FederationResults:
    """Name the clusters by the labels, since nobody sits at the page; maps come later."""
    scene, truth = read_scene()
    exact = judge.Exact.of_scene(scene, read_component_codec(codec.decode("utf-8")))
    book = Codebook.from_bytes((folder / "codebook.json").read_bytes())
    clusters = judge.clusters_of(exact, book)
    everywhere = np.ones(truth.shape, np.bool_)
    kinds = judge.majority(clusters, truth, book.cluster_count, everywhere)
    words = [word for group in judge.group_words(kinds) for word in ("--group", group)]
    processes.run(
        *("cairn-aggregator", "codebook", "label", "codebook.json", *words),
        *("-o", "labelled.json"),
    )
    labelled = Codebook.from_bytes((folder / "labelled.json").read_bytes())
    keys = KeyCounts.from_bytes((folder / "keys.safetensors").read_bytes())
    return FederationResults(keys, exact, labelled, kinds, np.zeros_like(truth), truth)


def collect_maps(folder: Path, results: FederationResults, run: str) -> Labels:
    """Return the sites' maps as kinds of ground, put together; checked against exact keys.

    Raises:
        InternalError: a map is missing, or is not what the codebook says of its slide.
    """

    def place(block: Block) -> Path:
        home = folder / SITES[block.site] / "worker" / "maps" / run
        return home / f"{slide_name(block)}.mha"

    shape = (results.truth.shape[0], results.truth.shape[1])
    joined = judge.join_maps(shape, {block.name: place(block) for block in blocks(*shape)})
    expected = results.book.groups(results.exact.keys)[results.exact.of] + np.uint8(1)
    if not np.array_equal(joined, expected):
        raise InternalError("a site's map is not what the codebook says of its slide")
    numbers = np.array([0, *(CLASSES.index(name) for name in results.book.group_names)], np.uint8)
    return numbers[joined]


@click.command()
@click.option(
    "--folder",
    default="build/demo-pixels",
    show_default=True,
    type=click.Path(path_type=Path),
)
@click.option("--seed", type=click.IntRange(min=0), help="Of key and picture; default: the plan's.")
@click.option("--port", default=19_543, show_default=True, help="Loopback port of the aggregator.")
def demo(folder: Path, seed: int | None, port: int) -> None:
    """Run three sites and an aggregator here, from 200-band pixels to maps; ends with map.png."""
    began = time.monotonic()
    # Whoever ends the demonstration ends its processes with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = folder.resolve()
    clean_folder(folder)
    plan = write_plan(PLANS / "pixels-demo.toml", folder / "plan.toml", seed)
    click.echo(WHAT)
    with Processes(folder) as processes:
        narrate("Cutting the scene into three sites, and a federation to join", began)
        processes.start("data", sys.executable, "-P", "-m", "deploy.demo_pixels.data", "data")
        processes.start("warmup", sys.executable, "-P", "-m", "deploy.demo_pixels.warmup")
        start_codebook(processes, plan.seed % 2**32)
        write_demo_key(folder / "federation.key", plan.seed)
        enrol(processes, folder, port, PARTS)
        allow_pixels(folder)
        approve(processes, "plan.toml")
        processes.wait("data", 300)
        processes.wait("warmup", 300)
        narrate("Starting a worker and a courier at each site", began)
        start_sites(processes)
        narrate("The coordinator starts the plan: sums, ranges, sketches, frequent keys", began)
        round_folder = last_round(run_plan(processes, folder, "plan.toml"))
        narrate("Keys become clusters, then groups", began)
        finish_codebook(processes, folder, round_folder)
        codec = (round_folder / "codec.json").read_bytes()
        results = name_clusters(processes, folder, codec)
        narrate("The codebook goes back: every site turns its slides into maps", began)
        write_maps_plan(folder, codec, results.book, plan.seed)
        approve(processes, "maps.toml")
        documents = (
            "--codec",
            shown(round_folder, folder) + "/codec.json",
            "--codebook",
            "labelled.json",
        )
        run = run_plan(processes, folder, "maps.toml", *documents)
        results.ground[...] = collect_maps(folder, results, run.name)
        narrate("The auditor checks what left each site", began)
        verdicts = audit(processes)
    used = {name: round(value, 1) for name, value in sorted(processes.cpu_s.items())}
    (folder / "logs" / "processor-seconds.json").write_text(json.dumps(used, indent=2))
    conclude(folder, plan, results, verdicts, began)


def conclude(
    folder: Path,
    plan: FederationPlan,
    results: FederationResults,
    verdicts: tuple[LedgerVerdict, ...],
    began: float,
) -> None:
    """Picture and summary.

    Raises:
        InternalError: a ledger is not intact.
    """
    summary = measure(plan, results, verdicts)
    points = np.load(folder / "points.npy", allow_pickle=False)
    kinds = results.kinds[results.book.lookup(results.keys.keys)]
    caption = (
        f"Indian Pines (AVIRIS), three sites a, b, c; {results.keys.keys.size} keys of at least "
        f"{plan.pixels.key_pixels} pixels at {plan.pixels.key_sites} sites left them. "
        f"Clusters were named by the commonest label. Remote sensing, not tissue."
    )
    write_picture(
        folder / "map.png",
        points,
        results.keys.counts,
        kinds,
        results.ground,
        results.truth,
        caption,
    )
    summary["seconds"] = round(time.monotonic() - began, 1)
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    narrate("Done", began)
    click.echo(json.dumps(summary, indent=2))
    click.echo(f"Picture: {shlex.quote(str(folder / 'map.png'))}")
    click.echo(f"Page of the clusters: {shlex.quote(str(folder / 'codebook.html'))}")
    if any(verdict.verdict != "intact" for verdict in verdicts):
        raise InternalError("a ledger of the demonstration is not intact")


if __name__ == "__main__":
    from common.cli import run as run_command

    run_command(demo)
