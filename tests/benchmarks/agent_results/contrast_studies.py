"""Brains in a contrast that nobody trained on, with and without random contrasts in training.

All four heads are T1-weighted. What stands for another contrast is made: a fixed curve that
turns bright to dark and is not monotone, so that it is no contrast of the random poses; the
random curves of the training are others, and never that one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from common.settings import LadderSettings
from site_client.agent.tasks.contrasts import contrast_curves, recontrasted
from site_client.agent.tasks.triplanar import TriplanarLandmark
from site_client.imaging.dataset import Case
from site_client.imaging.volumes import Volume
from tests.benchmarks.agent_results import data
from tests.benchmarks.agent_results.studies import METHODS, VOLUME, VOLUME_POSES, Job, volume_prior
from tests.benchmarks.agent_results.training import fit, judge

# One level more than the other studies of heads have.
LADDER = LadderSettings(scales=(3.0, 2.0, 1.0, 0.6), steps_mm=(9.0, 3.0, 1.0, 0.4))
REACH = (135.0, 18.0, 6.0, 2.0)
CURVES = 8
UPDATES = 1500
TRAINED = ("one contrast", "random contrasts")


def contrasts(seeds: list[int]) -> Iterator[Job]:
    """Leave one head out of four; trained either way, tested in either contrast."""
    for seed in seeds:
        for left_out in data.HEADS:
            for trained in TRAINED:

                def job(
                    seed: int = seed, left_out: str = left_out, trained: str = trained
                ) -> dict[str, object]:
                    return _job(left_out, trained, seed)

                yield f"{trained}/{left_out}/seed{seed}", job


def _job(left_out: str, trained: str, seed: int) -> dict[str, object]:
    heads = data.heads()
    training = [case for name, case in heads.items() if name != left_out]
    prior, shown = volume_prior(training), training
    if trained == "random contrasts":
        curves = contrast_curves(CURVES)
        shown = [_seen(case, curve[case.volume.voxels]) for case in training for curve in curves]
    recipe = VOLUME.planned(updates=UPDATES, **METHODS["displacement"])
    fitted = fit(_task(shown), recipe, seed)
    result: dict[str, object] = {"cpu_s": fitted.cpu_s, "updates": fitted.updates}
    test = heads[left_out]
    for contrast, case in (("as trained", test), ("another", _other(test))):
        figures, _ = judge(_task([case]), fitted.network, recipe, seed, prior, data.BRAIN_LANDMARKS)
        result[contrast] = figures["posed"]
    return result


def _task(cases: list[Case]) -> TriplanarLandmark:
    return TriplanarLandmark(cases, LADDER, VOLUME_POSES, roi=45, spacing_mm=1.0, reach_mm=REACH)


def _other(case: Case) -> Case:
    return _seen(case, recontrasted(case.volume.voxels))


def _seen(case: Case, voxels: np.ndarray) -> Case:
    volume = case.volume
    same = Volume(voxels, volume.spacing_mm, volume.origin_mm, volume.direction)
    return Case(case.name, same, case.landmarks_mm)
