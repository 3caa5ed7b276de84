"""Planning a federation before anybody is asked: what would a plan cost with so many sites?"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import get_args

import click
from rich.console import Console

from common.cli import echo_json, json_option
from common.plan import read_plan
from common.reporter import Reporter
from common.simulation import Learner

FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)


@click.command()
@click.argument("plan_file", metavar="PLAN", type=click.Path(path_type=Path))
@click.option("--sites", type=click.IntRange(1), required=True, help="How many sites to make up.")
@click.option(
    "--learner",
    type=click.Choice(get_args(Learner)),
    default="none",
    show_default=True,
    help="none: answers of the right size, at once; agent: it trains on made-up images.",
)
@click.option("--rounds", type=click.IntRange(1), help="Rounds of training, not the plan's.")
@click.option(
    "--relays",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Relays that stand between: each collects and adds up its share of the sites.",
)
@click.option("--images", type=click.IntRange(1, 1000), default=4, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option(
    "--processes",
    type=click.IntRange(1, 256),
    default=lambda: os.cpu_count() or 1,
    show_default="one a processor",
    help="Processes that hold the sites.",
)
@click.option(
    "--folder",
    type=FOLDER,
    help="Where to work; a memory disk such as /dev/shm saves the disk's waits.",
)
@click.option("--keep", is_flag=True, help="Keep the folder: ledgers, archives and the journal.")
@json_option
@click.pass_context
def simulate(
    context: click.Context,
    plan_file: Path,
    sites: int,
    learner: Learner,
    rounds: int | None,
    relays: int,
    images: int,
    seed: int,
    processes: int,
    folder: Path | None,
    *,
    keep: bool,
    as_json: bool,
) -> None:
    """Carry PLAN out with made-up sites on this machine, and say what it costs.

    Real doors, ledgers and merges, no network: what a federation of so many sites takes in
    time, bytes, memory and disk. The sites keep to the policy that a site begins with; nobody
    has to approve. Needs the extra "worker" beside this, for the sites; nothing is left
    behind without --keep.

    With --relays the sites are put behind so many relays, as above some hundred sites they
    should be. A relay passes on who answered and what each site proves, and one sum of the
    sites that the aggregator chose: the same model, to the last bit. The relays work in this
    process, one after the other; what went between them and the aggregator is counted.

    \b
    --json; fields are added and never renamed:
      sites, seed, processes, learner, plan, fingerprint, verdict, reason, model_sha256
      made_s, aggregator_peak_bytes, sites_peak_bytes, federation_bytes, site_bytes, load
      relays, relay_bytes (disk of one)
      phases   [{round, phase, sites, seconds, aggregator_s, sites_s, order_bytes,
                 reply_bytes, peak_bytes, down_bytes, up_bytes}]   seconds of the clock, _s
                 of processors; order and reply of the sites, down and up of the relays

    Exit codes: as the run's; 0 also where not every site was always there.
    """  # noqa: D301 - \b is click's, and must not be an escape
    from aggregator.simulation.figures import phase_table, summary
    from aggregator.simulation.simulate import Simulation, plan_for
    from aggregator.simulation.simulate import simulate as carry_out

    plan = plan_for(read_plan(plan_file), learner, rounds)
    simulation = Simulation(plan, sites, learner, images, seed, min(processes, sites), relays)
    place = Path(tempfile.mkdtemp(prefix="cairn-simulate-", dir=folder))
    try:
        with Reporter() as progress:
            outcome = carry_out(simulation, place, progress)
    finally:
        if keep:
            click.echo(f"Kept: {place}", err=True)
        else:
            shutil.rmtree(place)
    if as_json:
        echo_json(outcome.as_dict())
    else:
        Console().print(phase_table(outcome))
        for line in summary(outcome):
            click.echo(line)
    context.exit(outcome.exit_code)
