"""Run many schedules: ``python -m tests.simulation --seeds 0:1000``.

Every schedule can be played again by its seed: ``--replay 17`` tells it as a story.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

from tests.simulation.faults import AGGREGATOR, Fault, drawn
from tests.simulation.laws import broken
from tests.simulation.world import Template, World


@dataclass(frozen=True)
class Outcome:
    """What came of one schedule.

    Attributes:
        restored: machines that were put back, each as often as it was.
        words: how often a person said so.
    """

    seed: int
    faults: tuple[Fault, ...]
    verdict: str
    whole: bool
    crashes: int
    restored: tuple[str, ...]
    words: int
    breaches: tuple[str, ...]
    story: tuple[str, ...]


def simulate(seed: int, scratch: Path) -> Outcome:
    """Play one schedule in a folder of this process."""
    logging.disable(logging.CRITICAL)  # refusals are what is tested here
    template = _template(scratch / str(os.getpid()))
    faults = drawn(seed, template.sites, template.exchanges)
    with tempfile.TemporaryDirectory(dir=template.root.parent) as folder:
        world = World(template, Path(folder) / "world", faults, seed)
        world.run()
        breaches = tuple(broken(world))
        verdict = world.finished.verdict if world.finished else "none"
        whole = world.finished is not None and world.whole()
        return Outcome(
            seed,
            faults,
            verdict,
            whole,
            world.crashes,
            tuple(fault.party for fault in sorted(world.backups.used)),
            len(world.words),
            breaches,
            tuple(world.story),
        )


def main() -> int:
    """Run from the command line; 1 when a law was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", default="0:100", help="FIRST:END, END not included")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one line per schedule")
    parser.add_argument("--replay", type=int, help="tell one schedule as a story")
    asked = parser.parse_args()
    # In memory, where a sync is cheap: what it would cost is not simulated. Made and removed
    # here, for the processes of a pool end without clearing up.
    memory = Path("/dev/shm")
    place = memory if memory.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="cairn-simulation-", dir=place) as scratch:
        if asked.replay is not None:
            return _tell(simulate(asked.replay, Path(scratch)))
        return _run(asked, Path(scratch))


def _run(asked: argparse.Namespace, scratch: Path) -> int:
    """Play many schedules and say what came of them."""
    first, _, end = asked.seeds.partition(":")
    began = time.monotonic()
    seeds = range(int(first), int(end or int(first) + 1))
    verdicts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    crashes = words = 0
    restored: Counter[str] = Counter()
    failed = []
    for number, outcome in enumerate(_outcomes(seeds, asked.jobs, scratch), 1):
        verdicts[outcome.verdict] += 1
        crashes += outcome.crashes
        words += outcome.words
        restored.update("aggregators" if p == AGGREGATOR else "sites" for p in outcome.restored)
        kinds.update({fault.kind for fault in outcome.faults})
        if outcome.breaches:
            failed.append(outcome.seed)
            print(f"seed {outcome.seed}:", *outcome.breaches, sep="\n  ", flush=True)
        if asked.json:
            print(json.dumps(asdict(outcome)), flush=True)
        elif sys.stderr.isatty():
            print(f"\r{number} of {len(seeds)}", end="", file=sys.stderr, flush=True)
    print(
        f"{len(seeds)} schedules in {time.monotonic() - began:.0f} s: "
        + ", ".join(f"{count} {name}" for name, count in verdicts.most_common())
        + f"; {crashes} crashes"
    )
    print(
        f"put back: {restored['sites']} sites, {restored['aggregators']} aggregators; "
        f"people spoke {words} times"
    )
    print("faults: " + ", ".join(f"{kind} in {count}" for kind, count in sorted(kinds.items())))
    if failed:
        print(f"laws were broken by {len(failed)}: seeds {', '.join(map(str, failed))}")
    else:
        print("no law was broken")
    return int(bool(failed))


def _outcomes(seeds: range, jobs: int, scratch: Path) -> Iterator[Outcome]:
    play = partial(simulate, scratch=scratch)
    if jobs == 1:
        yield from map(play, seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(play, seeds, chunksize=4)


def _tell(outcome: Outcome) -> int:
    for fault in outcome.faults:
        print(fault)
    print(*outcome.story, sep="\n")
    print(f"{outcome.verdict}; laws broken: {len(outcome.breaches)}")
    print(*outcome.breaches, sep="\n")
    return int(bool(outcome.breaches))


@cache
def _template(root: Path) -> Template:
    """One template per process."""
    root.mkdir()
    return Template.make(root)


if __name__ == "__main__":
    sys.exit(main())
