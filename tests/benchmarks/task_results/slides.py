"""Glimpses: made slides, and tissue fields whose nests of epithelium are to be found.

The fields are real (multiplexed imaging of breast tissue); what is looked for in them is made
of a channel that the agent is not shown, smoothed and cut at a share of its peak: no
pathologist drew it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from common.settings import EvaluationSettings, GlimpseSettings, LearnerSettings, PoseSettings
from site_client.agent.evaluation import mean_parameters
from site_client.agent.network import network_values
from site_client.agent.networks import QNetwork
from site_client.agent.tasks.glimpses import GlimpseCase, GlimpseSearch
from site_client.agent.tasks.poses import native_poses
from site_client.imaging.growing import distances_from, innermost
from site_client.imaging.pyramids import Raster
from tests.benchmarks.agent_results import data
from tests.benchmarks.agent_results.training import Recipe, fit
from tests.benchmarks.task_results.training import NETWORK, measured
from tests.made.slides import make_slide

READING = EvaluationSettings(starts=3, poses=1, native=True, most_steps=60)
LEARNING: dict[str, object] = {"updates": 800, "replay_capacity": 20_000}
POSES = PoseSettings(shift_mm=5.0)
LEARNERS: dict[str, tuple[str, dict[str, object]]] = {
    "path supervision": ("found", {"path_supervision_only": True}),
    "DQN": ("found", {"warm_start": 0.1, "gamma": 0.9}),
    "path supervision by the way": ("approach", {"path_supervision_only": True}),
    "DQN by the way": ("approach", {"warm_start": 0.5, "gamma": 0.9}),
}
_SLIDES, _HELD_OUT, _FIELDS_HELD_OUT = 16, 10, 6
_SHOWN = ("HH3", "VIM", "COLI", "SMA")
_LOOKED_FOR, _PEAK, _SMOOTHED = "PanKRT", 0.5, 6.0

Job = Callable[[], dict[str, object]]


@cache
def slides(seed: int, count: int) -> tuple[GlimpseCase, ...]:
    """Made slides of 1024 pixels a side."""
    rng, cases = np.random.default_rng([4, seed]), []
    for k in range(count):
        slide = make_slide(rng)
        cases.append(_case(str(k), slide.pixels[None], slide.mask))
    return tuple(cases)


@cache
def fields() -> tuple[GlimpseCase, ...]:
    """Real tissue fields of 1024 pixels a side, four channels shown."""
    cases = []
    for folder in sorted((data.FOLDER / "dcis_mibi").glob("point*")):
        shown = [_channel(folder, name) for name in _SHOWN]
        # Counts of ions are sparse: smoothed a little, and each channel to its own range.
        even = [_smoothed(channel, 1.5) for channel in shown]
        scaled = [255 * np.clip(c / max(np.percentile(c, 99.5), 1e-6), 0, 1) for c in even]
        pixels = np.stack(scaled).astype(np.uint8)
        hidden = _smoothed(_channel(folder, _LOOKED_FOR), _SMOOTHED)
        cases.append(_case(folder.name, pixels, hidden > _PEAK * hidden.max()))
    return tuple(cases)


def glimpses(seeds: list[int]) -> Iterator[tuple[str, Job]]:
    """Made slides, and real fields where there are any."""
    for seed in seeds:
        for source in ["made"] + (["tissue"] if data.present("dcis_mibi") else []):
            for name, (reward, how) in LEARNERS.items():

                def job(
                    source: str = source, seed: int = seed, reward: str = reward, how: dict = how
                ) -> dict[str, object]:
                    training, testing = (_laid_out(c, reward) for c in _cases(source, seed))
                    learner = LearnerSettings(**LEARNING | how)
                    fitted = fit(training, Recipe(NETWORK, learner, READING), seed)
                    result = measured(fitted, training, testing, READING, seed)
                    return result | {
                        "exhaustive": exhaustive(testing, fitted.network),
                        "prior_hit": prior_hit(training, testing),
                    }

                yield f"{source}/{name}/seed{seed}", job


def exhaustive(task: GlimpseSearch, network: QNetwork) -> dict[str, float]:
    """Read every view at the highest magnification; declare where that promises most."""
    away, hits = [], []
    for case in range(len(task)):
        side = task.images.sizes[case, 0]
        wide = int(task.views.roi * task.settings.scales[-1])
        columns, rows = (np.arange(wide // 2, n, wide) for n in side)
        places = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
        at = np.zeros(len(places), task.situation)
        at["case"], at["level"], at["glimpses"] = case, task.levels - 1, len(places)
        at["pose"] = native_poses(len(places), 2)
        at["position"] = places - (side - 1) / 2
        worth = np.concatenate(
            [network_values(task, network, part) for part in np.array_split(at, 8)]
        )
        best = at[worth[:, task.declare].argmax()][None]
        away.append(float(task.errors(best)[0]))
        hits.append(float(task.report(best)["hit"][0]))
    return {"mean": float(np.mean(away)), "hit": float(np.mean(hits))}


def prior_hit(training: GlimpseSearch, testing: GlimpseSearch) -> float:
    """Share of cases in which the mean place of the training cases is right."""
    at = testing.starts(np.random.default_rng(0), 1, posed=False)
    testing.move_to(at, np.repeat(mean_parameters(training), len(at), axis=0).astype(np.float32))
    return float(testing.report(at)["hit"].mean())


def _cases(source: str, seed: int) -> tuple[Sequence[GlimpseCase], Sequence[GlimpseCase]]:
    """Cases of training and of measuring, other ones with each seed."""
    if source == "made":
        return slides(10 + seed, _SLIDES), slides(100 + seed, _HELD_OUT)
    every = fields()
    order = np.random.default_rng(seed).permutation(len(every))
    held, rest = order[:_FIELDS_HELD_OUT], order[_FIELDS_HELD_OUT:]
    return [every[k] for k in rest], [every[k] for k in held]


def _laid_out(cases: Sequence[GlimpseCase], reward: str) -> GlimpseSearch:
    settings = GlimpseSettings(scales=(32.0, 8.0, 2.0), cost=0.02, reward=reward)
    return GlimpseSearch(cases, settings, POSES)


def _case(name: str, pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> GlimpseCase:
    raster = Raster(pixels, (1.0, 1.0), np.eye(2))
    return GlimpseCase(name, raster, (distances_from(mask, 1.0),), (innermost(mask),))


def _channel(folder: Path, name: str) -> NDArray[np.float64]:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{name}.tif"))).astype(np.float64)


def _smoothed(values: NDArray[np.float64], pixels: float) -> NDArray[np.float64]:
    image = sitk.SmoothingRecursiveGaussian(sitk.GetImageFromArray(values), pixels)
    return sitk.GetArrayFromImage(image)
