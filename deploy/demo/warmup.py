"""Compiles the numerical kernels once, before seven processes would each do it for themselves.

numba keeps what it compiled on disk; after the first run this takes a moment.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from common.model import initial_weights
from common.plan import read_plan
from common.sketching import CountSketch, SketchSpec
from site_client.agent.federated import evaluate_weights, planned_learner
from site_client.imaging.case_sets import Cases
from site_client.imaging.dataset import Case
from site_client.imaging.volumes import Volume
from site_client.worker.site_cases import SiteCases


@click.command()
@click.argument("plan_file", type=click.Path(path_type=Path))
def main(plan_file: Path) -> None:
    """Train two updates on noise, evaluate, sketch and query, with PLAN's own types."""
    plan = read_plan(plan_file)
    learner = plan.learner.model_copy(update={"warmup": plan.learner.searches})
    brief = plan.evaluation.model_copy(update={"starts": 1, "poses": 1})
    plan = plan.model_copy(update={"learner": learner, "evaluation": brief})
    rng = np.random.default_rng(0)
    voxels = rng.integers(0, 255, (40, 40, 40), dtype=np.uint8)
    volume = Volume(voxels, plan.task.spacing_mm, (0.0, 0.0, 0.0), np.eye(3))
    middle = np.tile(volume.centre_mm, (len(plan.task.landmarks), 1))
    cases = Cases(plan.task.landmarks, volumes=(Case("noise", volume, middle),))
    task = SiteCases(cases, plan).task
    trained = planned_learner(plan, task, seed=0)
    sketch = CountSketch(SketchSpec(plan.experience.rows, plan.experience.columns, bytes(16)))
    trained.train(2, lambda keys: np.maximum(sketch.estimate(keys), 1.0))
    sketch.update(trained.new_experience().keys)
    evaluate_weights(initial_weights(plan), plan, task, seed=0)


if __name__ == "__main__":
    main()
