"""Find landmarks in images of which nothing is known, and show how they were found.

There is no truth here: what the cases hold as landmarks is a stand-in, and no
error is ever computed from it. The spread of several searches is the only hint
of how sure an answer is.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.errors import InputDataError, UsageError
from site_client.agent.evaluation import Searched
from site_client.agent.networks import QNetwork
from site_client.agent.search import action_values, greedy_search
from site_client.agent.settings import EvaluationSettings
from site_client.agent.task import Situations
from site_client.agent_app.cases import Cases
from site_client.agent_app.checkpoint import Checkpoint
from site_client.agent_app.config import Config
from site_client.agent_app.evaluating import EVALUATION_SEED, network_of
from site_client.agent_app.pictures import FOUND, INK, Overlay, caption, draw_case
from site_client.agent_app.results import Prediction, predictions
from site_client.agent_app.tasks import Built, build

_ACTIONS: Final = {
    2: ("right", "left", "down", "up"),
    3: ("left", "right", "back", "front", "head", "foot"),
}
# Coarse to fine.
LEVEL_COLOURS: Final = ((80, 170, 255), (190, 120, 255), (255, 210, 70), (110, 230, 180))
MOST_FRAMES = 80
_FRAME_MS, _LAST_MS = 140, 1800


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


def write_gif(path: Path, pictures: Sequence[Image.Image]) -> None:
    """Write pictures as an animation that shows its end a little longer."""
    # One palette for all frames, or grey slices would flicker; with every colour that any has.
    sample = Image.new("RGB", (pictures[-1].width, pictures[-1].height + 24))
    sample.paste(pictures[-1], (0, 0))
    for k, colour in enumerate((*LEVEL_COLOURS, FOUND, INK)):
        sample.paste(colour, (k * 24, pictures[-1].height, k * 24 + 24, sample.height))
    palette = sample.quantize(200)
    flat = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    times = [_FRAME_MS] * (len(flat) - 1) + [_LAST_MS]
    flat[0].save(path, save_all=True, append_images=flat[1:], duration=times, loop=0)


def require_ffmpeg() -> str:
    """The ffmpeg program.

    Raises:
        UsageError: there is none on the PATH.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise UsageError(
            "cannot make an MP4",
            expected="an ffmpeg program on the PATH",
            got="none",
            advice="--gif needs no other program",
        )
    return program


def write_mp4(program: str, path: Path, pictures: Sequence[Image.Image]) -> None:
    """Write pictures as H.264 in MP4.

    Raises:
        InputDataError: ffmpeg refuses.
    """
    # The codec wants even sides.
    width, height = (side - side % 2 for side in pictures[0].size)
    repeats = [1] * (len(pictures) - 1) + [max(1, _LAST_MS // _FRAME_MS)]
    raw = b"".join(
        picture.convert("RGB").crop((0, 0, width, height)).tobytes() * times
        for picture, times in zip(pictures, repeats, strict=True)
    )
    command = [program, "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += ["-s", f"{width}x{height}", "-r", f"{1000 / _FRAME_MS:.3f}", "-i", "pipe:0"]
    command += ["-pix_fmt", "yuv420p", "-movflags", "+faststart", str(path)]
    ended = subprocess.run(command, input=raw, capture_output=True, check=False)
    if ended.returncode != 0:
        raise InputDataError(
            "ffmpeg could not write the film",
            field=str(path),
            expected="an ffmpeg with H.264",
            got=f"its exit code {ended.returncode}",
        )


def write_films(
    folder: Path, played: Played, config: Config, *, gif: bool, ffmpeg: str | None
) -> list[Path]:
    """A film of one search per image and head, ``<case>_<landmark>.gif`` and ``.mp4``.

    Returns:
        the files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for case in range(len(played.built.cases)):
        for head in range(len(played.built.teams)):
            pictures = frames(played, case, head, config)
            name = f"{played.built.cases.each[case].name}_{_labels(played.built, head)}"
            if gif:
                written.append(folder / f"{name}.gif")
                write_gif(written[-1], pictures)
            if ffmpeg is not None:
                written.append(folder / f"{name}.mp4")
                write_mp4(ffmpeg, written[-1], pictures)
    return written


def _labels(built: Built, head: int) -> str:
    """The landmarks of a head, for a caption or a file's name."""
    names = dict.fromkeys(built.cases.landmarks[k] for k in built.teams[head])
    return "+".join(names) if len(names) <= 3 else f"team{head + 1}"
