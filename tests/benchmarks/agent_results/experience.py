"""What sharing experience is worth: how replay draws, over fresh splits of the X-rays.

Three sites, federated, DQN without path supervision. Sites tell each other count sketches,
of a plan's own size, and every replay asks their sum. Each seed draws which thirty X-rays
are held out, which site has which of the others, and the first weights; all manners of a
seed share all three. Nothing here was chosen by looking at these splits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache

import numpy as np

from common.plan.experience import Experience
from common.sketching import CountSketch, SketchSpec
from site_client.agent.evaluation import Searched, evaluate
from site_client.agent.experience import Keys, Lookup, NewExperience
from site_client.agent.keys import ExperienceKeys, codec_of
from site_client.agent.network import network_values
from site_client.agent.networks import QNetwork
from site_client.agent.novelty import Familiar
from site_client.agent.task import Task
from site_client.agent.tasks.landmark2d import Case2D, Cases2D, build_cases_2d
from site_client.worker.experience import Frequencies, MeanErrors, places_met
from tests.benchmarks.agent_results import data
from tests.benchmarks.agent_results.former_keys import place_and_next
from tests.benchmarks.agent_results.studies import PLANAR, Job, planar_prior, planar_task
from tests.benchmarks.agent_results.training import Recipe, federate

SITES, ROUNDS, HELD_OUT = 3, 5, 30
BY_OFFSET, BY_PLACE = Experience(), Experience(key="place")
RECIPE = Recipe(
    PLANAR.network.model_copy(update={"width": 12}), PLANAR.learner, PLANAR.evaluation
).planned(updates=400, batch=32, searches=16, warm_start=0.0, gamma=0.5, warmup=1000)


class Sketches:
    """Count sketches of all sites together, and of their errors, as rounds merge them.

    Args:
        name: makes the names of a task's situations.
        about: "counts" of what was met, "errors" of what was replayed, or "kept": counts
            that no replay asks.
    """

    def __init__(self, name: Callable[[Task], Keys], about: str) -> None:
        self._name, self._about = name, about
        self.spec = SketchSpec(BY_OFFSET.rows, BY_OFFSET.columns, bytes(range(16)))
        self.counts, self.errors = CountSketch(self.spec), CountSketch(self.spec)
        self.total, self.error, self._rounds = 0, 0, 0

    def keys(self, task: Task) -> Keys:
        return self._name(task)

    def known(self) -> Lookup | None:
        if self._about == "errors":
            if not self._rounds:
                return MeanErrors()
            return MeanErrors(self.counts, self.errors, self.total, self.error)
        if self._about == "counts":
            merged = self.counts if self._rounds else None
            return Frequencies(merged, replay_first=self._rounds > 0)
        return None

    def add(self, told: Sequence[NewExperience]) -> None:
        if self._about == "errors":
            self.counts, self.errors = (self._halved(s) for s in (self.counts, self.errors))
            self.total, self.error = self.total // 2, self.error // 2
        for experience in told:
            self.counts.update(experience.keys)
            self.total += len(experience.keys)
            if len(experience.errors):
                self.errors.update(experience.keys, experience.errors)
                self.error += int(experience.errors.sum())
        self._rounds += 1

    def _halved(self, sketch: CountSketch) -> CountSketch:
        return CountSketch.from_table(self.spec, halved(sketch.table))


def halved(table: np.ndarray) -> np.ndarray:
    return np.sign(table) * (np.abs(table) // 2)


def by(cells: Experience) -> Callable[[Task], Keys]:
    return lambda task: ExperienceKeys(task, codec_of(task, cells))


MANNERS: dict[str, tuple[dict[str, object], Callable[[], Sketches | None]]] = {
    "uniform": ({"replay": "uniform"}, lambda: Sketches(by(BY_PLACE), "kept")),
    "rare-first, former key": (
        {"replay": "rare-first"},
        lambda: Sketches(place_and_next, "counts"),
    ),
    "rare-first, by offset": ({"replay": "rare-first"}, lambda: Sketches(by(BY_OFFSET), "counts")),
    "wrong-first, by offset": (
        {"replay": "wrong-first"},
        lambda: Sketches(by(BY_OFFSET), "errors"),
    ),
    "path supervision": (
        {"replay": "uniform", "path_supervision_only": True},
        lambda: None,
    ),
}


def replays(seeds: list[int]) -> Iterator[Job]:
    """Each manner of drawing, on each seed's split."""
    for seed in seeds:
        for name, (changes, share) in MANNERS.items():

            def job(
                seed: int = seed,
                changes: dict = changes,
                share: Callable[[], Sketches | None] = share,
            ) -> dict[str, object]:
                return _replay_job(RECIPE.planned(**changes), seed, share())

            yield f"{name}/seed{seed}", job


def _replay_job(recipe: Recipe, seed: int, shared: Sketches | None) -> dict[str, object]:
    sites, pooled, held = _split(seed)
    testing, prior = planar_task(held), planar_prior(pooled)
    tasks = [planar_task(site) for site in sites]
    fitted = federate(tasks, recipe, seed, ROUNDS, shared=shared)
    kept = shared is not None and recipe.learner.replay == "uniform"
    final = recipe.evaluation.model_copy(update={"starts": 2, "poses": 2, "native": kept})
    report = evaluate(testing, fitted.network, final, 77, prior=prior)
    posed = report.posed_searches
    result: dict[str, object] = {
        **_figures(posed.errors),
        "prior": float(posed.prior_errors.mean()),
        "consensus": float(posed.agreed_errors.mean()),
        "cpu_s": fitted.cpu_s,
        "updates": fitted.updates,
    }
    if kept:
        result["novelty"] = {
            pose: _hints(testing, fitted.network, shared, searched)
            for pose, searched in (("posed", posed), ("native", report.native_searches))
        }
    return result


def _figures(errors: np.ndarray) -> dict[str, float]:
    return {
        "mean": float(errors.mean()),
        "median": float(np.median(errors)),
        "far": float((errors > 10).mean()),
        "searches": int(errors.size),
    }


def _hints(
    task: Task, network: QNetwork, shared: Sketches, searched: Searched
) -> dict[str, list[float]]:
    """For each answer: its error, and hints of it that need no truth."""
    agreed, ends = searched.agreed, searched.found["position"]
    gap = np.linalg.norm(ends - agreed["position"][:, None], axis=2)
    codec = codec_of(task, BY_PLACE)
    sizes = (task.heads, task.levels, BY_PLACE.position_bins)
    familiar = Familiar(places_met(shared.counts, codec, sizes, flat=True))
    return {
        "error": np.round(searched.agreed_errors, 3).tolist(),
        "head": agreed["head"].tolist(),
        "met": np.round(familiar.shares(task, agreed), 5).tolist(),
        "spread": np.round(gap.mean(axis=1), 3).tolist(),
        "value": np.round(network_values(task, network, agreed).max(axis=-1), 4).tolist(),
    }


@cache
def _split(seed: int) -> tuple[list[Cases2D], Cases2D, Cases2D]:
    """Every fourth landmark of the X-rays: enough to see a difference, cheap to repeat."""
    cases, _, _ = data.cephalogram_cases()
    few = [Case2D(c.name, c.image, c.spacing_mm, c.landmarks_mm[::4], c.group) for c in cases]
    order = np.random.Generator(np.random.PCG64([seed, 15])).permutation(len(few))
    held = [few[k] for k in order[:HELD_OUT]]
    rest = [few[k] for k in order[HELD_OUT:]]
    sites = [build_cases_2d(rest[site::SITES], 0.3) for site in range(SITES)]
    return sites, build_cases_2d(rest, 0.3), build_cases_2d(held, 0.3)
