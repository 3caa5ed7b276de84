"""Made-up sites, for ``cairn-aggregator simulate``, which starts this and speaks to it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

import click

from common.arrivals.files import read_bounded
from common.arrivals.texts import MOST_TEXT_BYTES, json_of
from common.extras import require_extra
from common.plan import parse_plan
from common.simulation import Learner, Post

FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)


@click.command("simulate-sites")
@click.argument("plan_file", metavar="PLAN", type=click.Path(path_type=Path))
@click.option("--folder", required=True, type=FOLDER, help="Where each site gets its own.")
@click.option("--post", required=True, type=FOLDER, help="Where orders and replies lie.")
@click.option("--learner", type=click.Choice(get_args(Learner)), default="none", show_default=True)
@click.option("--images", type=click.IntRange(1, 1000), default=4, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
def simulate_sites(
    plan_file: Path, folder: Path, post: Path, learner: Learner, images: int, seed: int
) -> None:
    """Hold made-up sites for `cairn-aggregator simulate`, which starts this by itself.

    PLAN is the plan's canonical JSON. Takes questions on standard input, a line each, and
    answers on standard output.
    """
    require_extra("worker")
    from site_client.simulation.hub import Hub, most_workers

    plan = parse_plan(json_of(read_bounded(plan_file, MOST_TEXT_BYTES, "the plan")))
    hub = Hub(folder, Post(post), plan, learner, images, seed, most_workers(learner))
    hub.serve(sys.stdin.buffer, sys.stdout.buffer)
