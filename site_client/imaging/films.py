"""Draw films of searches, step by step, and write them as GIF and as MP4.

What is drawn is the kind's; levels, captions and what each action promises are the
same for all. Nothing is known of a truth here. These pictures show a patient's image:
they are written where a person asked for them, and nowhere else.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common import page
from common.errors import InputDataError, UsageError
from site_client.imaging.drawing import FOUND, INK, caption

# Coarse to fine.
LEVEL_COLOURS: Final = tuple(page.rgb(f"--over-level-{n}") for n in range(page.LEVEL_COLOURS))
MOST_FRAMES = 80
_FRAME_MS, _LAST_MS = 140, 1800

Colour = tuple[int, int, int]
Draw = Callable[[int, int, Colour], Image.Image]
"""Step, level and the level's colour to a picture."""


def draw_frames(
    levels: NDArray[np.integer],
    values: NDArray[np.floating],
    draw: Draw,
    rungs: Sequence[str],
    actions: Sequence[str],
    *,
    label: str = "",
    end: Colour | None = FOUND,
) -> list[Image.Image]:
    """Draw a search; of a long one some steps, the first and the last among them.

    Args:
        levels: int[steps], of the search.
        values: float[steps, ...], of every action; of a team the first agent's are shown.
        draw: makes the picture of a step.
        rungs: what a step of each level is, in words.
        actions: their names.
        label: begins the caption.
        end: colour of the last step; None keeps the level's.
    """
    last = len(levels) - 1
    of_first = values.reshape(last + 1, -1, len(actions))[:, 0]
    pictures: list[Image.Image] = []
    for step in np.unique(np.linspace(0, last, MOST_FRAMES).astype(np.int64)):
        level = int(levels[step])
        colour = LEVEL_COLOURS[level % len(LEVEL_COLOURS)]
        picture = draw(int(step), level, end if end is not None and step == last else colour)
        line = f"step {step} of {last}   level {level + 1} of {len(rungs)}: {rungs[level]}"
        text = f"{label}   {line}" if label else line
        pictures.append(caption(picture, text, actions, of_first[step].tolist()))
    return pictures


def require_ffmpeg() -> str:
    """Find the ffmpeg program.

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
    folder: Path,
    films: Iterable[tuple[str, Sequence[Image.Image]]],
    *,
    gif: bool,
    ffmpeg: str | None,
) -> list[Path]:
    """Write each film by its name, as ``.gif`` and ``.mp4``.

    Returns:
        the files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for name, pictures in films:
        if gif:
            written.append(folder / f"{name}.gif")
            write_gif(written[-1], pictures)
        if ffmpeg is not None:
            written.append(folder / f"{name}.mp4")
            write_mp4(ffmpeg, written[-1], pictures)
    return written
