"""One site is twenty times slower: ``python -m tests.benchmarks.straggler``.

Three sites with real doors and ledgers in one process, each with a clock of its own that goes
on with its gradient steps: one second each at two of them, twenty at the third, whose images
are dark where the others' are bright. Three ways through the same time on the wall:

* *wait*: every round waits for the slow site;
* *leave out*: the slow site is always late, and the others go on;
* *by time*: ``rounds.train_s``: the slow site does a twentieth, and counts as that.

Errors are of cases that were held out, per site, in mm, beside the mean position of the
training cases. Time is made up, so the machine's load changes nothing.

    python -m tests.benchmarks.straggler [--seeds 0 1 2] [--seconds 2400] [-o FILE]
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np

from aggregator.report.run import mean_mm, prior_mm
from aggregator.rounds.events import SiteReplied
from common.plan import FederationPlan, parse_plan
from site_client.worker import studies
from site_client.worker.study import Given
from tests.benchmarks.markdown import table
from tests.conftest import SMALL_PLAN, write_case
from tests.federation.conftest import Federation

SITES = ("site-a", "site-b", "site-c")
SLOW = "site-c"
SECONDS_AN_UPDATE = {"site-a": 1.0, "site-b": 1.0, SLOW: 20.0}
CASES = 10
WAYS = ("wait", "leave out", "by time")


class Clock:
    """Goes on with the updates of one site."""

    def __init__(self, cost: float) -> None:
        self.now, self._cost = 0.0, cost

    def __call__(self) -> float:
        return self.now

    def watching(self, progress: Callable[[str, int, int], None], what: str, *n: int) -> None:
        if what == "training":
            self.now += self._cost
        progress(what, *n)


@contextmanager
def own_clocks() -> Iterator[dict[str, Clock]]:
    """Give every site's study a clock that its gradient steps drive."""
    clocks = {site: Clock(cost) for site, cost in SECONDS_AN_UPDATE.items()}

    def given(data: Path, parts: object, progress: object, folder: Path, **more: object) -> Given:
        clock = clocks[data.name]
        return Given(data, parts, partial(clock.watching, progress), folder, clock=clock, **more)

    with mock.patch.object(studies, "Given", given):
        yield clocks


@dataclass(frozen=True)
class Outcome:
    """One run.

    Attributes:
        seconds: the most that a site which counted was busy: the time on the wall.
        rounds: of training.
        slow_rounds: in which the slow site counted.
        error: of the held-out cases, mm, by site.
        prior: of the mean position, likewise.
    """

    seconds: float
    rounds: int
    slow_rounds: int
    error: dict[str, float]
    prior: dict[str, float]


def plan_of(way: str, seed: int, seconds: float) -> FederationPlan:
    """The plan that fits a way into the time."""
    round_s = 200.0
    slowest = max(SECONDS_AN_UPDATE.values())
    rounds = int(seconds // round_s) if way != "wait" else 4
    updates = int(seconds / slowest) if way == "wait" else int(rounds * round_s)
    course = {"training": rounds, "quorum": 2, "deadline_s": 3600.0}
    if way == "by time":
        course["train_s"] = round_s
    learner = SMALL_PLAN["learner"] | {"updates": updates, "replay": "uniform"}
    return parse_plan(SMALL_PLAN | {"seed": seed, "rounds": course, "learner": learner})


def write_images(folder: Path, site: str, seed: int) -> None:
    """Heads of a site; at the slow one bright is dark."""
    first = 100 * seed + CASES * SITES.index(site)
    for number in range(CASES):
        rng = np.random.default_rng([seed, first + number])
        write_case(folder, f"{site}-{number}", int(rng.integers(0, 8)))
        if site == SLOW:
            _darken(folder / f"{site}-{number}.nii.gz")


def _darken(path: Path) -> None:
    import SimpleITK as sitk  # noqa: N813

    image = sitk.ReadImage(str(path))
    dark = sitk.GetImageFromArray((255 - sitk.GetArrayFromImage(image)).astype(np.int16))
    dark.CopyInformation(image)
    sitk.WriteImage(dark, str(path))


def run(way: str, seed: int, seconds: float, root: Path) -> Outcome:
    """Conduct one run to its end."""
    federation = Federation(root)
    for site in SITES:
        write_images(federation.add_site(site, images=0).data(), site, seed)
    plan = plan_of(way, seed, seconds)
    store = federation.create_run(plan, min_sites=2)
    transport = federation.transport()
    trained = range(1, plan.rounds.training + 1)
    with own_clocks() as clocks:
        if way == "leave out":
            _late_in_training(transport, SITES.index(SLOW) + 100, trained)
        finished = federation.conduct(store, transport)
    if finished.verdict == "FAILED":
        raise RuntimeError(finished.reason)
    replies = [e for e in federation.events(store) if isinstance(e, SiteReplied)]
    last = [e for e in replies if e.round == plan.rounds.training + 1]
    counted = {e.site for e in replies if e.round in trained and e.accepted}
    return Outcome(
        max(clocks[site].now for site in counted),
        plan.rounds.training,
        sum(e.site == SLOW and e.round in trained and e.accepted for e in replies),
        {e.site: mean_mm(e.errors, "held-out") or 0.0 for e in last},
        {e.site: prior_mm(e.errors, "held-out") or 0.0 for e in last},
    )


def _late_in_training(transport, node: int, rounds: range) -> None:
    """Let a node's replies to training orders come too late; the rest of the run it is there."""
    send, sent = transport.send, iter(range(rounds.stop + 1))

    def sending(parcels, deadline_s):
        transport.silent = {node} if next(sent) in rounds else set()
        send(parcels, deadline_s)

    transport.send = sending


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=2400.0)
    parser.add_argument("-o", "--output", type=Path)
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    found: dict[str, list[Outcome]] = {way: [] for way in WAYS}
    for seed in asked.seeds:
        for way in WAYS:
            with tempfile.TemporaryDirectory() as folder:
                outcome = run(way, seed, asked.seconds, Path(folder))
            found[way].append(outcome)
            print(way, seed, outcome, flush=True)
    rows = []
    for way, outcomes in found.items():
        rows.append(
            [
                way,
                " · ".join(f"{o.seconds:,.0f}" for o in outcomes),
                " · ".join(f"{o.slow_rounds} of {o.rounds}" for o in outcomes),
                *(" · ".join(f"{o.error[site]:.2f}" for o in outcomes) for site in SITES),
                f"{statistics.mean(statistics.mean(o.error.values()) for o in outcomes):.2f}",
                f"{statistics.mean(statistics.mean(o.prior.values()) for o in outcomes):.2f}",
            ]
        )
    head = ["way", "seconds (made up)", "rounds with the slow site"]
    head += [*(f"{site}, mm" for site in SITES), "mean, mm", "mean position, mm"]
    text = table(head, rows)
    print(text)
    if asked.output:
        seeds = ", ".join(map(str, asked.seeds))
        asked.output.write_text(
            "# A site that is twenty times slower\n\n"
            f"`python -m tests.benchmarks.straggler`, seeds {seeds} (a figure for each): "
            f"{CASES} made heads a site, held-out cases, {asked.seconds:,.0f} made-up seconds. "
            f"{SLOW} takes 20 s for an update, the others 1 s, and its images are dark where "
            "theirs are bright. *Wait* makes as many updates at every site as the slow one can; "
            "*leave out* goes on without it; *by time* is `rounds.train_s`.\n\n" + text + "\n",
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
