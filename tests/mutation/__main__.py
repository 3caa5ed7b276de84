"""How many small changes of the guarding rooms do the tests notice?

``make mutants`` draws changes by a seed, runs the tests that reach each, and writes
``deploy/results/mutants.json`` and ``MUTANTS.md``. A change that alters nothing that
anybody can observe stands in ``accepted.tsv`` with its reason and is not counted.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator

from tests.mutation.mutants import Mutant, mutants_of, mutate
from tests.mutation.reach import REPOSITORY, Reach, measure, read
from tests.mutation.running import Changed, preload, start, wait
from tests.mutation.table import Finding, accepted, write

ROOMS = {
    "egress": ("site_client/egress/*.py",),
    "ledger": ("common/ledger/*.py",),
    "wire": ("common/wire/*.py",),
    "intake": ("aggregator/intake/*.py",),
    "merging": (
        "common/sums/*.py", "aggregator/rounds/merging.py", "aggregator/rounds/answers.py",
        "aggregator/rounds/receiving.py", "aggregator/rounds/parties.py",
    ),
    "crypto": ("common/crypto/*.py",),
}  # fmt: skip
"""Name -> the files it stands for, as patterns from the top."""
SAVED_EVERY = 10
TESTS = [
    "tests/common", "tests/aggregator", "tests/attacks", "tests/federation", "tests/privacy",
    "tests/site_client/egress", "tests/site_client/courier", "tests/site_client/worker",
    "tests/site_client/keys", "tests/deploy",
]  # fmt: skip


def drawn(rooms: dict[str, tuple[str, ...]], most: int, seed: int) -> list[tuple[str, str, Mutant]]:
    """(room, module, mutant): up to ``most`` of each room, chosen by the seed."""
    chosen = []
    for room, patterns in rooms.items():
        every = [
            (room, path.relative_to(REPOSITORY).as_posix(), mutant)
            for pattern in patterns
            for path in sorted(REPOSITORY.glob(pattern))
            for mutant in mutants_of(path.read_text())
        ]
        chance = random.Random(f"{seed} {room}")
        chosen += sorted(chance.sample(every, min(most, len(every))))
    return chosen


def run(
    chosen: list[tuple[str, str, Mutant]], reach: Reach, jobs: int, most_s: float
) -> Iterator[Finding]:
    """Try every mutant, ``jobs`` at a time."""
    running: dict[int, float] = {}
    about: dict[int, tuple[str, str, Mutant]] = {}

    def one() -> Finding:
        child, outcome = wait(running)
        del running[child]
        return Finding(*about.pop(child), outcome)

    for room, module, mutant in chosen:
        tests = reach.tests_of(module, mutant.line, most_s)
        if not tests:
            yield Finding(room, module, mutant, "not reached")
            continue
        if len(running) == jobs:
            yield one()
        path = REPOSITORY / module
        name = module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        child = start(Changed(name, mutate(path.read_text(), mutant)), path, tests)
        allowed = 60 + 5 * sum(reach.seconds.get(test, 0.0) for test in tests)
        running[child] = time.monotonic() + allowed
        about[child] = (room, module, mutant)
    while running:
        yield one()


def main() -> int:
    """Run from the command line; 1 when a room is below the wanted share."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--rooms", default=",".join(ROOMS), help="which, by comma")
    parser.add_argument("--sample", type=int, default=60, help="changes a room (default 60)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--most-s", type=float, default=40.0, help="tests' seconds a change")
    parser.add_argument("--wanted", type=float, default=0.95, help="share to be noticed")
    parser.add_argument("--only", help="only modules whose path contains this")
    parser.add_argument("--again", action="store_true", help="use the reach of the last run")
    parser.add_argument("--write", action="store_true", help="write deploy/results")
    chosen_by = parser.parse_args()
    rooms = {name: ROOMS[name] for name in chosen_by.rooms.split(",")}
    folder = REPOSITORY / "build" / "mutation"
    patterns = [pattern for room in ROOMS.values() for pattern in room]
    again = chosen_by.again
    reach = read(folder) if again else measure(patterns, TESTS, folder, chosen_by.jobs)
    chosen = drawn(rooms, chosen_by.sample, chosen_by.seed)
    if chosen_by.only:
        chosen = [entry for entry in chosen if chosen_by.only in entry[1]]
    preload()
    findings: list[Finding] = []
    waived = accepted()
    target = REPOSITORY / "deploy" / "results" if chosen_by.write else folder
    share: dict[str, float] = {}
    for number, finding in enumerate(run(chosen, reach, chosen_by.jobs, chosen_by.most_s), 1):
        findings.append(finding)
        if not finding.noticed and finding.key not in waived:
            print(f"{number}/{len(chosen)} {finding}", flush=True)
        elif number % SAVED_EVERY == 0:
            print(f"{number}/{len(chosen)}", flush=True)
        # Of hours that are cut off, what was found stays.
        if number % SAVED_EVERY == 0 or number == len(chosen):
            share = write(findings, target, seed=chosen_by.seed, sample=chosen_by.sample)
    print(json.dumps(share, indent=1))
    return int(any(value < chosen_by.wanted for value in share.values()))


if __name__ == "__main__":
    sys.exit(main())
