"""The heatmap baseline on the folds, heads and fetuses that the agents are compared on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from common.settings import PoseSettings
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.landmark2d import Cases2D, Landmark2D
from site_client.agent.tasks.landmark3d import Landmark3D, build_cases_3d
from site_client.agent.tasks.views import Views
from tests.benchmarks.agent_results import data, studies
from tests.benchmarks.agent_results.heatmaps import Stage, fit_heatmaps, measure
from tests.benchmarks.agent_results.studies import (
    CLEAN_FOLDS,
    PLANAR,
    PLANAR_POSES,
    VOLUME,
    VOLUME_POSES,
    Job,
    planar_prior,
    planar_task,
    volume_prior,
    volume_task,
)
from tests.benchmarks.agent_results.training import figures_of

# Strides in mm of the whole image and of the crop; crops are drawn within two of the first steps.
_PLANAR = Ladder((2.6, 0.6), (4.0, 0.6))
_VOLUME = Ladder((6.0, 1.5), (6.0, 1.0))
# As many gradient steps of each stage as make the processor seconds of DQN.
PLANAR_UPDATES = 500
VOLUME_UPDATES = 50


def planar_stages(cases: Cases2D, poses: PoseSettings = PLANAR_POSES) -> list[Stage]:
    """250 mm at 2.6 mm, then 38 mm at 0.6 mm."""
    return [
        Stage(Landmark2D(cases, _PLANAR, Views(roi), poses), stride, whole)
        for roi, stride, whole in ((96, 2.6, True), (64, 0.6, False))
    ]


def volume_stages(cases: list) -> list[Stage]:
    """240 mm at 6 mm, then 48 mm at 1.5 mm."""
    built = build_cases_3d(cases, min(_VOLUME.strides_mm))
    return [
        Stage(Landmark3D(built, _VOLUME, Views(roi), VOLUME_POSES), stride, whole)
        for roi, stride, whole in ((40, 6.0, True), (32, 1.5, False))
    ]


def cephalograms(seeds: list[int]) -> Iterator[Job]:
    """The clean folds."""
    for seed in seeds[:2]:
        for fold in CLEAN_FOLDS:

            def job(seed: int = seed, fold: int = fold) -> dict[str, object]:
                cases = studies.xrays().cases
                held = np.arange(len(cases)) % 5 == fold
                training = cases.subset(np.flatnonzero(~held))
                testing = cases.subset(np.flatnonzero(held))
                fitted = fit_heatmaps(planar_stages(training), PLANAR_UPDATES, seed, width=12)
                searched = measure(
                    *(planar_task(testing), planar_stages(testing), fitted, PLANAR.evaluation),
                    *(1000 + seed, planar_prior(training)),
                )
                names = data.CEPHALOGRAM_LANDMARKS
                figures = {pose: figures_of(found, names) for pose, found in searched.items()}
                return figures | {"cpu_s": fitted.cpu_s, "updates": fitted.updates}

            yield f"heatmap/fold{fold}/seed{seed}", job


def brain(seeds: list[int]) -> Iterator[Job]:
    """Leave one head out of four."""
    for left_out in data.HEADS:

        def job(seed: int = seeds[0], left_out: str = left_out) -> dict[str, object]:
            heads = data.heads()
            training = [case for name, case in heads.items() if name != left_out]
            testing = [heads[left_out]]
            fitted = fit_heatmaps(volume_stages(training), VOLUME_UPDATES, seed, width=8)
            searched = measure(
                *(volume_task(testing), volume_stages(testing), fitted, VOLUME.evaluation),
                *(1000 + seed, volume_prior(training)),
            )
            names = data.BRAIN_LANDMARKS
            figures = {pose: figures_of(found, names) for pose, found in searched.items()}
            return figures | {"cpu_s": fitted.cpu_s, "updates": fitted.updates}

        yield f"heatmap/{left_out}/seed{seeds[0]}", job
