"""Find landmarks in images of which nothing is known, and show how they were found.

There is no truth here: what the cases hold as landmarks is a stand-in, and no
error is ever computed from it. The spread of several searches is the only hint
of how sure an answer is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from site_client.agent.evaluation import Searched
from site_client.agent.networks import QNetwork
from site_client.agent.search import action_values, greedy_search
from site_client.agent.settings import EvaluationSettings
from site_client.agent.task import Situations
from site_client.agent_app.cases import Cases
from site_client.agent_app.checkpoint import Checkpoint
from site_client.agent_app.config import Config
from site_client.agent_app.evaluating import EVALUATION_SEED, network_of
from site_client.agent_app.films import LEVEL_COLOURS, MOST_FRAMES
from site_client.agent_app.pictures import Overlay, caption, draw_case
from site_client.agent_app.results import Prediction, predictions
from site_client.agent_app.tasks import Built, build

_ACTIONS: Final = {
    2: ("right", "left", "down", "up"),
    3: ("left", "right", "back", "front", "head", "foot"),
}


@dataclass(frozen=True, eq=False)
class Played:
    """What was found.

    Attributes:
        built: the task over the images.
        network: what searched.
        found: an answer per image and landmark, without errors.
    """

    built: Built
    network: QNetwork
    found: tuple[Prediction, ...]


@dataclass(frozen=True, eq=False)
class Trace:
    """One search, or that of one team, step by step.

    Attributes:
        positions: float64[t, agents, d], given as landmarks are.
        levels: int64[t].
        values: float32[t, agents, actions], what each action promised.
    """

    positions: NDArray[np.float64]
    levels: NDArray[np.int64]
    values: NDArray[np.float32]


def play(checkpoint: Checkpoint, config: Config, cases: Cases) -> Played:
    """Search every landmark in every image, from several starts.

    Args:
        checkpoint: whose network searches.
        config: its configuration, perhaps with other settings of evaluation.
        cases: from `without_truth`.
    """
    built = build(cases, config)
    network = network_of(built, checkpoint, config)
    settings = config.evaluation
    rng = np.random.Generator(np.random.PCG64(EVALUATION_SEED))
    starts = built.task.starts(rng, settings.starts, posed=False)
    ended = greedy_search(built.task, network, starts, settings)
    found = ended.reshape(-1, settings.starts)
    # Errors are those against the stand-ins: they are left out.
    nothing = np.full(found.shape, np.nan)
    searched = Searched(found, nothing, found[:, 0], nothing[:, 0], None, {})
    answers = predictions(built, searched, settings.outlier_mads, truth=False)
    return Played(built, network, tuple(answers))


def trace(played: Played, case: int, head: int, settings: EvaluationSettings) -> Trace:
    """Follow one search, from its start to its end."""
    task = played.built.task
    rng = np.random.Generator(np.random.PCG64(EVALUATION_SEED))
    starts = task.starts(rng, 1, posed=False)
    start = starts[(starts["case"] == case) & (starts["head"] == head)][:1]
    visited: list[Situations] = [start.copy()]
    ended = greedy_search(task, played.network, start, settings, visited)
    steps: Situations = np.concatenate([*visited, ended])
    values = action_values(task, played.network, steps)
    return Trace(
        positions=played.built.plane_mm(steps),
        levels=steps["level"].astype(np.int64),
        values=values.reshape(len(steps), -1, values.shape[-1]),
    )


def frames(played: Played, case: int, head: int, config: Config) -> list[Image.Image]:
    """A search as pictures: slice, box of what is seen, path, level and values of the actions."""
    steps = trace(played, case, head, config.evaluation)
    each = played.built.cases.each[case]
    labels = _labels(played.built, head)
    chosen = np.unique(np.linspace(0, len(steps.levels) - 1, MOST_FRAMES).astype(np.int64))
    pictures: list[Image.Image] = []
    for step in chosen:
        level = int(steps.levels[step])
        stride = config.ladder.scales[level] * config.task.spacing_mm
        overlay = Overlay(
            middle=steps.positions[step, 0],
            found=list(steps.positions[step]),
            path=steps.positions[: step + 1, 0],
            box_mm=stride * config.task.roi,
            colour=LEVEL_COLOURS[level % len(LEVEL_COLOURS)],
        )
        line = (
            f"{labels}   step {step} of {len(steps.levels) - 1}   level {level + 1} of "
            f"{len(config.ladder.scales)}: {config.ladder.steps_mm[level]:g} mm steps"
        )
        values = [float(value) for value in steps.values[step, 0]]
        names = _ACTIONS[steps.positions.shape[-1]]
        pictures.append(caption(draw_case(each, overlay), line, names, values))
    return pictures


def films(played: Played, config: Config) -> Iterator[tuple[str, list[Image.Image]]]:
    """One search per image and head: ``<case>_<landmark>`` and its pictures, one at a time."""
    for case in range(len(played.built.cases)):
        for head in range(len(played.built.teams)):
            name = f"{played.built.cases.each[case].name}_{_labels(played.built, head)}"
            yield name, frames(played, case, head, config)


def _labels(built: Built, head: int) -> str:
    """The landmarks of a head, for a caption or a file's name."""
    names = dict.fromkeys(built.cases.landmarks[k] for k in built.teams[head])
    return "+".join(names) if len(names) <= 3 else f"team{head + 1}"
