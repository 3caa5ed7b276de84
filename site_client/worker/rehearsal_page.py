"""A rehearsal as a page: a picture of every array that would leave, and every word beside it.

One self-contained file without a script or a request to anywhere. It shows what the
aggregator would be given, and what known attacks read out of that beside the site's own
images; it stays at the site. Pictures of arrays are transparent where a value is zero, so
that they lie on light paper and on dark; beside each stands what its colours mean.
"""

from __future__ import annotations

import base64
import io
import json
import math
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from common.page import rgb, scale, signed_scale
from common.page.templates import render
from common.wire.envelope import Array, Envelope
from common.wire.records import ModelUpdate
from common.wire.rules import FIXED_POINT
from site_client.exposure.findings import Pair
from site_client.worker.dry_run import NOISE, Rehearsal, Rehearsed

WIDTH = 960
_TALLEST = 240
# Loss and gain of a value are told apart by hue, its size by depth; zero is the page's paper.
_BELOW, _ABOVE = rgb("--below"), rgb("--above")
_UNREAD = 250  # grey, where an attack read nothing
_GREY_LEVELS = ("0", "64", "128", "191", "255")


@dataclass(frozen=True)
class Drawn:
    """An array as dots.

    Attributes:
        dots: uint8[h, w, 4], red, green, blue and depth.
        full: what is drawn at full depth, in the array's own units; larger values are, too.
    """

    dots: NDArray[np.uint8]
    full: float


@dataclass(frozen=True)
class _InlinePicture:
    url: str
    height: int
    scale: Markup


@dataclass(frozen=True)
class _DrawnRecord:
    finding: Rehearsed
    header: str
    pictures: tuple[_InlinePicture, ...]


@dataclass(frozen=True)
class _Attack:
    name: str
    got: str
    guess: str
    verdict: str
    picture: _InlinePicture | None
    caption: str


class RehearsalPage:
    """Collects pictures while a rehearsal goes on, then becomes a page."""

    def __init__(self) -> None:
        self._pictures: list[dict[str, _InlinePicture]] = []

    def draw(self, envelope: Envelope) -> None:
        """Keep a picture of every array of an envelope; the arrays themselves are let go."""
        unit = FIXED_POINT if isinstance(envelope.record, ModelUpdate) else 1
        drawn = {name: draw_array(array) for name, array in envelope.arrays.items()}
        self._pictures.append(
            {name: _as_picture(d.dots, _scale(d.full / unit)) for name, d in drawn.items()}
        )

    def render(self, rehearsal: Rehearsal) -> str:
        """Return the page; call it after every envelope of the rehearsal was drawn."""
        shown = [
            _DrawnRecord(
                finding,
                json.dumps(finding.header, indent=1),
                tuple(pictures[array.name] for array in finding.arrays),
            )
            for finding, pictures in zip(rehearsal.findings, self._pictures, strict=True)
        ]
        context = {
            "rehearsal": rehearsal,
            "shown": shown,
            "noise": NOISE,
            "attacks": _attacks(rehearsal),
        }
        return render("site_client.worker", "rehearsal.html.j2", context)


def draw_pair(pair: Pair) -> NDArray[np.uint8]:
    """uint8[h, w, 3]: the cuts of an attack's picture above those of the crop it resembles.

    Cuts that were not read stay pale.
    """
    made = np.nan_to_num(pair.picture, nan=_UNREAD)
    rows = [
        np.concatenate([np.pad(cut, 1, constant_values=_UNREAD) for cut in cuts], axis=1)
        for cuts in (made, pair.crop.astype(np.float32))
    ]
    grey = np.clip(np.rint(np.concatenate(rows)), 0, 255).astype(np.uint8)
    zoom = max(1, WIDTH // 2 // grey.shape[1])
    return np.repeat(np.repeat(grey, zoom, axis=0), zoom, axis=1)[..., None].repeat(3, axis=2)


def _attacks(rehearsal: Rehearsal) -> list[_Attack]:
    """Show what each attack got, with its picture if it made any."""
    exposure = rehearsal.exposure
    pairs: dict[str, Pair | None] = {reading.attack: reading.best for reading in exposure.readings}
    shown: list[_Attack] = []
    for name, got, guess, verdict in exposure.lines():
        pair = pairs.get(name)
        caption = (
            ""
            if pair is None
            else (
                f"above: the best reconstruction; below: the crop it is nearest to. "
                f"Cut {pair.cut + 1} of {len(pair.crop)}: {got}, a guess gets {guess}"
            )
        )
        grey = scale("grey", _GREY_LEVELS)
        picture = None if pair is None else _as_picture(draw_pair(pair), grey)
        shown.append(_Attack(name, got, guess, verdict, picture, caption))
    return shown


def draw_array(array: Array) -> Drawn:
    """Every value of an array as a dot, or the largest of those that share one.

    Args:
        array: of any shape; its first axis runs downwards. One row is folded into several.
    """
    values = np.asarray(array, dtype=np.float64)
    values = np.nan_to_num(values.reshape(len(values), -1) if values.ndim > 1 else values[None])
    if len(values) == 1 and values.size > WIDTH:
        rows = math.ceil(values.size / WIDTH)
        values = np.pad(values[0], (0, rows * WIDTH - values.size)).reshape(rows, WIDTH)
    values = _largest(_largest(values, _TALLEST).T, WIDTH).T
    nonzero = np.abs(values[values != 0])
    full = float(np.quantile(nonzero, 0.99)) if nonzero.size else 0.0
    # The square root lets small values be seen beside large ones.
    depth = np.sqrt(np.clip(np.abs(values) / (full or 1.0), 0, 1))[..., None]
    ink = np.where((values < 0)[..., None], _BELOW, _ABOVE)
    dots = np.concatenate([ink, np.rint(255 * depth)], axis=2).astype(np.uint8)
    tall = max(1, min(12, _TALLEST // max(1, len(dots))))
    return Drawn(np.repeat(dots, tall, axis=0), full)


def _scale(full: float) -> str:
    """Explain the colours of an array; half the depth is a quarter of the value."""
    return signed_scale(full, full / 4)


def _largest(values: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """At most so many rows; of rows that are merged, the value furthest from zero stays."""
    if len(values) <= most:
        return values
    merged = math.ceil(len(values) / most)
    padding = -len(values) % merged
    blocks = np.pad(values, ((0, padding), (0, 0))).reshape(-1, merged, values.shape[1])
    pick = np.abs(blocks).argmax(axis=1)[:, None]
    return np.asarray(np.take_along_axis(blocks, pick, axis=1)[:, 0])


def _as_picture(dots: NDArray[np.uint8], colours: str) -> _InlinePicture:
    out = io.BytesIO()
    Image.fromarray(dots).save(out, "PNG", optimize=True)
    data = base64.b64encode(out.getvalue()).decode("ascii")
    # As wide as the page and no taller than drawn, so that few values do not become a wall.
    # The scale is ours, and escaped where it was made.
    return _InlinePicture(f"data:image/png;base64,{data}", len(dots), Markup(colours))  # noqa: S704
