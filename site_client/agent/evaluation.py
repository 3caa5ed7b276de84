"""How far from the landmark greedy searches end, in mm, beside a predictor that never looks.

Every search starts on the coarsest level and descends when it oscillates.
Reports hold summaries over cases, never a case's name or number. Errors are
given under random poses, because scans that were all aligned the same way let a
memorised position pass for skill, and as acquired ("native").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from common.plan import FederationPlan
from site_client.agent.environment import (
    SITUATION,
    Scans,
    Situations,
    draw_poses,
    landmark_offsets,
    native_poses,
    to_native,
)
from site_client.agent.learner import use_deterministic_torch
from site_client.agent.network import TriplanarQ, network_with, to_tensors
from site_client.imaging.dataset import Case

_MOST_STEPS = 80
_VISITS_TO_DESCEND = 3
_MEMORY = 20
_CANDIDATES = 4
_CHUNK = 256


@dataclass(frozen=True)
class ErrorSummary:
    """Errors of one landmark, mm.

    Attributes:
        searches: searches summarised.
        mean_mm, median_mm, std_mm: over single searches.
        share_above_10mm: share of searches that ended more than 10 mm away.
        consensus_mm: mean error of the coordinate-wise median over the starts.
        prior_mm: mean error of the constant predictor on the same poses; None if none was given.
    """

    searches: int
    mean_mm: float
    median_mm: float
    std_mm: float
    share_above_10mm: float
    consensus_mm: float
    prior_mm: float | None


@dataclass(frozen=True)
class EvaluationReport:
    """What an evaluation found.

    Attributes:
        cases: cases evaluated.
        posed, native: landmark name to its errors, under random poses and as acquired;
            native is empty when it was not asked for.
    """

    cases: int
    posed: dict[str, ErrorSummary]
    native: dict[str, ErrorSummary]

    @property
    def mean_mm(self) -> float:
        """Mean posed error over the landmarks."""
        return float(np.mean([summary.mean_mm for summary in self.posed.values()]))

    @property
    def prior_mm(self) -> float | None:
        """Mean posed error of the constant predictor over the landmarks."""
        priors = [s.prior_mm for s in self.posed.values() if s.prior_mm is not None]
        return float(np.mean(priors)) if priors else None

    def as_dict(self) -> dict[str, object]:
        """The same for JSON."""
        return asdict(self) | {"mean_mm": self.mean_mm, "prior_mm": self.prior_mm}


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One search in its image.

    Attributes:
        positions_mm: float64[t, 3], LPS mm.
        levels: int64[t].
        errors_mm: float64[t], distance to the landmark.
    """

    positions_mm: NDArray[np.float64]
    levels: NDArray[np.int64]
    errors_mm: NDArray[np.float64]


def mean_positions(cases: Sequence[Case]) -> NDArray[np.float64]:
    """float64[landmarks, 3]: the constant predictor, mm from the middle of the image."""
    mean: NDArray[np.float64] = landmark_offsets(cases).mean(axis=0)
    return mean


def evaluate(
    weights: Mapping[str, NDArray[np.float32]],
    plan: FederationPlan,
    cases: Sequence[Case],
    seed: int,
    prior: NDArray[np.float64] | None = None,
    poses: int = 4,
    *,
    native: bool = True,
) -> EvaluationReport:
    """Search every landmark of every case from several starts.

    Args:
        weights: the network's.
        plan: the federation plan; ``evaluation_starts`` searches per pose and landmark.
        cases: held-out cases.
        seed: draws poses and starts; equal seeds compare networks on equal searches.
        prior: `mean_positions` of the *training* cases.
        poses: random poses per case.
        native: search the cases as acquired, too.

    Raises:
        InputDataError: no cases, or the weights are not this plan's.
    """
    use_deterministic_torch()
    scans = Scans(cases, plan)
    network = network_with(weights, plan)
    rng = np.random.Generator(np.random.PCG64(seed))
    posed = draw_poses(rng, plan.agent, len(cases) * poses)
    return EvaluationReport(
        cases=len(cases),
        posed=_summaries(scans, network, plan, rng, posed, prior),
        native=(
            _summaries(scans, network, plan, rng, native_poses(len(cases)), prior) if native else {}
        ),
    )


def trace_search(
    weights: Mapping[str, NDArray[np.float32]],
    plan: FederationPlan,
    case: Case,
    landmark: int,
    seed: int,
) -> Trajectory:
    """Follow one greedy search through the image as acquired."""
    use_deterministic_torch()
    scans = Scans([case], plan)
    at = np.zeros(1, SITUATION)
    at["landmark"] = landmark
    at["pose"] = native_poses(1)
    scans.place(at, np.random.Generator(np.random.PCG64(seed)).uniform(0.25, 0.75, (1, 3)))
    visited: list[Situations] = [at.copy()]
    visited.append(greedy_search(scans, network_with(weights, plan), at, visited))
    path = np.concatenate(visited)
    return Trajectory(
        positions_mm=case.volume.centre_mm + to_native(path["position"], path["pose"]),
        levels=path["level"].astype(np.int64),
        errors_mm=scans.distances(path),
    )


@torch.no_grad()
def greedy_search(
    scans: Scans,
    network: TriplanarQ,
    start: Situations,
    visited: list[Situations] | None = None,
) -> Situations:
    """Run searches to their ends, all in lockstep; `visited` collects every step.

    A search that comes to a place for the third time within the last steps of a
    level oscillates: it goes to the one of its last places whose best action
    promises least (nothing is left to gain there) and continues on the next finer
    level; on the finest it ends. Source: Alansary et al., Medical Image Analysis 2019.
    """
    at = start.copy()
    n, finest = len(at), len(scans.steps_mm) - 1
    alive = np.arange(n)
    history = np.full((n, _MEMORY, 3), np.inf, np.float32)
    promise = np.full((n, _CANDIDATES), np.inf, np.float32)
    candidates = np.zeros((n, _CANDIDATES, 3), np.float32)
    for step in range(_MOST_STEPS):
        if not alive.size:
            break
        here = at[alive]
        values = _values(scans, network, here)
        slot = step % _CANDIDATES
        promise[alive, slot] = values.max(axis=1)
        candidates[alive, slot] = here["position"]
        here["action"] = values.argmax(axis=1)
        reached, _ = scans.step(here)
        position = reached["position"]
        seen = (np.abs(history[alive] - position[:, None]) < 1e-2).all(axis=2).sum(axis=1)
        history[alive, step % _MEMORY] = position
        turning = alive[seen >= _VISITS_TO_DESCEND - 1]
        at[alive] = reached
        at["position"][turning] = candidates[turning, promise[turning].argmin(axis=1)]
        history[turning], promise[turning] = np.inf, np.inf
        ended = turning[at["level"][turning] == finest]
        at["level"][np.setdiff1d(turning, ended)] += 1
        alive = np.setdiff1d(alive, ended)
        if visited is not None:
            visited.append(at[alive].copy())
    return at


def _values(scans: Scans, network: TriplanarQ, at: Situations) -> NDArray[np.float32]:
    """float32[n, actions], in chunks that fit the processor's cache."""
    parts = [at[i : i + _CHUNK] for i in range(0, len(at), _CHUNK)]
    return np.concatenate([network(*to_tensors(scans.observe(p), p)).numpy() for p in parts])


def _summaries(
    scans: Scans,
    network: TriplanarQ,
    plan: FederationPlan,
    rng: np.random.Generator,
    poses: NDArray[np.float16],
    prior: NDArray[np.float64] | None,
) -> dict[str, ErrorSummary]:
    """Errors per landmark for poses float16[cases * repeats, 8], repeats of a case adjacent."""
    shape = (len(poses), scans.landmarks, plan.agent.evaluation_starts)
    grid = np.zeros(shape, SITUATION)
    grid["case"] = np.repeat(np.arange(len(scans)), len(poses) // len(scans))[:, None, None]
    grid["landmark"] = np.arange(scans.landmarks)[None, :, None]
    grid["pose"] = poses[:, None, None, :]
    at: Situations = grid.reshape(-1)
    scans.place(at, rng.uniform(0.25, 0.75, (len(at), 3)))
    found = greedy_search(scans, network, at)
    errors = scans.distances(found).reshape(shape)
    targets = scans.targets(found).reshape(*shape, 3)[:, :, 0]
    agreed = np.median(found["position"].reshape(*shape, 3), axis=2)
    consensus = np.linalg.norm(agreed - targets, axis=-1)
    summaries: dict[str, ErrorSummary] = {}
    for k, name in enumerate(plan.task.landmarks):
        e = errors[:, k]
        constant = None
        if prior is not None:
            constant = float(np.linalg.norm(targets[:, k] - prior[k], axis=-1).mean())
        summaries[name] = ErrorSummary(
            searches=e.size,
            mean_mm=float(e.mean()),
            median_mm=float(np.median(e)),
            std_mm=float(e.std()),
            share_above_10mm=float((e > 10).mean()),
            consensus_mm=float(consensus[:, k].mean()),
            prior_mm=constant,
        )
    return summaries
