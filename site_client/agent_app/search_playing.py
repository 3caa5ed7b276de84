"""Find boxes, planes and motions in images of which nothing is known.

No error is ever computed here: what stands in for a truth is not one. How far single
searches are from what they agree on, and a box's score, are the only hints.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from common.errors import UsageError
from site_client.agent.evaluation import Searched
from site_client.agent.networks import QNetwork
from site_client.agent.search import consensus, greedy_search
from site_client.agent.task import Situations
from site_client.agent.tasks.box import BoxSearch
from site_client.agent.tasks.plane import PlaneSearch
from site_client.agent.tasks.registration import Registration
from site_client.agent_app.cases import Cases
from site_client.agent_app.checkpoint import Checkpoint
from site_client.agent_app.config import Config
from site_client.agent_app.evaluating import EVALUATION_SEED, network_of
from site_client.agent_app.films import write_films
from site_client.agent_app.findings import (
    Finding,
    FoundMotion,
    boxes_found,
    detect_all,
    motions_found,
    planes_found,
    write_findings,
)
from site_client.agent_app.kinds import REGISTRATIONS
from site_client.agent_app.search_films import best_start, films_of
from site_client.agent_app.searches import MOTION_NAME, middle_of, start_of, to_be_registered
from site_client.agent_app.tasks import Built, build
from site_client.imaging.answers import write_rigid_transform


@dataclass(frozen=True, eq=False)
class PlayedSearch:
    """What was found.

    Attributes:
        cases: names of the images; of a registration the fixed and the moving one.
        found: in them.
        built: the task over the images.
        network: what searched.
    """

    cases: tuple[str, ...]
    found: tuple[Finding, ...]
    built: Built
    network: QNetwork


def play_search(checkpoint: Checkpoint, config: Config, cases: Cases) -> PlayedSearch:
    """Search images as they are.

    Args:
        checkpoint: whose network searches.
        config: its configuration, perhaps with other settings of evaluation.
        cases: images; for a registration the fixed and the moving one.

    Raises:
        UsageError: a registration of another number of images than two.
    """
    names = tuple(case.name for case in cases.each)
    if config.task.kind in REGISTRATIONS:
        return _register(checkpoint, config, cases)
    cases = replace(cases, landmarks=checkpoint.landmarks)
    built = build(cases, config, known=False)
    network = network_of(built, checkpoint, config)
    if isinstance(built.task, BoxSearch):
        detections = detect_all(built, built.task, network, config)
        boxes = boxes_found(built, built.task, detections, known=False)
        return PlayedSearch(names, tuple(boxes), built, network)
    if not isinstance(built.task, PlaneSearch):
        raise UsageError("this kind of task is played elsewhere", got=config.task.kind)
    at = built.task.starts(_rng(), _starts(config), posed=False)
    searched = _searched(built, network, at, config)
    planes = planes_found(built, built.task, searched, known=False)
    return PlayedSearch(names, tuple(planes), built, network)


def write_played(folder: Path, played: PlayedSearch) -> list[Path]:
    """The findings, and a motion as ``<fixed>_<moving>.tfm``, which ITK and 3D Slicer open.

    Returns:
        the files written.
    """
    written = write_findings(folder, played.found, names=played.cases)
    for each in played.found:
        if isinstance(each, FoundMotion):
            written.append(folder / f"{'_'.join(played.cases)}.tfm")
            motion = each.motion
            write_rigid_transform(
                written[-1], motion.rotation, motion.translation_mm, motion.centre_mm
            )
    return written


def write_played_films(
    folder: Path, played: PlayedSearch, config: Config, *, gif: bool, ffmpeg: str | None
) -> list[Path]:
    """A film of one search for each thing that is looked for, as acquired.

    Of boxes it is the search whose end promises most, of planes and motions the first.

    Returns:
        the files written: ``<case>_<label>``, of two images ``<fixed>_<moving>``.
    """
    task, labels = played.built.task, played.built.labels
    if isinstance(task, BoxSearch):
        settings = config.box.detection()
        starts = [
            best_start(
                task,
                played.network,
                task.grid(case, head, settings.per_axis, settings.sizes_mm),
                config.evaluation,
            )
            for case in range(len(task))
            for head in range(task.heads)
        ]
    else:
        at = task.starts(_rng(), 1, posed=False)
        if isinstance(task, Registration):
            at["truth"] = 0
            labels = played.cases[1:]
        starts = [at[k : k + 1] for k in range(len(at))]
    films = films_of(task, played.network, played.built.cases, labels, starts, config.evaluation)
    return write_films(folder, films, gif=gif, ffmpeg=ffmpeg)


def _register(checkpoint: Checkpoint, config: Config, cases: Cases) -> PlayedSearch:
    if len(cases) != 2:
        raise UsageError(
            "a registration is of two images", expected="FIXED MOVING", got=f"{len(cases)} images"
        )
    fixed, moving = cases.each
    task = to_be_registered(fixed, moving, config)
    alone = replace(cases, volumes=cases.volumes[:1], pictures=cases.pictures[:1])
    built = Built(task, alone, np.zeros((1, 1), dtype=np.int64), (MOTION_NAME,))
    at = task.starts(_rng(), _starts(config), posed=False)
    # Nothing was displaced: the motion that is found is the one between the files.
    at["truth"] = 0
    shift = middle_of(moving) - start_of(fixed, moving, config)
    network = network_of(built, checkpoint, config)
    searched = _searched(built, network, at, config)
    motions = motions_found(built, task, searched, known=False, shift_mm=shift)
    return PlayedSearch((fixed.name, moving.name), tuple(motions), built, network)


def _searched(built: Built, network: QNetwork, at: Situations, config: Config) -> Searched:
    """Searches to their ends and what they agree on; errors are not known."""
    task, settings = built.task, config.evaluation
    ended = greedy_search(task, network, at, settings)
    found = ended.reshape(-1, settings.starts)
    places = task.parameters(ended).reshape(*found.shape, -1)
    agreed = found[:, 0].copy()
    task.move_to(agreed, consensus(places, settings.outlier_mads).astype(np.float32))
    nothing = np.full(found.shape, np.nan)
    return Searched(found, nothing, agreed, nothing[:, 0], None, {})


def _rng() -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(EVALUATION_SEED))


def _starts(config: Config) -> int:
    return config.evaluation.starts
