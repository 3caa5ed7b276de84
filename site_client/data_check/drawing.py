"""A scan as three small pictures with its landmarks: PNG inside SVG, no script.

Marks are told apart by shape as well as by colour, and every one has a dark rim, so
that they can be seen on black and on white. Where the folder's mean would put a
landmark stands a small cross.
"""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import Image

from site_client.imaging.judging import Judgement
from site_client.imaging.opening import Cut, Scan

_SCALE: Final = 2  # of the drawing: pixels of the page for each of the thumbnail's
NEAR_MM: Final = 6.0
_FEW: Final = 12
_SHORT: Final = 4


@dataclass(frozen=True)
class Mark:
    """A landmark as the list beside the pictures has it.

    Attributes:
        label: by which the pictures name it: a short name itself, else its number.
        name: of the landmark.
        from_mean_mm: None where it was not compared.
        tone: ``near``, ``far`` or ``outside``.
    """

    label: str
    name: str
    from_mean_mm: float | None
    tone: str


def marks_of(scan: Scan, judgement: Judgement) -> tuple[Mark, ...]:
    """Every landmark of a scan, in the order of its file."""
    distances = judgement.distances_mm.get(scan.name, {})
    limit = 3 * judgement.typical_mm if math.isfinite(judgement.typical_mm) else math.inf
    if scan.geometry is not None:
        limit = max(limit, 0.05 * float((scan.geometry.size * scan.geometry.spacing_mm).max()))
    marks: list[Mark] = []
    for number, (name, point) in enumerate(scan.landmarks.items(), start=1):
        away = distances.get(name)
        tone = "far" if away is not None and away > limit else "near"
        if scan.geometry is not None and not bool(scan.geometry.contains(point)):
            tone = "outside"
        marks.append(Mark(name if len(name) <= _SHORT else str(number), name, away, tone))
    return tuple(marks)


def draw_cuts(scan: Scan, judgement: Judgement) -> list[Markup]:
    """An SVG for each cut of a scan; none where the image did not open."""
    marks = marks_of(scan, judgement)
    return [_draw(cut, scan, judgement, marks) for cut in scan.cuts]


def _draw(cut: Cut, scan: Scan, judgement: Judgement, marks: tuple[Mark, ...]) -> Markup:
    height, width = (_SCALE * n for n in cut.pixels.shape)
    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{cut.name} cut">',
        f'<image href="{_png(cut.pixels)}" width="{width}" height="{height}"/>',
    ]
    for name, mean in judgement.means_mm.get(scan.name, {}).items():
        x, y, _ = _on_cut(cut, scan, mean)
        if name in scan.landmarks and 0 <= x <= width and 0 <= y <= height:
            parts.append(f'<path class="mean" d="M{x - 3:.0f} {y:.0f}h6m-3-3v6"/>')
    for mark in marks:
        place = _on_cut(cut, scan, scan.landmarks[mark.name])
        # Many numbers hide one another: those off the cut stand on another one, or in the list.
        labelled = len(marks) <= _FEW or mark.tone != "near" or abs(place[2]) <= NEAR_MM
        parts.append(_mark(mark, place, (width, height), labelled=labelled))
    parts += _letters(cut, width, height)
    parts += _scale_bar(scan, width, height)
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704 - numbers, and names that are escaped


def _on_cut(cut: Cut, scan: Scan, point: NDArray[np.float64]) -> tuple[float, float, float]:
    """(x, y) in the drawing and the distance from the cut, mm."""
    grid = scan.grid
    if grid is None:
        return math.nan, math.nan, math.nan
    index = grid.world_to_index(point)
    across = 3 - sum(cut.axes)
    column, row = (float(index[axis]) for axis in cut.axes)
    if cut.upward:
        row = cut.pixels.shape[0] - 1 - row
    off = (float(index[across]) - cut.level) * grid.spacing_mm
    return (column + 0.5) * _SCALE, (row + 0.5) * _SCALE, off


def _mark(
    mark: Mark, place: tuple[float, float, float], size: tuple[int, int], *, labelled: bool
) -> str:
    """A dot where the cut passes the landmark, a ring where it lies before or behind.

    What lies beyond the picture is a cross at its edge.
    """
    (x, y, off), (width, height) = place, size
    away = "" if mark.from_mean_mm is None else f", {mark.from_mean_mm:.1f} mm from the mean"
    title = f"<title>{escape(mark.name)}{away}; {abs(off):.0f} mm off this cut</title>"
    if not (0 <= x <= width and 0 <= y <= height):
        x, y = min(max(x, 6.0), width - 6.0), min(max(y, 6.0), height - 6.0)
        shape = f'<path class="outside" d="M{x - 5:.0f} {y - 5:.0f}l10 10m0-10l-10 10"/>'
    elif mark.tone == "near":
        kind = "near" if abs(off) <= NEAR_MM else "near ring"
        shape = f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
    else:
        kind = mark.tone if abs(off) <= NEAR_MM else f"{mark.tone} ring"
        shape = f'<rect class="{kind}" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>'
    if not labelled:
        return f"<g>{title}{shape}</g>"
    shift, anchor = (6, "start") if x < width - 22 else (-6, "end")
    where = f'x="{x + shift:.0f}" y="{y + 4:.0f}" text-anchor="{anchor}"'
    text = f"<text {where}>{escape(mark.label)}</text>"
    return f"<g>{title}{shape}{text}</g>"


def _letters(cut: Cut, width: int, height: int) -> list[str]:
    left, right, top, bottom = cut.letters
    places = (
        (left, 6, height / 2, "start"),
        (right, width - 6, height / 2, "end"),
        (top, width / 2, 14, "middle"),
        (bottom, width / 2, height - 5, "middle"),
    )
    return [
        f'<text class="side" x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{letter}</text>'
        for letter, x, y, anchor in places
    ]


def _scale_bar(scan: Scan, width: int, height: int) -> list[str]:
    if scan.grid is None:
        return []
    per_mm = _SCALE / scan.grid.spacing_mm
    length = round_length(width / per_mm / 3)
    x, y, pixels = 8, height - 10, length * per_mm
    return [
        f'<path class="bar" d="M{x} {y - 3}v6m0-3h{pixels:.1f}m0-3v6"/>',
        f'<text class="side" x="{x}" y="{y - 7}">{length:g} mm</text>',
    ]


def round_length(most: float) -> float:
    """The longest of 1, 2, 5, 10, 20, … that is at most ``most``."""
    power = 10.0 ** math.floor(math.log10(most))
    return float(max(step * power for step in (1, 2, 5) if step * power <= most * (1 + 1e-9)))


def _png(pixels: NDArray[np.uint8]) -> str:
    """A data URL; 64 greys are enough to see a head, and a third smaller."""
    out = io.BytesIO()
    Image.fromarray(pixels & np.uint8(0xFC)).save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode("ascii")
