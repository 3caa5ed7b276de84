"""``python -m tests.fuzz``: a campaign in several processes, and its outcome as a page.

Each process has its own seed, drawn from the given one; a failure names the seed of its
process, and its bytes lie beside the page.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.fuzz.campaign import MOST_GROWN_MIB, Outcome, run_all


def main(words: Sequence[str] | None = None) -> int:
    """Run a campaign; 1 if anything failed.

    Args:
        words: the command line; this process's when omitted.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("-o", "--output", type=Path, help="write the page there")
    options = parser.parse_args(words)
    share = -(-options.cases // options.processes)
    jobs = [(options.seed * 1000 + number, share) for number in range(options.processes)]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        outcomes = pool.starmap(run_all, jobs)
        # Processes that are ended, and do not end, leave their folders behind.
        pool.close()
        pool.join()
    text = page(jobs, outcomes)
    print(text)  # noqa: T201 - a command of its own
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text, encoding="utf-8")
    failed = [outcome for outcome in outcomes if outcome.failed]
    for outcome in failed:
        for (reader, code), (_, data, _) in outcome.failures.items():
            name = f"{reader.replace(' ', '-')}-{code}.bin"
            (options.output.parent if options.output else Path()).joinpath(name).write_bytes(data)
    return 1 if failed else 0


def page(jobs: Sequence[tuple[int, int]], outcomes: Sequence[Outcome]) -> str:
    """Write down what came of a campaign, reader by reader."""
    tried, accepted, refused = Counter[str](), Counter[str](), Counter[str]()
    lines = []
    for (seed, _), outcome in zip(jobs, outcomes, strict=True):
        tried.update(outcome.tried)
        accepted.update(outcome.accepted)
        for (reader, _), times in outcome.refused.items():
            refused[reader] += times
        lines += [
            f"| {reader} | {code} | {times} | {seed} | {why} |"
            for (reader, code), (times, _, why) in sorted(outcome.failures.items())
        ]
    cases = sum(outcome.cases for outcome in outcomes)
    seconds = max(outcome.seconds for outcome in outcomes)
    grown = max(outcome.grown_mib for outcome in outcomes)
    rows = [
        f"| {name} | {tried[name]:,} | {refused[name]:,} | {accepted[name]:,} |"
        for name in sorted(tried)
    ]
    failures = ["| reader | code | times | seed | what |", "|---|---|---|---|---|", *lines]
    return "\n".join(
        [
            "# Mutated messages against every reader",
            "",
            f"`make fuzz`, {datetime.now(UTC):%Y-%m-%d}: {cases:,} cases in {seconds:,.0f} s in "
            f"{len(jobs)} processes (seeds {', '.join(str(seed) for seed, _ in jobs)}), "
            f"**{len(lines)} kinds of undeclared exception**, peak memory grown by {grown} MiB "
            f"a process (at most {MOST_GROWN_MIB}).",
            "",
            "Accepted are also mutations that change nothing that is read, and notes of our own "
            "whose reader says None for what it cannot read.",
            "",
            *(failures if lines else []),
            *([""] if lines else []),
            "| reader | tried | refused | accepted |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
