"""Federated against local and pooled, and how replay draws: equal effort, several seeds.

Four sites. "Pooled" sees all sites' images at once with the gradient steps of one site;
"pooled, all steps" with those of all four together. "Shift" gives every site another
contrast, resolution and set of landmarks that nobody marked there; all are judged on the
same held-out images, as acquired by none of the sites.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from site_client.agent.evaluation import evaluate
from site_client.agent.networks import QNetwork
from site_client.agent.task import Task
from site_client.agent.tasks.landmark2d import Case2D, Cases2D, build_cases_2d
from site_client.imaging.dataset import Case
from site_client.imaging.synthesis import Deformation, Grid, RawImage, random_bend
from site_client.imaging.volumes import Volume
from tests.benchmarks.agent_results import data
from tests.benchmarks.agent_results.former_keys import MergedCounts
from tests.benchmarks.agent_results.studies import (
    PLANAR,
    VOLUME,
    Job,
    planar_prior,
    planar_task,
    volume_prior,
    volume_task,
)
from tests.benchmarks.agent_results.training import Recipe, federate, fit, judge

SITES = 4
SHORT_ROUNDS = 50
SCENARIOS = ("IID", "shift")
# By manner: rounds that the steps of a site are spread over, and the server's momentum.
FEDERATIONS = {
    "federated": (10, 0.0),
    "federated, short rounds": (SHORT_ROUNDS, 0.0),
    "federated, momentum": (SHORT_ROUNDS, 0.8),
}
MANNERS = (*FEDERATIONS, "local-0", "local-1", "local-2", "local-3", "pooled", "pooled, all steps")

# What a scanner does to grey values, and how fine it sees: gamma, blur in pixels or voxels.
_XRAY_SITES = ((1.0, 0.0), (0.55, 0.0), (1.0, 8.0), (1.8, 4.0))
_BRAIN_SITES = ((1.0, 0.0), (0.6, 0.0), (1.0, 1.2), (1.7, 0.8))


def federated_cephalograms(seeds: list[int]) -> Iterator[Job]:
    """120 X-rays at four sites, 30 held out."""
    recipe = PLANAR.planned(updates=1000, warmup=1000)
    for seed in seeds:
        for scenario in SCENARIOS:
            for manner in MANNERS:

                def job(
                    seed: int = seed, scenario: str = scenario, manner: str = manner
                ) -> dict[str, object]:
                    sites, pooled, held = _xray_sites(scenario)
                    testing = planar_task(held)
                    tasks = [planar_task(site) for site in sites]
                    return _manner(
                        manner,
                        tasks,
                        planar_task(pooled),
                        testing,
                        recipe,
                        seed,
                        planar_prior(pooled),
                        data.CEPHALOGRAM_LANDMARKS,
                    )

                yield f"{scenario}/{manner}/seed{seed}", job


def federated_brain(seeds: list[int]) -> Iterator[Job]:
    """Made-up subjects of three heads at four sites; the fourth head is held out."""
    recipe = VOLUME.planned(updates=450)
    for seed in seeds:
        left_out = list(data.HEADS)[3 - seed % 4]
        for scenario in SCENARIOS:
            for manner in MANNERS:

                def job(
                    seed: int = seed,
                    scenario: str = scenario,
                    manner: str = manner,
                    left_out: str = left_out,
                ) -> dict[str, object]:
                    sites, held = _brain_sites(scenario, left_out)
                    pooled = [case for site in sites for case in site]
                    tasks = [volume_task(site) for site in sites]
                    result = _manner(
                        manner,
                        tasks,
                        volume_task(pooled),
                        volume_task([held]),
                        recipe,
                        seed,
                        volume_prior(pooled),
                        data.BRAIN_LANDMARKS,
                    )
                    return result | {"held_out": left_out}

                yield f"{scenario}/{manner}/seed{seed}", job


def _manner(
    manner: str,
    sites: Sequence[Task],
    pooled: Task,
    testing: Task,
    recipe: Recipe,
    seed: int,
    prior: NDArray[np.float64],
    names: Sequence[str],
) -> dict[str, object]:
    if manner in FEDERATIONS:
        rounds, momentum = FEDERATIONS[manner]
        fitted = federate(sites, recipe, seed, rounds, momentum=momentum)
    elif manner.startswith("local-"):
        fitted = fit(sites[int(manner[-1])], recipe, seed)
    elif manner == "pooled":
        fitted = fit(pooled, recipe, seed)
    else:
        fitted = fit(pooled, recipe.planned(updates=SITES * recipe.learner.updates), seed)
    result, _ = judge(testing, fitted.network, recipe, seed, prior, names)
    return result | {"cpu_s": fitted.cpu_s, "updates": fitted.updates}


@cache
def _xray_sites(scenario: str) -> tuple[list[Cases2D], Cases2D, Cases2D]:
    """Each site's images, all of them together, and the held-out ones."""
    cases, _, _ = data.cephalogram_cases()
    held = [case for k, case in enumerate(cases) if k % 5 == 0]
    rest = [case for k, case in enumerate(cases) if k % 5 != 0]
    sites = [rest[site::SITES] for site in range(SITES)]
    if scenario == "shift":
        sites = [_shifted_xrays(site, k) for k, site in enumerate(sites)]
    built = [build_cases_2d(site, 0.3) for site in sites]
    together = build_cases_2d([case for site in sites for case in site], 0.3)
    return built, together, build_cases_2d(held, 0.3)


def _shifted_xrays(cases: list[Case2D], site: int) -> list[Case2D]:
    gamma, blur = _XRAY_SITES[site]
    curve = np.rint(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
    shifted = []
    for case in cases:
        image = case.image[0]
        if blur:
            image = gaussian_filter(image, blur)
        points = case.landmarks_mm.copy()
        points[site::SITES] = np.nan  # nobody marked every fourth landmark here
        shifted.append(Case2D(case.name, curve[image][None], case.spacing_mm, points, case.group))
    return shifted


@cache
def _brain_sites(scenario: str, left_out: str) -> tuple[list[list[Case]], Case]:
    """Twelve subjects, four of each training head, at four sites; and the held-out head."""
    heads = data.heads()
    held = heads.pop(left_out)
    rng = np.random.Generator(np.random.PCG64(7))
    subjects = [[_subject(head, rng) for _ in range(4)] for head in heads.values()]
    if scenario == "IID":
        return [[subjects[head][site] for head in range(3)] for site in range(SITES)], held
    sites = [subjects[0][:3], subjects[1][:3], subjects[2][:3], [s[3] for s in subjects]]
    return [[_rescanned(c, k) for c in site] for k, site in enumerate(sites)], held


def _subject(head: Case, rng: np.random.Generator) -> Case:
    """The head turned, stretched and bent at random; landmarks that leave the grid are missing."""
    volume = head.volume
    size = volume.size.tolist()
    grid = Grid(
        (size[0], size[1], size[2]), (volume.spacing_mm,) * 3, volume.origin_mm, volume.direction
    )
    raw = RawImage(volume.voxels, grid)
    affine = np.diag(rng.uniform(0.9, 1.1, 3)) + rng.uniform(-0.1, 0.1, (3, 3))
    bend = random_bend(rng, 280.0, 7.0)
    middle = volume.centre_mm
    deformation = Deformation(affine, middle, middle + rng.uniform(-8, 8, 3), bend)
    voxels = np.clip(np.rint(deformation.warp(raw, grid)), 0, 255).astype(np.uint8)
    points = deformation.to_subject(head.landmarks_mm)
    moved = Volume(voxels, volume.spacing_mm, volume.origin_mm, volume.direction)
    points[~moved.contains(points)] = np.nan
    return Case(head.name, moved, points)


def _rescanned(case: Case, site: int) -> Case:
    gamma, blur = _BRAIN_SITES[site]
    voxels = gaussian_filter(case.volume.voxels, blur) if blur else case.volume.voxels
    voxels = np.rint(255 * (voxels / np.float32(255)) ** gamma).astype(np.uint8)
    points = case.landmarks_mm.copy()
    points[(site + 1) % len(points)] = np.nan  # each site lacks another landmark
    volume = case.volume
    moved = Volume(voxels, volume.spacing_mm, volume.origin_mm, volume.direction)
    return Case(case.name, moved, points)


REPLAYS: dict[str, tuple[dict[str, object], str]] = {
    "uniform": ({"replay": "uniform"}, "none"),
    "prioritised": ({"replay": "prioritised"}, "none"),
    "rare-first, own counts": ({"replay": "rare-first"}, "none"),
    "rare-first, federation's counts": ({"replay": "rare-first"}, "federation"),
}
REPLAY_ROUNDS = 6


def replay(seeds: list[int]) -> Iterator[Job]:
    """Four sites, DQN without path supervision, error after every second round."""
    recipe = PLANAR.planned(
        updates=600, batch=32, searches=32, warm_start=0.0, gamma=0.5, warmup=1000
    )
    for seed in seeds:
        for name, (changes, counts) in REPLAYS.items():

            def job(
                seed: int = seed, changes: dict = changes, counts: str = counts
            ) -> dict[str, object]:
                return _replay_job(recipe.planned(**changes), seed, counts)

            yield f"{name}/seed{seed}", job


def _replay_job(recipe: Recipe, seed: int, counts: str) -> dict[str, object]:
    sites, pooled, held = _few_landmarks()
    testing = planar_task(held)
    few = recipe.evaluation.model_copy(update={"starts": 1, "native": False})
    prior, curve = planar_prior(pooled), []

    def look(round_: int, network: QNetwork) -> None:
        if round_ % 2 == 0:
            report = evaluate(testing, network, few, 77, prior=prior)
            errors = report.posed_searches.errors
            curve.append(
                {
                    "updates": round_ * recipe.learner.updates // REPLAY_ROUNDS,
                    "mean": float(errors.mean()),
                    "median": float(np.median(errors)),
                    "far": float((errors > 10).mean()),
                    "prior": float(report.posed_searches.prior_errors.mean()),
                }
            )

    tasks = [planar_task(site) for site in sites]
    shared = MergedCounts() if counts == "federation" else None
    fitted = federate(tasks, recipe, seed, REPLAY_ROUNDS, shared=shared, after_round=look)
    return {"curve": curve, "cpu_s": fitted.cpu_s, "updates": fitted.updates}


@cache
def _few_landmarks() -> tuple[list[Cases2D], Cases2D, Cases2D]:
    """Every third landmark of the X-rays: enough to see a difference, cheap to repeat."""
    cases, _, _ = data.cephalogram_cases()
    few = [Case2D(c.name, c.image, c.spacing_mm, c.landmarks_mm[::3], c.group) for c in cases]
    rest = [case for k, case in enumerate(few) if k % 5 != 0]
    held = [case for k, case in enumerate(few) if k % 5 == 0]
    sites = [build_cases_2d(rest[site::SITES], 0.3) for site in range(SITES)]
    return sites, build_cases_2d(rest, 0.3), build_cases_2d(held, 0.3)
