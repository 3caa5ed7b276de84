"""The studies of one agent at a time: heads, X-rays, ultrasound, all of them together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np

from common.settings import (
    EvaluationSettings,
    LadderSettings,
    LearnerSettings,
    NetworkSettings,
    PoseSettings,
)
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.landmark2d import Cases2D, Landmark2D, build_cases_2d
from site_client.agent.tasks.triplanar import TriplanarLandmark
from site_client.agent.tasks.views import Views
from tests.benchmarks.agent_results import data
from tests.benchmarks.agent_results.training import Recipe, fit, judge

Job = tuple[str, Callable[[], dict[str, object]]]

# Planar: two strides at once, so that detail is seen in its surroundings.
PLANAR_LADDER = Ladder(strides_mm=(3.2, 1.2, 0.5, 0.3), steps_mm=(8.0, 2.5, 0.8, 0.3))
PLANAR_VIEWS = Views.multiscale(zooms=(1.0, 2.4), roi=33)
# Units of displacements: the narrowest view, then two steps of the level above.
PLANAR_REACH = (105.6, 16.0, 5.0, 1.6)
# At most the processor seconds of DQN with 6000.
WAY_UPDATES = 8000
LONGER = "displacement, twice as long"
PLANAR_POSES = PoseSettings(
    rotation_deg=5.0, scale_fraction=0.05, shift_mm=10.0, gamma_contrast=0.3
)
PLANAR = Recipe(
    NetworkSettings(architecture="planar", width=24),
    LearnerSettings(
        updates=6000,
        searches=64,
        episode_steps=12,
        warmup=2000,
        gamma=0.3,
        warm_start=0.5,
        learning_rate_end=0.05,
    ),
    EvaluationSettings(starts=3, poses=1, native=True, most_steps=120),
)
VOLUME_LADDER = LadderSettings()
VOLUME_REACH = (135.0, 18.0, 6.0)
VOLUME_POSES = PoseSettings()
VOLUME = Recipe(
    NetworkSettings(architecture="triplanar", width=16),
    LearnerSettings(updates=1200, gamma=0.3, warm_start=0.5, learning_rate_end=0.05),
    EvaluationSettings(starts=5, poses=6, native=True, most_steps=80),
)
METHODS: dict[str, dict[str, object]] = {
    "DQN": {},
    "path supervision": {"path_supervision_only": True, "warm_start": 0.0},
    "displacement": {"method": "displacement", "warm_start": 0.0, "learning_rate": 2e-3},
}


def planar_task(
    cases: Cases2D,
    poses: PoseSettings = PLANAR_POSES,
    couples: tuple[tuple[int, int], ...] = (),
    method: str = "dqn",
) -> Landmark2D:
    reach = PLANAR_REACH if method == "displacement" else ()
    return Landmark2D(cases, PLANAR_LADDER, PLANAR_VIEWS, poses, couples, reach)


def planar_prior(cases: Cases2D) -> np.ndarray:
    """float64[heads, 2]: mean position of each landmark in the training images."""
    return np.nanmean(cases.landmarks_mm, axis=0)


def volume_task(
    cases: list, poses: PoseSettings = VOLUME_POSES, method: str = "dqn"
) -> TriplanarLandmark:
    reach = VOLUME_REACH if method == "displacement" else ()
    return TriplanarLandmark(cases, VOLUME_LADDER, poses, roi=45, spacing_mm=1.0, reach_mm=reach)


def volume_prior(cases: list) -> np.ndarray:
    """float64[heads, 3], mm from the middle of the volume."""
    return np.nanmean([case.landmarks_mm - case.volume.centre_mm for case in cases], axis=0)


def brain(seeds: list[int]) -> Iterator[Job]:
    """Leave one head out of four."""
    for seed in seeds:
        for left_out in data.HEADS:
            for method, changes in METHODS.items():
                if method == "path supervision" and seed != seeds[0]:
                    continue

                def job(
                    seed: int = seed, left_out: str = left_out, changes: dict = changes
                ) -> dict[str, object]:
                    heads = _heads()
                    training = [case for name, case in heads.items() if name != left_out]
                    recipe = VOLUME.planned(**changes)
                    way = recipe.learner.method
                    fitted = fit(volume_task(training, method=way), recipe, seed)
                    result, _ = judge(
                        volume_task([heads[left_out]], method=way),
                        fitted.network,
                        recipe,
                        seed,
                        volume_prior(training),
                        data.BRAIN_LANDMARKS,
                    )
                    return result | {"cpu_s": fitted.cpu_s, "updates": fitted.updates}

                yield f"{method}/{left_out}/seed{seed}", job


CLEAN_FOLDS = (2, 3)
TUNED_ON = 0  # displacements


def cephalograms(seeds: list[int], folds: int = 5) -> Iterator[Job]:
    """Five folds by image: case k is in fold k mod 5."""
    for seed in seeds:
        for fold in range(folds):
            for method, changes in METHODS.items():
                if (method, seed, fold) not in _cephalogram_jobs(seeds):
                    continue

                def job(
                    seed: int = seed, fold: int = fold, changes: dict = changes
                ) -> dict[str, object]:
                    if changes.get("method") == "displacement":
                        changes = changes | {"updates": WAY_UPDATES}
                    return _cephalogram_fold(PLANAR.planned(**changes), seed, fold, folds)

                yield f"{method}/fold{fold}/seed{seed}", job


def longer_cephalograms(seeds: list[int], folds: int = 5) -> Iterator[Job]:
    """The same five folds by displacements with twice the updates; nothing else is changed."""
    for fold in range(folds):

        def job(fold: int = fold) -> dict[str, object]:
            changes = METHODS["displacement"] | {"updates": 2 * WAY_UPDATES}
            return _cephalogram_fold(PLANAR.planned(**changes), seeds[0], fold, folds)

        yield f"{LONGER}/fold{fold}/seed{seeds[0]}", job


def _cephalogram_jobs(seeds: list[int]) -> set[tuple[str, int, int]]:
    """Method, seed and fold: what is compared, and on what."""
    first, *further = seeds
    jobs = {("DQN", first, fold) for fold in range(5)} | {("DQN", seed, 0) for seed in further}
    jobs |= {("path supervision", first, fold) for fold in range(2)}
    # Folds 0 and 1 were looked at first; a second seed is spent on these.
    jobs |= {("DQN", seed, fold) for seed in further[:1] for fold in CLEAN_FOLDS}
    jobs |= {("path supervision", first, fold) for fold in CLEAN_FOLDS[:1]}
    jobs |= {("displacement", seed, fold) for seed in further[:1] for fold in CLEAN_FOLDS}
    return jobs | {("displacement", first, fold) for fold in range(5)}


def _cephalogram_fold(recipe: Recipe, seed: int, fold: int, folds: int) -> dict[str, object]:
    images = xrays()
    held = np.arange(len(images.cases)) % folds == fold
    training = images.cases.subset(np.flatnonzero(~held))
    testing = images.cases.subset(np.flatnonzero(held))
    way = recipe.learner.method
    fitted = fit(planar_task(training, method=way), recipe, seed)
    task = planar_task(testing, method=way)
    result, report = judge(
        task, fitted.network, recipe, seed, planar_prior(training), data.CEPHALOGRAM_LANDMARKS
    )
    # The same positions held against what each clinician marked alone.
    agreed = report.native_searches.agreed
    found = task.positions_mm(agreed)
    case = np.flatnonzero(held)[agreed["case"].astype(np.int64)]
    head = agreed["head"].astype(np.int64)
    for who in ("senior", "junior"):
        truth = getattr(images, who)[case, head]
        result[f"native_consensus_against_{who}"] = float(
            np.linalg.norm(found - truth, axis=1).mean()
        )
    return result | {
        "cpu_s": fitted.cpu_s,
        "updates": fitted.updates,
        "inter_observer": dict(
            zip(data.CEPHALOGRAM_LANDMARKS, images.inter_observer_mm.tolist(), strict=True)
        ),
    }


# The two ends of an axis: which is left or top was fixed by the image, not by anatomy.
FETAL_COUPLES = ((1, 2), (3, 4))
# Interchangeable ends may be trained on images turned any way; named ones may not.
ANY_WAY = PLANAR_POSES.model_copy(update={"rotation_deg": 180.0})
FETAL_METHODS: dict[str, tuple[tuple[tuple[int, int], ...], PoseSettings]] = {
    "ends by name": ((), PLANAR_POSES),
    "ends interchangeable": (FETAL_COUPLES, ANY_WAY),
}


def fetal(seeds: list[int], folds: int = 3) -> Iterator[Job]:
    """Split by fetus; the head circumference that the found points give, beside the points."""
    for seed in seeds:
        for method in FETAL_METHODS:
            for fold in range(folds):

                def job(
                    seed: int = seed, fold: int = fold, method: str = method
                ) -> dict[str, object]:
                    heads, _ = fetal_images()
                    held = heads.fetus % folds == fold
                    return fetal_job(~held, held, *FETAL_METHODS[method], seed)

                yield f"{method}/fold{fold}/seed{seed}", job


def fetal_job(
    trained: np.ndarray,
    held: np.ndarray,
    couples: tuple[tuple[int, int], ...],
    poses: PoseSettings,
    seed: int,
) -> dict[str, object]:
    """Train on some images under wide poses, find points and circumference in others."""
    heads, cases = fetal_images()
    training = cases.subset(np.flatnonzero(trained))
    testing = cases.subset(np.flatnonzero(held))
    recipe = PLANAR.planned(updates=3000)
    fitted = fit(planar_task(training, poses, couples), recipe, seed)
    task = planar_task(testing, couples=couples)
    names, prior = data.FETAL_LANDMARKS, planar_prior(training)
    result, report = judge(task, fitted.network, recipe, seed, prior, names)
    agreed = report.native_searches.agreed
    constant = agreed.copy()
    task.move_to(constant, prior[agreed["head"].astype(np.int64)].astype(np.float32))
    # The same two errors of both methods: by name, and of the better order of each couple.
    by_name = planar_task(testing)
    either = planar_task(testing, couples=FETAL_COUPLES)
    for who, at in (("consensus", agreed), ("prior", constant)):
        result[f"{who}_by_name"] = _by_landmark(names, agreed, by_name.errors(at))
        result[f"{who}_either_way"] = _by_landmark(names, agreed, either.agreed_errors(at))
    truth = heads.circumference_mm[held]
    found = circumference(_points_by_case(task, agreed))
    errors = np.abs(found - truth)
    constant_errors = np.abs(heads.circumference_mm[trained].mean() - truth)
    return result | {
        "circumference_mean_abs": float(np.nanmean(errors)),
        "circumference_median_abs": float(np.nanmedian(errors)),
        "circumference_bias": float(np.nanmean(found - truth)),
        "circumference_prior_abs": float(constant_errors.mean()),
        "circumference_truth_mean": float(truth.mean()),
        "images": int(held.sum()),
        "cpu_s": fitted.cpu_s,
        "updates": fitted.updates,
    }


def _by_landmark(
    names: tuple[str, ...], agreed: np.ndarray, errors: np.ndarray
) -> dict[str, dict[str, float]]:
    """Mean error and share above 10 mm of each landmark, and of all."""
    of = {name: agreed["head"] == k for k, name in enumerate(names)}
    of["all"] = np.ones(len(agreed), dtype=bool)
    return {
        name: {"mean": float(errors[rows].mean()), "far": float((errors[rows] > 10).mean())}
        for name, rows in of.items()
    }


def circumference(points: np.ndarray) -> np.ndarray:
    """Of the ellipse with these axis ends.

    Args:
        points: float64[n, 5, 2], centre, OFD left and right, BPD top and bottom.
    """
    a = np.linalg.norm(points[:, 1] - points[:, 2], axis=1) / 2
    b = np.linalg.norm(points[:, 3] - points[:, 4], axis=1) / 2
    return perimeter(a, b)


def perimeter(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of ellipses with these semi-axes; Ramanujan's second approximation."""
    h = ((a - b) / (a + b)) ** 2
    return np.pi * (a + b) * (1 + 3 * h / (10 + np.sqrt(4 - 3 * h)))


def _points_by_case(task: Landmark2D, agreed: np.ndarray) -> np.ndarray:
    """float64[cases, heads, 2]: what the starts agree on, native."""
    points = np.full((len(task), task.heads, 2), np.nan)
    points[agreed["case"].astype(np.int64), agreed["head"].astype(np.int64)] = task.positions_mm(
        agreed
    )
    return points


MODALITIES = ("mri", "x-ray", "ultrasound")
MODALITY_NAMES = {
    "mri": data.BRAIN_LANDMARKS,
    "x-ray": data.CEPHALOGRAM_LANDMARKS,
    "ultrasound": data.FETAL_LANDMARKS,
}


def modalities(seeds: list[int]) -> Iterator[Job]:
    """One agent on MRI slices, X-rays and ultrasound, against three of one kind each."""
    for seed in seeds:
        for who in ("together", *MODALITIES):

            def job(seed: int = seed, who: str = who) -> dict[str, object]:
                return _modality_job(seed, who)

            yield f"{who}/seed{seed}", job


def _modality_job(seed: int, who: str) -> dict[str, object]:
    cases, held = _everything()
    names = [f"{m}: {n}" for m in MODALITIES for n in MODALITY_NAMES[m]]
    group = np.array(cases.groups)
    wanted = np.ones(len(cases), dtype=bool) if who == "together" else group == who
    # Three agents of one kind each get as many updates together as the one for all.
    recipe = PLANAR.planned(updates=4500 if who == "together" else 1500)
    training = cases.subset(np.flatnonzero(wanted & ~held))
    fitted = fit(planar_task(training), recipe, seed)
    result: dict[str, object] = {"cpu_s": fitted.cpu_s, "updates": fitted.updates}
    for modality in MODALITIES if who == "together" else (who,):
        testing = cases.subset(np.flatnonzero((group == modality) & held))
        figures, _ = judge(
            planar_task(testing), fitted.network, recipe, seed, planar_prior(training), names
        )
        result[modality] = figures
    return result


@cache
def _heads() -> dict:
    return data.heads()


@cache
def xrays() -> data.Cephalograms:
    return data.cephalograms()


@cache
def fetal_images() -> tuple[data.FetalHeads, Cases2D]:
    heads = data.fetal_heads()
    return heads, build_cases_2d(heads.cases, 0.3)


@cache
def _everything() -> tuple[Cases2D, np.ndarray]:
    """All three modalities in one task, and which cases are held out: a head, images, fetuses."""
    slices = data.head_slices()
    xrays, _, _ = data.cephalogram_cases()
    fetal_heads = data.fetal_heads()
    sizes = [len(MODALITY_NAMES[m]) for m in MODALITIES]
    firsts = np.cumsum([0, *sizes])
    cases, held = [], []
    held += [case.name == "Colin27" for case in slices]
    held += [k % 5 == 0 for k in range(len(xrays))]
    held += [bool(f % 3 == 0) for f in fetal_heads.fetus]
    for group, first in zip((slices, xrays, fetal_heads.cases), firsts, strict=False):
        cases += data.with_heads(group, int(first), int(firsts[-1]))
    return build_cases_2d(cases, 0.3), np.array(held)
