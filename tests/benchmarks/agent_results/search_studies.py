"""The studies of boxes, view planes and rigid registration on real images.

What is held out is never trained on, and no setting was chosen by looking at it:
box settings were chosen on the fetuses that are trained on, planes and
registrations have the library's default steps and views.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from common.settings import (
    BoxSettings,
    EvaluationSettings,
    LearnerSettings,
    NetworkSettings,
    PlaneSettings,
    PoseSettings,
    RegistrationSettings,
)
from site_client.agent.evaluation import evaluate, mean_parameters
from site_client.agent.networks import QNetwork
from site_client.agent.search import consensus, greedy_search
from site_client.agent.task import Situations
from site_client.agent.tasks.box import BoxSearch
from site_client.agent.tasks.detection import detect
from site_client.agent.tasks.detection import judge as judge_detections
from site_client.agent.tasks.plane import PlaneSearch
from site_client.agent.tasks.registration import PairCase, Registration
from tests.benchmarks.agent_results import data, search_data
from tests.benchmarks.agent_results.peers import register_by_mutual_information
from tests.benchmarks.agent_results.studies import Job
from tests.benchmarks.agent_results.training import Recipe, fit

PLANAR_NETWORK = NetworkSettings(architecture="planar", width=16)
BOX = Recipe(
    PLANAR_NETWORK,
    LearnerSettings(updates=1500, gamma=0.9, warm_start=0.25, learning_rate_end=0.05),
    EvaluationSettings(starts=5, poses=1, native=True, most_steps=80),
)
BOX_SETTINGS = BoxSettings()
BOX_POSES = PoseSettings(rotation_deg=10.0, shift_mm=5.0)
PLANE = Recipe(
    PLANAR_NETWORK,
    LearnerSettings(updates=600, gamma=0.3, warm_start=0.5, learning_rate_end=0.05),
    EvaluationSettings(starts=5, poses=8, native=True, most_steps=100),
)
PLANE_NORMALS = {"mid-sagittal": (1.0, 0.0, 0.0), "AC-PC axial": (0.0, 0.0, 1.0)}
REGISTRATION = Recipe(
    PLANAR_NETWORK,
    LearnerSettings(updates=1000, gamma=0.3, warm_start=0.5, learning_rate_end=0.05),
    EvaluationSettings(starts=3, poses=1, native=True, most_steps=120),
)
MOTIONS = 3


def boxes(seeds: list[int]) -> Iterator[Job]:
    """The fetal head's box; every third fetus held out."""
    for seed in seeds:

        def job(seed: int = seed) -> dict[str, object]:
            heads = search_data.fetal_boxes()
            held = heads.fetus % 3 == 0
            return box_job(heads, ~held, held, BOX, BOX_SETTINGS, seed)

        yield f"DQN/seed{seed}", job


def box_job(
    heads: search_data.FetalBoxes,
    trained: NDArray[np.bool_],
    held: NDArray[np.bool_],
    recipe: Recipe,
    settings: BoxSettings,
    seed: int,
) -> dict[str, object]:
    """Train on some images and search in others, from single starts and from all over."""
    training = BoxSearch([heads.cases[k] for k in np.flatnonzero(trained)], settings, BOX_POSES)
    testing = BoxSearch([heads.cases[k] for k in np.flatnonzero(held)], settings, BOX_POSES)
    fitted = fit(training, recipe, seed)
    prior = mean_parameters(training)
    result = figures_of(testing, fitted.network, recipe, seed, prior)
    # As large as half of the training boxes, and as another quarter.
    sides = np.exp(prior_sizes(training))
    sizes = tuple(float(np.quantile(sides, q)) for q in (0.25, 0.75))
    detection = BoxSettings(sizes_mm=sizes)
    found = [
        detect(testing, fitted.network, case, 0, detection, recipe.evaluation)
        for case in range(len(testing))
    ]
    true = [testing.true_boxes(case, 0) for case in range(len(testing))]
    report = judge_detections(found, true)
    return result | {
        "detection": {
            "true": report.true,
            "found": report.found,
            "recall": report.recall,
            "precision": report.precision,
            "iou": report.mean_iou,
        },
        "images": int(held.sum()),
        "cpu_s": fitted.cpu_s,
        "updates": fitted.updates,
    }


def prior_sizes(task: BoxSearch) -> NDArray[np.float64]:
    """float64[cases]: mean logarithm of each true box's sides (mm)."""
    at = task.starts(np.random.Generator(np.random.PCG64(0)), 1, posed=False)
    return np.asarray(task.targets(at)[:, task.dim :].mean(axis=1))


def planes(seeds: list[int]) -> Iterator[Job]:
    """Two view planes of the brain, one head of four held out."""
    for seed in seeds:
        for plane in PLANE_NORMALS:
            for left_out in data.HEADS:

                def job(
                    seed: int = seed, plane: str = plane, left_out: str = left_out
                ) -> dict[str, object]:
                    cases = search_data.plane_cases(_marked_heads(), plane)
                    settings = PlaneSettings(normal=PLANE_NORMALS[plane])
                    trained = [case for name, case in cases.items() if name != left_out]
                    training = PlaneSearch(trained, settings)
                    fitted = fit(training, PLANE, seed)
                    result = figures_of(
                        PlaneSearch([cases[left_out]], settings),
                        fitted.network,
                        PLANE,
                        seed,
                        mean_parameters(training),
                    )
                    return result | {"cpu_s": fitted.cpu_s, "updates": fitted.updates}

                yield f"{plane}/{left_out}/seed{seed}", job


def figures_of(
    task: BoxSearch | PlaneSearch,
    network: QNetwork,
    recipe: Recipe,
    seed: int,
    prior: NDArray[np.float64],
) -> dict[str, object]:
    """The task's own figures of single searches, of what they agree on, and of the prior."""
    report = evaluate(task, network, recipe.evaluation, 1000 + seed, prior=prior)
    result: dict[str, object] = {}
    for pose, searched in (("posed", report.posed_searches), ("native", report.native_searches)):
        if searched is None:
            continue
        constant = searched.agreed.copy()
        task.move_to(constant, prior[constant["head"].astype(np.int64)].astype(np.float32))
        result[pose] = {
            "single": summaries(searched.further),
            "agreed": summaries(task.report(searched.agreed)),
            "prior": summaries(task.report(constant)),
        }
    return result


def summaries(figures: dict[str, NDArray[np.float64]]) -> dict[str, dict[str, float]]:
    """Mean, deviation and median of each figure; of overlaps, also shares above thresholds."""
    found: dict[str, dict[str, float]] = {}
    for name, values in figures.items():
        found[name] = {
            "mean": float(values.mean()),
            "std": float(values.std()),
            "median": float(np.median(values)),
        }
        if name == "iou":
            found[name] |= {f">={t:g}": float((values >= t).mean()) for t in (0.5, 0.75)}
    return found


CONDITIONS = {
    "same head, changed contrast": (True, False),
    "other heads, same contrast": (False, True),
    "other heads, changed contrast": (True, True),
}
# Copies of each head that is trained on: whether mirrored, and its relative size.
AS_IT_IS = ((False, 1.0),)
VARIED = (*AS_IT_IS, (True, 0.95), (False, 1.05))
# What training shows: copies of heads, and how many random contrasts; 0 shows the moving
# image as it is and in the one changed contrast that is also measured.
REGISTRATION_METHODS = {
    "one changed contrast": (AS_IT_IS, 0),
    "varied heads": (VARIED, 0),
    "random contrasts": (VARIED, 64),
}


def registrations(seeds: list[int]) -> Iterator[Job]:
    """Brains rigidly displaced, one head of four held out, of equal and changed contrast."""
    for left_out in reversed(data.HEADS):

        def peer(left_out: str = left_out) -> dict[str, object]:
            return _each_condition(left_out, _by_peer)

        yield f"SimpleITK/{left_out}/seed0", peer
        for seed in seeds:
            for method in REGISTRATION_METHODS:

                def job(
                    seed: int = seed, left_out: str = left_out, method: str = method
                ) -> dict[str, object]:
                    return _registration_fold(left_out, seed, *REGISTRATION_METHODS[method])

                yield f"{method}/{left_out}/seed{seed}", job


def _registration_fold(
    left_out: str, seed: int, variants: tuple[tuple[bool, float], ...], contrasts: int
) -> dict[str, object]:
    """Train on the other heads and their variants."""
    subjects = [
        search_data.varied(head, mirrored=mirrored, scale=scale)
        for name, head in _marked_heads().items()
        if name != left_out
        for mirrored, scale in variants
    ]
    # With random contrasts there is no need of the changed one, and it stays unseen.
    training = [
        search_data.pair_case(a, b, changed=changed)
        for a in subjects
        for b in subjects
        for changed in (False, True)
        if (not changed if contrasts else changed or a is not b)
    ]
    task = Registration(training, RegistrationSettings(contrasts=contrasts))
    fitted = fit(task, REGISTRATION, seed)

    def by_agent(
        task: Registration, pairs: list[PairCase], starts: Situations
    ) -> dict[str, NDArray[np.float64]]:
        del pairs
        agreed = agreed_motions(task, fitted.network, starts, REGISTRATION.evaluation)
        return task.report(agreed)

    result = _each_condition(left_out, by_agent)
    return result | {"cpu_s": fitted.cpu_s, "updates": fitted.updates}


def _by_peer(
    task: Registration, pairs: list[PairCase], starts: Situations
) -> dict[str, NDArray[np.float64]]:
    """The peer's answers, measured by the same ruler at the same points."""
    del task
    return register_by_mutual_information(pairs, starts[:: REGISTRATION.evaluation.starts])


def _each_condition(
    left_out: str,
    errors_of: Callable[[Registration, list[PairCase], Situations], dict[str, NDArray[np.float64]]],
) -> dict[str, object]:
    """Errors before and after; every caller gets the same motions."""
    heads = _marked_heads()
    held, others = heads[left_out], [heads[name] for name in heads if name != left_out]
    result: dict[str, object] = {
        "misfit_mm": float(np.mean([search_data.misfit_mm(held, b) for b in others]))
    }
    for k, (condition, (changed, of_others)) in enumerate(CONDITIONS.items()):
        movings = others if of_others else [held]
        pairs = [search_data.pair_case(held, b, changed=changed) for b in movings]
        task = Registration(pairs)
        # As many motions in all of one pair as of three.
        motions = MOTIONS * (3 // len(pairs))
        rng = np.random.Generator(np.random.PCG64([1000, k]))
        repeats = REGISTRATION.evaluation.starts
        starts = np.concatenate([task.starts(rng, repeats, posed=False) for _ in range(motions)])
        unmoved = starts[::repeats].copy()
        task.move_to(unmoved, np.zeros((len(unmoved), task.size), np.float32))
        began = time.process_time()
        after = errors_of(task, pairs, starts)
        result[condition] = {
            "before": summaries(task.report(unmoved)),
            "after": summaries(after),
            "each_s": (time.process_time() - began) / len(unmoved),
            "registrations": len(unmoved),
        }
    return result


def agreed_motions(
    task: Registration, network: QNetwork, starts: Situations, settings: EvaluationSettings
) -> Situations:
    """What adjacent searches agree on."""
    ended = greedy_search(task, network, starts, settings)
    agreed = ended[:: settings.starts].copy()
    places = task.parameters(ended).reshape(len(agreed), settings.starts, -1)
    task.move_to(agreed, consensus(places, settings.outlier_mads).astype(np.float32))
    return agreed


@cache
def _marked_heads() -> dict[str, search_data.MarkedHead]:
    return search_data.marked_heads()
