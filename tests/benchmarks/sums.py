"""Cost of a round's tags and sums beside SHA-256: ``python -m tests.benchmarks.sums``.

Processor seconds of one thread, medians of turns taken one after the other in one run,
with the machine's load. The peer, SHA-256 of the same bytes, is what a site pays anyway
to name them in its ledger; it proves nothing about a sum.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import time
from collections.abc import Callable

import numpy as np

from common.crypto.keyed import FederationKey
from common.sums.tags import add_tags, holds, make_tag

CASES = (
    ("the demonstration's weights", 187_404, 3),
    ("its weights and experience table", 287_404, 3),
    ("three tables of 16 x 200,000", 9_600_000, 3),
    ("ten million weights, 20 sites", 10_000_000, 20),
)


def cpu(work: Callable[[], object]) -> float:
    """Processor seconds of one call."""
    began = time.thread_time()
    work()
    return time.thread_time() - began


def measure(n: int, sites: int, turns: int) -> dict[str, float]:
    """Medians over turns: tag of one site, check of the sum, adding, and the peer."""
    rng = np.random.default_rng(n)
    key = FederationKey(bytes(16))
    vector = rng.integers(-(2**40), 2**40, n)
    names = [f"site-{i}" for i in range(sites)]
    tag = make_tag(key, "c", names[0], [vector])
    total = vector * sites
    tags = [make_tag(key, "c", name, [vector]) for name in names] if n < 10**6 else [tag] * sites
    figures: dict[str, list[float]] = {"tag": [], "check": [], "add": [], "sha256": []}
    for _ in range(turns):
        figures["tag"].append(cpu(lambda: make_tag(key, "c", names[0], [vector])))
        figures["check"].append(cpu(lambda: holds(key, "c", names, [total], add_tags(tags))))
        figures["add"].append(cpu(lambda: np.add(vector, vector)))
        figures["sha256"].append(cpu(lambda: hashlib.sha256(vector.tobytes()).digest()))
    return {name: statistics.median(seconds) for name, seconds in figures.items()}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    turns = parser.parse_args().turns
    measure(1000, 3, 1)  # compile
    print(f"load {os.getloadavg()[0]:.2f}, {os.cpu_count()} processors, medians of {turns} turns")
    print(
        f"{'vector':36} {'tag s':>8} {'check s':>8} {'add s':>8} {'sha256 s':>9} {'tag/sha256':>11}"
    )
    for what, n, sites in CASES:
        found = measure(n, sites, turns)
        ratio = found["tag"] / found["sha256"]
        print(
            f"{what:36} {found['tag']:8.4f} {found['check']:8.4f} {found['add']:8.4f} "
            f"{found['sha256']:9.4f} {ratio:11.2f}"
        )


if __name__ == "__main__":
    main()
