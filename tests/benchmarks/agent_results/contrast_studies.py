"""Brains in a contrast that nobody trained on: more contrasts in training, and structure for greys.

All four heads are T1-weighted. What stands for another contrast is made: a fixed curve that
turns bright to dark and is not monotone, so that it is no contrast of the random poses; the
random curves of the training are others, and never that one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from common.settings import LadderSettings
from site_client.agent.tasks.contrasts import in_random_contrasts, recontrasted
from site_client.agent.tasks.triplanar import TriplanarLandmark
from site_client.imaging.case_sets import Cases
from site_client.imaging.cases import with_pixels
from site_client.imaging.dataset import Case
from site_client.imaging.structure import structured
from site_client.imaging.trimming import joined
from tests.benchmarks.agent_results import data
from tests.benchmarks.agent_results.studies import METHODS, VOLUME, VOLUME_POSES, Job, volume_prior
from tests.benchmarks.agent_results.training import fit, judge

# One level more than the other studies of heads have.
LADDER = LadderSettings(scales=(3.0, 2.0, 1.0, 0.6), steps_mm=(9.0, 3.0, 1.0, 0.4))
REACH = (135.0, 18.0, 6.0, 2.0)


@dataclass(frozen=True)
class Way:
    """What agents are shown in training, as a plan says it, and for how long.

    Attributes:
        updates: gradient steps.
        contrasts: copies of each head in random contrasts, as ``task.contrasts``.
        structure: in place of greys, in training and test alike, as ``task.shown``.
    """

    updates: int
    contrasts: int = 0
    structure: bool = False


WAYS = {
    "one contrast": Way(1500),
    # The figures in agents.json are of the same eight curves for every head.
    "random contrasts": Way(1500, contrasts=8),
    "random contrasts, longer": Way(4500, contrasts=8),
    "structure": Way(4500, structure=True),
    "structure and random contrasts": Way(4500, contrasts=8, structure=True),
}


def contrasts(seeds: list[int]) -> Iterator[Job]:
    """Leave one head out of four; trained in every way, tested in either contrast."""
    for seed in seeds:
        for left_out in data.HEADS:
            for trained, way in WAYS.items():

                def job(
                    seed: int = seed, left_out: str = left_out, way: Way = way
                ) -> dict[str, object]:
                    return _job(left_out, way, seed)

                yield f"{trained}/{left_out}/seed{seed}", job


def _job(left_out: str, way: Way, seed: int) -> dict[str, object]:
    heads = data.heads()
    training = _cases([case for name, case in heads.items() if name != left_out])
    prior, shown = volume_prior(list(training.volumes)), training
    if way.contrasts:
        shown = joined(training, in_random_contrasts(training, way.contrasts))
    recipe = VOLUME.planned(updates=way.updates, **METHODS["displacement"])
    fitted = fit(_task(shown, way), recipe, seed)
    result: dict[str, object] = {"cpu_s": fitted.cpu_s, "updates": fitted.updates}
    test = heads[left_out]
    other = with_pixels(test, recontrasted(test.volume.voxels))
    for contrast, case in (("as trained", test), ("another", other)):
        task = _task(_cases([case]), way)
        figures, _ = judge(task, fitted.network, recipe, seed, prior, data.BRAIN_LANDMARKS)
        result[contrast] = figures["posed"]
    return result


def _cases(heads: list[Case]) -> Cases:
    return Cases(data.BRAIN_LANDMARKS, volumes=tuple(heads))


def _task(cases: Cases, way: Way) -> TriplanarLandmark:
    seen = structured(cases) if way.structure else cases
    return TriplanarLandmark(
        seen.volumes, LADDER, VOLUME_POSES, roi=45, spacing_mm=1.0, reach_mm=REACH
    )
