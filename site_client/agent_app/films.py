"""Writing films of searches: what every kind of task draws, as GIF and as MP4."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from PIL import Image

from common.errors import InputDataError, UsageError
from site_client.agent_app.pictures import FOUND, INK

# Coarse to fine.
LEVEL_COLOURS: Final = ((80, 170, 255), (190, 120, 255), (255, 210, 70), (110, 230, 180))
MOST_FRAMES = 80
_FRAME_MS, _LAST_MS = 140, 1800


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
    """Each film by its name, as ``.gif`` and ``.mp4``.

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
