"""Evaluation on subjects that no site trains on, of every round's model as it appears.

The sites tell errors on their own shares of them, by one pose of each; here all of them
are searched together, by several, also for each site's model of its own training.

Runs beside the federation as a process of its own: ``python -m deploy.demo.heldout``.
Writes one JSON file with the federated curve, the local-only baselines, the
constant predictor, and one search through a held-out image for the picture.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from aggregator.rounds.events import RoundFinished, RunFinished, read_events
from aggregator.rounds.store import JOURNAL_FILE, RunStore
from common.checkpoint import ABOUT_FILE
from common.errors import InternalError
from common.model import initial_weights
from common.plan import FederationPlan, read_plan
from site_client.agent.evaluation import EvaluationReport
from site_client.agent.federated import evaluate_weights, planned_network
from site_client.agent.network import use_deterministic_torch
from site_client.agent.search import follow
from site_client.imaging.case_sets import Cases
from site_client.kinds.landmark_findings import positions_mm
from site_client.worker.site_cases import SiteCases, read_site_cases

Weights = dict[str, NDArray[np.float32]]
EVALUATION_SEED = 10_007
POSES = 4
STRIDE = 4
"""Every so many rounds the model is judged; the sites measure held-out cases in each."""
POLL_S = 0.5


def _silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""


def landmark_means(report: EvaluationReport) -> dict[str, float]:
    """Mean posed error per landmark, mm."""
    return {name: summary.mean for name, summary in report.posed.items()}


def share_above_10mm(report: EvaluationReport) -> float:
    """Share of posed searches that ended more than 10 mm away."""
    shares = (summary.share_above_10mm for summary in report.posed.values())
    return float(np.mean([share for share in shares if share is not None]))


def picture(weights: Weights, held_out: SiteCases, landmark: int) -> dict[str, object]:
    """One search over the slice that holds the landmark, in mm of the image's own axes."""
    plan, alone = held_out.plan, held_out.part([0])
    task, case = alone.task, alone.cases.volumes[0]
    starts = task.starts(np.random.Generator(np.random.PCG64(EVALUATION_SEED)), 1, posed=False)
    start = starts[starts["head"] == landmark]
    use_deterministic_torch()
    steps = follow(task, planned_network(plan, weights), start, plan.evaluation).steps
    volume = case.volume
    truth = volume.world_to_index(case.landmarks_mm[landmark]) * volume.spacing_mm
    path = volume.world_to_index(positions_mm(alone.built, steps)[:, 0]) * volume.spacing_mm
    across = int(np.clip(round(truth[0] / volume.spacing_mm), 0, volume.size[0] - 1))
    image = np.ascontiguousarray(volume.voxels[::-1, :, across])
    edges = (volume.size - 0.5) * volume.spacing_mm
    low = -0.5 * volume.spacing_mm
    return {
        "image": base64.b64encode(image.tobytes()).decode("ascii"),
        "shape": list(image.shape),
        "extent_mm": [low, float(edges[1]), low, float(edges[2])],
        "path": [
            [float(p[1]), float(p[2]), int(level)]
            for p, level in zip(path, steps["level"], strict=True)
        ],
        "truth_mm": [float(truth[1]), float(truth[2])],
        "landmark": plan.task.landmarks[landmark],
        "error_mm": float(task.errors(steps)[-1]),
    }


class Judge:
    """Evaluates models on the held-out subjects, all on the same searches.

    Args:
        training: the sites' data folders, for the constant predictor.
    """

    def __init__(self, plan: FederationPlan, heldout: Path, training: Sequence[Path]) -> None:
        self.plan = plan
        self.cases = read_site_cases(heldout, plan, _silent)
        each = [read_site_cases(folder, plan, _silent).cases.volumes for folder in training]
        seen = Cases(plan.task.landmarks, volumes=tuple(case for cases in each for case in cases))
        self._prior = SiteCases(seen, plan).prior

    def judge(self, weights: Weights, *, native: bool = False) -> EvaluationReport:
        """Errors of one model."""
        return evaluate_weights(
            weights,
            self.plan,
            self.cases.task,
            EVALUATION_SEED,
            self._prior,
            poses=POSES,
            native=native,
        )


class Following:
    """Models of a run and of the sites' own training, each judged once it is there.

    Nothing waits for anything else: a site's own model is judged while others still train.

    Args:
        judge: of all of them.
        runs: folder of the federation's runs.
        local: the weights' file of each site's own training, in its latest checkpoint.
    """

    def __init__(self, judge: Judge, runs: Path, local: Mapping[str, Path]) -> None:
        self._judge, self._runs, self._local = judge, runs, local
        self.weights: Weights = dict(initial_weights(judge.plan))
        self.rounds: dict[int, EvaluationReport] = {0: judge.judge(self.weights)}
        self.local: dict[str, EvaluationReport] = {}
        self._finished = False

    def until(self, limit: float) -> None:
        """Judge until the run has finished and every site's own model was there.

        Raises:
            InternalError: they did not come in time.
        """
        while not self._finished or self.local.keys() != self._local.keys():
            if time.monotonic() >= limit:
                late = sorted(self._local.keys() - self.local.keys())
                raise InternalError("a model did not come in time", got=f"none of {late}")
            if not self._look():
                time.sleep(POLL_S)

    def _look(self) -> bool:
        """Judge what is new; returns whether anything was."""
        before = len(self.rounds) + len(self.local)
        journals = sorted(self._runs.glob(f"*/{JOURNAL_FILE}"))
        events = [event for _, event in read_events(journals[-1])] if journals else []
        training = self._judge.plan.rounds.training
        for event in events:
            if (
                isinstance(event, RoundFinished)
                and event.phase == "train"
                and event.round not in self.rounds
                and (event.round % STRIDE == 0 or event.round == training)
            ):
                store = RunStore(journals[-1].parent)
                self.weights = safetensors.numpy.load_file(store.model_file(event.round))
                self.rounds[event.round] = self._judge.judge(
                    self.weights, native=event.round == training
                )
        self._finished = any(isinstance(event, RunFinished) for event in events)
        for name, path in self._local.items():
            if name not in self.local and is_trained(path.parent, self._judge.plan):
                self.local[name] = self._judge.judge(safetensors.numpy.load_file(path))
        return len(self.rounds) + len(self.local) > before


def is_trained(checkpoint: Path, plan: FederationPlan) -> bool:
    """Whether a checkpoint is there, and is the last of its training."""
    try:
        about = json.loads((checkpoint / ABOUT_FILE).read_bytes())
    except FileNotFoundError:
        return False
    return bool(about["updates"] == plan.learner.updates)


@click.command()
@click.option("--plan", "plan_file", required=True, type=click.Path(path_type=Path))
@click.option("--heldout", required=True, type=click.Path(path_type=Path))
@click.option("--runs", required=True, type=click.Path(path_type=Path))
@click.option("--site", "sites", multiple=True, nargs=3, help="NAME DATA LOCAL_WEIGHTS")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
@click.option("--limit", "limit_s", default=1800.0)
def main(
    plan_file: Path,
    heldout: Path,
    runs: Path,
    sites: tuple[tuple[str, str, str], ...],
    output: Path,
    limit_s: float,
) -> None:
    """Evaluate every model of a run on the held-out subjects."""
    until = time.monotonic() + limit_s
    plan = read_plan(plan_file)
    judge = Judge(plan, heldout, [Path(data) for _, data, _ in sites])
    following = Following(judge, runs, {name: Path(file) for name, _, file in sites})
    following.until(until)
    local = {name: following.local[name] for name, _, _ in sites}
    last = following.rounds.get(plan.rounds.training)
    if last is None:  # the run ended before its last round
        last = judge.judge(following.weights, native=True)
    result = {
        "subjects": len(judge.cases),
        "federated": {
            str(r): landmark_means(report) for r, report in sorted(following.rounds.items())
        },
        "prior_mm": {name: summary.prior for name, summary in last.posed.items()},
        "local": {name: landmark_means(report) for name, report in local.items()},
        "over_10mm": {"federated": share_above_10mm(last)}
        | {name: share_above_10mm(report) for name, report in local.items()},
        "native_mm": {name: summary.mean for name, summary in last.native.items()},
        "consensus_mm": {name: summary.consensus for name, summary in last.posed.items()},
        "trajectory": picture(following.weights, judge.cases, 0),
    }
    part = output.with_name(output.name + ".part")
    part.write_text(json.dumps(result), encoding="utf-8")
    part.replace(output)


if __name__ == "__main__":
    main()
