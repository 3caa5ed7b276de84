"""Which data, which settings, and the jobs that are computed of them.

The settings were chosen before any figure was seen but for one look at seed 0 of the scene
(how many updates fit the processor), and are the same for every arm.
"""

import shutil
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

from tests.benchmarks.founding import agents, road, scene, tissue
from tests.benchmarks.founding.stacks import SITES

WORK = Path("build/founding")
ARMS = ("maps", "bands", "components", "local", "pooled", "smoothed-bands", "labels")


@dataclass(frozen=True)
class Study:
    """Data and the settings of all passes.

    Attributes:
        read: the data of a seed.
        pixels: section of the plan of pass one.
        clusters: of the codebook.
        agent: settings of pass three, in working pixels where they are lengths.
    """

    read: object
    pixels: dict
    clusters: int
    agent: dict = field(default_factory=dict)


_AGENT = {
    "working_pixels": 1,
    "roi": 20,
    "zooms": [1.0, 3.0],
    "ladder": {"scales": [2.0, 1.0], "steps": [4.0, 1.0]},
    "rotation_deg": 15.0,
    "shift": 8,
    "learner": {
        "updates": 180,
        "batch": 24,
        "searches": 8,
        "warmup": 320,
        "episode_steps": 20,
        "warm_start": 0.5,
        "replay_capacity": 10_000,
    },
    "starts": 3,
    "poses": 1,
    "rounds": 6,
    "momentum": 0.0,
}
STUDIES = {
    "scene": Study(
        scene.read,
        {
            "components": 4,
            "bins": 16,
            "tail": 0.001,
            "smoothing": 2.0,
            "value_scale": 16,
            "rows": 9,
            "columns": 20_000,
            "top": 5_000,
        },
        12,
        _AGENT,
    ),
    "tissue": Study(
        tissue.read,
        {
            "components": 6,
            "bins": 16,
            "tail": 0.001,
            "smoothing": 2.0,
            "value_scale": 16,
            # Binned 4 x 4, hardly a pixel is empty: there is no peak to find the floor by.
            "floor": 64,
            "rows": 9,
            "columns": 50_000,
            "top": 10_000,
        },
        20,
        _AGENT | {"working_pixels": 2, "rotation_deg": 180.0, "shift": 12},
    ),
}


def jobs(name, seeds, arms=ARMS):
    """Name and work of what is to be computed for some data; passes 1 and 2 come first."""
    for seed in seeds:
        for arm in ("passes-1-2", *arms):
            yield f"{name}/{arm}/seed{seed}", partial(_OF.get(arm, federated), name, seed, arm)


def folder_of(name, seed):
    return WORK / f"{name}-seed{seed}"


@lru_cache(maxsize=1)
def data_of(name, seed):
    return STUDIES[name].read(seed)


def passes(name, seed, _):
    """Passes one and two, from nothing; leaves every arm's images."""
    root, data, costs = folder_of(name, seed), data_of(name, seed), road.Costs()
    study = STUDIES[name]
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    road.write_slides(root, data)
    with costs.of("count"):
        keys = road.count_together(root, data, seed, study.pixels)
    with costs.of("codebook"):
        book = road.name_clusters(root, data, keys, study.clusters, seed)
    with costs.of("maps"):
        accuracy = road.write_maps(root, data)
    with costs.of("others"):
        smoothing = round(1000 * study.pixels["smoothing"])
        chosen = road.write_others(root, data, smoothing)
    rows, columns = data.subjects[0].slices.shape[1:3]
    return road.facts(root, keys, book) | {
        "cpu_s": costs,
        "map_balanced_accuracy": accuracy,
        "bands_shown": chosen,
        "bands": len(data.bands),
        "subjects": len(data.subjects),
        "held_out": len(data.of(held_out=True)),
        "side_pixels": [rows, columns],
        "pixel_mm": data.pixel_mm,
        "pixels_counted": sum(s.tumour.size for s in data.of(held_out=False)),
        "tolerance_mm": data.tolerance_mm,
        "landmarks": list(data.landmarks),
        "settings": {"pixels": study.pixels, "clusters": study.clusters, "agent": study.agent},
    }


def _arm(name, seed, arm):
    root, data = folder_of(name, seed), data_of(name, seed)
    plan = agents.agent_plan(data, seed, STUDIES[name].agent)
    if arm == "labels" and not (root / "images" / arm).exists():
        road.write_maps(root, data, arm, None)
    folders = [root / "images" / arm / site for site in SITES]
    sites = [agents.read(folder, plan) for folder in folders]
    held_out = agents.read(root / "images" / arm / "held-out", plan)
    prior = agents.pooled(sites).prior

    def judge(weights):
        return agents.judge(weights, plan, held_out, prior, data.tolerance_mm)

    return root, plan, folders, sites, judge


def federated(name, seed, arm):
    """The three sites' agents, averaged in every round."""
    root, plan, folders, _, judge = _arm(name, seed, arm)
    place = root / f"federation-{arm}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    weights, spent, sent = agents.federate(place, plan, folders)
    shutil.rmtree(place)
    return {"figures": [judge(weights)], "cpu_s": spent, "bytes_a_site": sent}


def local(name, seed, _):
    """Each site alone on its maps, the same gradient steps; judged on all sites' held-out."""
    _, plan, _, sites, judge = _arm(name, seed, "maps")
    figures, whole = [], 0.0
    for number, site in enumerate(sites):
        weights, spent = agents.alone(plan, site, 100 * seed + number, plan.learner.updates)
        figures.append(judge(weights))
        whole += spent
    return {"figures": figures, "cpu_s": whole}


def pooled(name, seed, _):
    """One agent on all sites' maps, with the gradient steps of all sites together."""
    _, plan, _, sites, judge = _arm(name, seed, "maps")
    updates = plan.learner.updates * len(sites)
    weights, spent = agents.alone(plan, agents.pooled(sites), 100 * seed + 50, updates)
    return {"figures": [judge(weights)], "cpu_s": spent}


def over_commands(name, seed, _):
    """The whole road by commands over loopback; see ``loopback``."""
    from tests.benchmarks.founding import loopback

    return loopback.over_commands(name, seed)


_OF = {"passes-1-2": passes, "local": local, "pooled": pooled, "commands": over_commands}
