"""Does averaging help? Federated against local-only training on the demonstration's data.

``python -m tests.benchmarks.agent_learning --seeds 0 1 2 --json`` writes the
demonstration's data for every seed, trains its plan's federation in this process
(FedAvg of the online weights every round), each site alone with as many updates,
and evaluates all of them on the same held-out subjects, under random poses,
beside the constant mean-position predictor.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from common.model import Weights
from common.plan import FederationPlan, parse_plan, read_plan
from common.sums.averaging import Deltas, moved, with_momentum
from deploy.demo.data import write_demo_data
from site_client.agent.experience import NewExperience, Tally
from site_client.agent.federated import evaluate_weights, planned_learner
from site_client.imaging.case_sets import Cases
from site_client.worker.site_cases import SiteCases, read_site_cases

PLAN = Path(__file__).parents[2] / "deploy" / "plans" / "demo.toml"
POSES = 4


def make_data(seed: int, plan: FederationPlan) -> tuple[list[SiteCases], SiteCases, float]:
    """Each site's cases, the held-out cases, CPU seconds spent."""
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        data = write_demo_data(Path(folder), seed)
        sites = [read_site_cases(site, plan, silent) for site in data.sites]
        heldout = read_site_cases(data.heldout, plan, silent)
    return sites, heldout, time.process_time() - start


def silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""


def of_all(sites: list[SiteCases], plan: FederationPlan) -> SiteCases:
    """All sites' cases together, as no federation ever sees them."""
    volumes = tuple(case for site in sites for case in site.cases.volumes)
    return SiteCases(Cases(plan.task.landmarks, volumes=volumes), plan)


class Met:
    """What all sites met or replayed, as merged sketches without collisions tell it."""

    def __init__(self) -> None:
        self._tally, self._any = Tally(), False

    def known(self, plan: FederationPlan):
        """What a plan's replay asks; None before anything was told."""
        if not self._any:
            return None
        return self._tally.mean_errors if plan.counts == "errors" else self._tally.of

    def add(self, told: NewExperience) -> None:
        errors = told.errors if len(told.errors) else None
        self._tally.add(told.keys, errors)
        self._any = self._any or len(told.keys) > 0


def mean_delta(merged: Weights, sites: list[Weights]) -> Deltas:
    """Mean step away from ``merged``; every site holds as many cases. Doors and wires apart."""
    return {
        name: np.mean([site[name].astype(np.float64) - start for site in sites], axis=0)
        for name, start in merged.items()
    }


def train_federated(plan: FederationPlan, sites: list[SiteCases], seed: int) -> Weights:
    learners = [planned_learner(plan, site.task, seed * 100 + k) for k, site in enumerate(sites)]
    merged, velocity = learners[0].weights(), {}
    met = Met()
    for round_ in range(1, plan.rounds.training + 1):
        known = met.known(plan)
        for learner in learners:
            learner.load(merged)
            learner.train(plan.updates_in(round_), known)
        step = mean_delta(merged, [learner.weights() for learner in learners])
        if plan.rounds.server_momentum:
            step, velocity = with_momentum(step, velocity, plan.rounds.server_momentum)
        merged = moved(merged, step)
        for learner in learners:
            met.add(learner.new_experience())
    return merged


def train_alone(plan: FederationPlan, cases: SiteCases, seed: int) -> Weights:
    learner = planned_learner(plan, cases.task, seed)
    met = Met()
    for round_ in range(1, plan.rounds.training + 1):
        learner.train(plan.updates_in(round_), met.known(plan))
        met.add(learner.new_experience())
    return learner.weights()


def measure(plan: FederationPlan, seed: int) -> dict:
    plan = parse_plan(plan.model_dump() | {"seed": plan.seed + seed})
    sites, heldout, data_s = make_data(seed, plan)
    prior = of_all(sites, plan).prior
    start = time.process_time()
    federated = train_federated(plan, sites, seed)
    train_s = (time.process_time() - start) / len(sites)
    start = time.process_time()
    measured = partial(
        evaluate_weights,
        plan=plan,
        task=heldout.task,
        seed=1000 + seed,
        prior=prior,
        poses=POSES,
        native=True,
    )
    reports = [measured(federated)]
    evaluation_s = time.process_time() - start
    for k, cases in enumerate(sites):
        alone = train_alone(plan, cases, seed * 100 + k)
        reports.append(measured(alone))
    fed, *local = reports
    return {
        "seed": seed,
        "prior_mm": fed.prior,
        "federated_mm": fed.mean,
        "federated": fed.as_dict(),
        "local_mm": [report.mean for report in local],
        "local": [report.as_dict() for report in local],
        "data_cpu_s": data_s,
        "train_cpu_s_per_site": train_s,
        "ms_per_update": 1000 * train_s / plan.learner.updates,
        "evaluation_cpu_s": evaluation_s,
    }


def share_far(report: dict) -> float:
    return float(np.mean([summary["share_above_10mm"] for summary in report["posed"].values()]))


def describe(result: dict) -> str:
    fed = result["federated"]
    local = " ".join(
        f"{mm:.2f} ({share_far(report):.0%})"
        for mm, report in zip(result["local_mm"], result["local"], strict=True)
    )
    native = np.mean([s["mean_mm"] for s in fed["native"].values()])
    return (
        f"seed {result['seed']}: prior {result['prior_mm']:.2f}  federated "
        f"{result['federated_mm']:.2f} ({share_far(fed):.0%} > 10 mm, native {native:.2f})  "
        f"local-only {local}  | data {result['data_cpu_s']:.0f} s, site "
        f"{result['train_cpu_s_per_site']:.1f} s ({result['ms_per_update']:.1f} ms/update), "
        f"evaluation {result['evaluation_cpu_s']:.1f} s CPU"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--plan", type=Path, default=PLAN)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    plan = read_plan(arguments.plan)
    results = []
    for seed in arguments.seeds:
        results.append(measure(plan, seed))
        if not arguments.json:
            print(describe(results[-1]), flush=True)
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    federated = np.array([r["federated_mm"] for r in results])
    margin = [min(r["local_mm"]) - r["federated_mm"] for r in results]
    print(
        f"federated {federated.mean():.2f} ± {federated.std():.2f} mm; "
        f"best local-only worse by {min(margin):.2f} mm or more"
    )


if __name__ == "__main__":
    main()
