"""The studies: what is trained on, what is held out, by which learners.

Made cases of training and of measuring come from different seeds. DQN is Double DQN after
a warm start of path supervision; path supervision regresses immediate rewards in all
updates. Both have the same network, updates, starts and poses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.settings import (
    BoxSettings,
    CentrelineSettings,
    EvaluationSettings,
    GrowingSettings,
    LearnerSettings,
    PoseSettings,
)
from site_client.agent.tasks.boxes import BoxCase
from site_client.agent.tasks.centreline import Centreline, CentrelineCase
from site_client.agent.tasks.geometry import Ladder
from site_client.agent.tasks.landmark2d import Case2D, Landmark2D, build_cases_2d
from site_client.agent.tasks.seeds import SeedCase, SeedSearch
from site_client.agent.tasks.tracking import Tracking
from site_client.agent.tasks.turned_box import TurnedBoxSearch
from site_client.agent.tasks.views import Views
from site_client.imaging.growing import Grower, innermost
from site_client.imaging.pyramids import Raster
from tests.benchmarks.agent_results import data
from tests.benchmarks.agent_results.training import Recipe, federate
from tests.benchmarks.task_results.slides import glimpses
from tests.benchmarks.task_results.training import NETWORK, learned, measured
from tests.made.lesions import make_lesion
from tests.made.sequences import make_sequence
from tests.made.vessels import make_vessel

Job = Callable[[], dict[str, object]]
LEARNERS: dict[str, dict[str, Any]] = {
    "path supervision": {"path_supervision_only": True},
    "DQN": {"warm_start": 0.5},
}


@dataclass(frozen=True)
class Study:
    """One study: its jobs by name, and the data that it lacks here ("" where none)."""

    jobs: Callable[[list[int]], Iterator[tuple[str, Job]]]
    absent: Callable[[], str] = lambda: ""


# --- centrelines -------------------------------------------------------------------------

_VESSELS, _HELD_OUT, _SITES = 30, 20, 3
TRACING = EvaluationSettings(starts=3, poses=1, native=True, most_steps=120)
TRACE: dict[str, object] = {"updates": 600, "replay_capacity": 20_000}


@cache
def vessels(dim: int, seed: int, count: int) -> tuple[CentrelineCase, ...]:
    """Made vessels of 64 mm a side, each with its line."""
    rng, cases = np.random.default_rng([dim, seed]), []
    for k in range(count):
        vessel = make_vessel(rng, dim)
        middle = (np.array(vessel.pixels.shape[::-1]) - 1) / 2
        raster = Raster(vessel.pixels[None], (1.0,) * dim, np.eye(dim))
        cases.append(CentrelineCase(str(k), raster, (vessel.line - middle,)))
    return tuple(cases)


def tracing(cases: Sequence[CentrelineCase]) -> Centreline:
    """Lay vessels out for tracing, as the kind's defaults do."""
    return Centreline(cases, CentrelineSettings(), PoseSettings())


def centrelines(seeds: list[int]) -> Iterator[tuple[str, Job]]:
    """Made vessels in two and in three dimensions; in three also as a federation."""
    for dim in (2, 3):
        for seed in seeds:
            for name, how in LEARNERS.items():

                def job(dim: int = dim, seed: int = seed, how: dict = how) -> dict[str, object]:
                    training = tracing(vessels(dim, 10 + seed, _VESSELS))
                    testing = tracing(vessels(dim, 100 + seed, _HELD_OUT))
                    return learned(training, testing, TRACING, seed, **TRACE, **how)

                yield f"{dim}D/{name}/seed{seed}", job

    for seed in seeds:

        def together(seed: int = seed) -> dict[str, object]:
            cases, each = vessels(3, 10 + seed, _VESSELS), _VESSELS // _SITES
            sites = [tracing(cases[k * each : (k + 1) * each]) for k in range(_SITES)]
            recipe = Recipe(NETWORK, LearnerSettings(**TRACE, **LEARNERS["DQN"]), TRACING)
            fitted = federate(sites, recipe, seed, rounds=6)
            testing = tracing(vessels(3, 100 + seed, _HELD_OUT))
            return measured(fitted, tracing(cases), testing, TRACING, seed)

        yield f"3D/DQN, federated/seed{seed}", together


# --- turned boxes ------------------------------------------------------------------------

BOXES = EvaluationSettings(starts=3, poses=1, native=True, most_steps=80)
BOX: dict[str, object] = {"updates": 800, "gamma": 0.9, "replay_capacity": 20_000}
ANY_WAY = PoseSettings(rotation_deg=180.0, shift_mm=5.0)


def _absent(name: str) -> Callable[[], str]:
    return lambda: "" if data.present(name) else f"{name} in the folder of development data"


@cache
def turned_heads() -> tuple[tuple[BoxCase, ...], NDArray[np.int64]]:
    """Fetal heads, each with the rectangle along the axes of its annotated ellipse."""
    heads = data.fetal_heads()
    cases, fetus = [], []
    for case, number in zip(heads.cases, heads.fetus, strict=True):
        middle = (np.array(case.image.shape[:0:-1]) - 1) / 2 * case.spacing_mm
        centre, left, right, top, bottom = case.landmarks_mm - middle
        long, short = right - left, bottom - top
        if not np.isfinite([centre, long, short]).all():
            continue  # an end lies outside the picture
        half = np.array([np.linalg.norm(long), np.linalg.norm(short)]) / 2
        straight = np.stack([centre - half, centre + half])[None]
        turns = np.array([np.arctan2(long[1], long[0])])
        raster = Raster(case.image, case.spacing_mm, np.eye(2))
        cases.append(BoxCase(case.name, raster, straight, None, turns))
        fetus.append(number)
    return tuple(cases), np.array(fetus)


def turned_boxes(seeds: list[int]) -> Iterator[tuple[str, Job]]:
    """Fetal heads on real ultrasound, a third of the fetuses held out, another with each seed."""
    for seed in seeds:
        for name, how in LEARNERS.items():

            def job(seed: int = seed, how: dict = how) -> dict[str, object]:
                cases, fetus = turned_heads()
                unique = np.unique(fetus)
                order = np.random.default_rng(seed).permutation(len(unique))
                held = np.isin(fetus, unique[order[: len(unique) // 3]])
                training = [cases[k] for k in np.flatnonzero(~held)]
                testing = [cases[k] for k in np.flatnonzero(held)]
                return learned(
                    TurnedBoxSearch(training, BoxSettings(), ANY_WAY),
                    TurnedBoxSearch(testing, BoxSettings(), ANY_WAY),
                    *(BOXES, seed),
                    **BOX | how,
                )

            yield f"{name}/seed{seed}", job


# --- seeds -------------------------------------------------------------------------------

SEEDING = EvaluationSettings(starts=3, poses=1, native=True, most_steps=50)
SEED: dict[str, object] = {"updates": 500, "replay_capacity": 20_000}
_LESIONS = 24
SEED_POSES = PoseSettings(shift_mm=5.0)
# Who takes a label's innermost point for the best seed can be supervised by the way to it.
SEED_LEARNERS: dict[str, tuple[str, dict[str, Any]]] = {
    "path supervision": ("dice", {"path_supervision_only": True}),
    "DQN": ("dice", {"warm_start": 0.25, "gamma": 0.95}),
    "path supervision by the way": ("approach", {"path_supervision_only": True}),
}


@cache
def lesions(seed: int, count: int) -> tuple[SeedCase, ...]:
    """Made lesions of 64 mm a side."""
    rng, cases = np.random.default_rng([3, seed]), []
    settings = GrowingSettings()
    for k in range(count):
        lesion = make_lesion(rng, 2)
        grower = Grower(lesion.pixels, 1.0, settings.tolerance, settings.smooth_mm)
        raster, inner = Raster(lesion.pixels[None], (1.0, 1.0), np.eye(2)), innermost(lesion.mask)
        cases.append(SeedCase(str(k), raster, (lesion.mask,), (inner,), grower.region))
    return tuple(cases)


@cache
def heads_to_grow() -> tuple[tuple[SeedCase, ...], NDArray[np.int64]]:
    """Fetal heads at about 1 mm, the annotated ellipse as the label."""
    heads = data.fetal_heads()
    settings, cases, fetus = GrowingSettings(), [], []
    for case, number in zip(heads.cases, heads.fetus, strict=True):
        if not np.isfinite(case.landmarks_mm).all():
            continue
        pixels, spacing = case.image[0], case.spacing_mm[0]
        factor = max(1, round(1.0 / spacing))
        rows, columns = (n // factor for n in pixels.shape)
        blocks = pixels[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor)
        small, apart = blocks.mean(axis=(1, 3)).astype(np.uint8), spacing * factor
        centre, left, right, top, bottom = case.landmarks_mm - spacing * (factor - 1) / 2
        along, across = (right - left) / 2, (bottom - top) / 2
        y, x = np.mgrid[:rows, :columns] * apart
        away = np.stack([x, y], axis=-1) - centre
        mask = (away @ along / (along @ along)) ** 2 + (away @ across / (across @ across)) ** 2 <= 1
        grower = Grower(small, apart, settings.tolerance, settings.smooth_mm)
        raster = Raster(small[None], (apart, apart), np.eye(2))
        inner = innermost(mask)
        cases.append(SeedCase(case.name, raster, (mask,), (inner,), grower.region))
        fetus.append(number)
    return tuple(cases), np.array(fetus)


def seeds_of_regions(source: str, seeds: list[int]) -> Iterator[tuple[str, Job]]:
    """Made lesions, or fetal heads on real ultrasound."""
    for seed in seeds:
        for name, (reward, how) in SEED_LEARNERS.items():

            def job(seed: int = seed, reward: str = reward, how: dict = how) -> dict[str, object]:
                training, testing = _seed_cases(source, seed)
                settings = GrowingSettings(reward=reward)
                return learned(
                    SeedSearch(training, settings, SEED_POSES),
                    SeedSearch(testing, settings, SEED_POSES),
                    *(SEEDING, seed),
                    **SEED | how,
                )

            yield f"{source}/{name}/seed{seed}", job


def _seed_cases(source: str, seed: int) -> tuple[list[SeedCase], list[SeedCase]]:
    """Cases of training and of measuring, other ones with each seed."""
    if source == "made":
        return list(lesions(10 + seed, _LESIONS)), list(lesions(100 + seed, _HELD_OUT))
    cases, fetus = heads_to_grow()
    order = np.random.default_rng(seed).permutation(np.unique(fetus))
    parts = order[:_LESIONS], order[_LESIONS : _LESIONS + _HELD_OUT]
    training, testing = ([c for c, f in zip(cases, fetus, strict=True) if f in p] for p in parts)
    return training, testing


# --- sequences ---------------------------------------------------------------------------

FOLLOWING = EvaluationSettings(starts=3, poses=1, native=True, most_steps=40)
FOLLOW: dict[str, object] = {"updates": 600, "replay_capacity": 20_000}
_SEQUENCES, _FRAMES = 24, 8
FOLLOW_LADDER = Ladder((2.0, 1.0, 1.0), (6.0, 2.0, 1.0))


def following(
    seed: int, count: int, *, anew: bool = False, far: bool = False
) -> Tracking | Landmark2D:
    """Made sequences of eight frames.

    ``anew`` looks for the landmark in each frame by itself; ``far`` goes by displacements.
    """
    rng, cases, names = np.random.default_rng([5, seed]), [], []
    for k in range(count):
        made = make_sequence(rng, _FRAMES)
        for t, (frame, at) in enumerate(zip(made.frames, made.places, strict=True)):
            cases.append(Case2D(f"{k}_{t}", frame[None], (1.0, 1.0), at[None]))
            names.append(str(k))
    views, poses = Views(25, (1.0, 3.0)), PoseSettings(shift_mm=5.0)
    if anew:
        return Landmark2D(build_cases_2d(cases), FOLLOW_LADDER, views, poses)
    steps = FOLLOW_LADDER.steps_mm
    reach = tuple(2 * step for step in (steps[0], *steps[:-1])) if far else ()
    return Tracking(build_cases_2d(cases), names, FOLLOW_LADDER, views, poses, reach)


def sequences(seeds: list[int]) -> Iterator[tuple[str, Job]]:
    """Made sequences, followed and, to compare, each frame by itself."""
    for seed in seeds:
        others = {
            "displacements": {"method": "displacement"},
            "DQN, each frame anew": LEARNERS["DQN"],
        }
        for name, how in {**LEARNERS, **others}.items():

            def job(seed: int = seed, name: str = name, how: dict = how) -> dict[str, object]:
                anew, far = name.endswith("anew"), name == "displacements"
                training = following(10 + seed, _SEQUENCES, anew=anew, far=far)
                testing = following(100 + seed, _HELD_OUT, anew=anew, far=far)
                return learned(training, testing, FOLLOWING, seed, **FOLLOW | how)

            yield f"{name}/seed{seed}", job


STUDIES = {
    "sequences": Study(sequences),
    "glimpses": Study(glimpses),
    "seeds": Study(partial(seeds_of_regions, "made")),
    "seeds-ultrasound": Study(partial(seeds_of_regions, "ultrasound"), _absent("hc18")),
    "centrelines": Study(centrelines),
    "turned-boxes": Study(turned_boxes, _absent("hc18")),
}
