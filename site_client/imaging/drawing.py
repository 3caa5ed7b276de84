"""Images as people look at them, with what a search did drawn over: slices, marks, paths, boxes.

Volumes show three slices through a point (axial, coronal, sagittal), the patient's
left on the right side of the picture and the head up; planar images show
themselves. What is drawn over an image has a dark rim, so that it is seen on
black and on white. Everything here shows a patient's image: it may be written where a person asked
for it, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from common.page import rgb
from site_client.imaging.cases import AnyCase
from site_client.imaging.dataset import Case
from site_client.imaging.datasets2d import PictureCase

_Value = TypeVar("_Value", np.uint8, np.bool_)
TRUTH: Final = rgb("--over-truth")
FOUND: Final = rgb("--over-found")
PATH: Final = rgb("--over-path")
INK: Final = rgb("--over-ink")
FAINT: Final = rgb("--over-faint")
PAPER: Final = rgb("--over-paper")
# A plane that crosses a slice at less than about 3 degrees is drawn in none.
_PARALLEL = 0.05
_SIDE = 260  # pixels of the longer side of a panel
_GAP = 6  # pixels between pictures


@dataclass(frozen=True, eq=False)
class Panel:
    """One slice, and where positions of the case fall on it.

    Attributes:
        name: what it shows.
        pixels: uint8[v, h].
        horizontal, vertical: which index axis runs right, and which down.
        upwards: whether the vertical axis runs up instead.
        spacing_mm: of the pixels.
        zoom: picture pixels per image pixel.
    """

    name: str
    pixels: NDArray[np.uint8]
    horizontal: int
    vertical: int
    upwards: bool
    spacing_mm: float
    zoom: float

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in the picture."""
        height, width = self.pixels.shape
        return max(1, round(width * self.zoom)), max(1, round(height * self.zoom))

    def at(self, index: NDArray[np.float64]) -> tuple[float, float]:
        """Place a continuous index, in pixels from the panel's corner."""
        down = float(index[self.vertical])
        if self.upwards:
            down = self.pixels.shape[0] - 1 - down
        return (float(index[self.horizontal]) + 0.5) * self.zoom, (down + 0.5) * self.zoom


@dataclass(frozen=True, eq=False)
class Overlay:
    """The marks drawn over a case, positions given as its landmarks are (mm).

    Attributes:
        middle: the point that volumes are cut through.
        found, truth: marks.
        path: float64[t, d], where a search has been.
        box_mm: side of what the agent sees around ``middle``; 0 draws none.
        colour: of path, box and lines.
        boxes: float64[2, d] each, lower and upper corner, drawn where they are cut.
        plane: float64[2, 3], a point and the unit normal; drawn where it crosses the slices.
        regions: bool[(z,) y, x] on the grid of the image, each with a colour; outlined.
        true_boxes, true_plane, true_path: the same of what is true, in the colour of truths.
    """

    middle: NDArray[np.float64]
    found: Sequence[NDArray[np.float64]] = ()
    truth: Sequence[NDArray[np.float64]] = ()
    path: NDArray[np.float64] | None = None
    box_mm: float = 0.0
    colour: tuple[int, int, int] = PATH
    boxes: Sequence[NDArray[np.float64]] = ()
    plane: NDArray[np.float64] | None = None
    true_boxes: Sequence[NDArray[np.float64]] = ()
    true_plane: NDArray[np.float64] | None = None
    true_path: NDArray[np.float64] | None = None
    regions: Sequence[tuple[NDArray[np.bool_], tuple[int, int, int]]] = ()


def panels(case: AnyCase, middle: NDArray[np.float64], side: int = _SIDE) -> list[Panel]:
    """Cut a case through a point."""
    if isinstance(case, PictureCase):
        pixels = case.picture.pixels
        zoom = 1.6 * side / max(pixels.shape)
        return [Panel("", pixels, 0, 1, False, case.picture.spacing_mm, zoom)]
    volume = case.volume
    zoom = side / float(volume.size.max())
    spacing = volume.spacing_mm
    axial, coronal, sagittal = _slices(case, volume.voxels, middle)
    return [
        Panel("axial", axial, 0, 1, False, spacing, zoom),
        Panel("coronal", coronal, 0, 2, True, spacing, zoom),
        Panel("sagittal", sagittal, 1, 2, True, spacing, zoom),
    ]


def _slices(
    case: AnyCase, values: NDArray[_Value], middle: NDArray[np.float64]
) -> list[NDArray[_Value]]:
    """Cut what lies on a case's grid as its panels are cut."""
    if isinstance(case, PictureCase):
        return [values]
    index = np.rint(case.volume.world_to_index(middle))
    x, y, z = np.clip(index, 0, case.volume.size - 1).astype(int)
    return [values[z], values[::-1, y], values[::-1, :, x]]


def draw_case(case: AnyCase, overlay: Overlay, side: int = _SIDE) -> Image.Image:
    """Draw the slices of a case beside each other, with an overlay."""
    shown = []
    for k, panel in enumerate(panels(case, overlay.middle, side)):
        image = as_picture(panel.pixels).resize(panel.size, Image.Resampling.BILINEAR)
        for region, colour in overlay.regions:
            _outline(image, _slices(case, region, overlay.middle)[k], colour)
        _draw_overlay(ImageDraw.Draw(image), panel, case, overlay)
        shown.append(titled(image, panel.name))
    return beside(shown)


def _outline(picture: Image.Image, region: NDArray[np.bool_], colour: tuple[int, int, int]) -> None:
    """Draw the rim of a region bool[v, h] over a picture of its pixels, two dots wide."""
    mask = Image.fromarray(region * np.uint8(255)).resize(picture.size, Image.Resampling.NEAREST)
    rim = ImageChops.difference(mask, mask.filter(ImageFilter.MinFilter(5)))
    picture.paste(colour, mask=rim)


def as_picture(pixels: NDArray[np.uint8]) -> Image.Image:
    """Make a picture that can be drawn on in colour from grey pixels uint8[y, x]."""
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")


def titled(picture: Image.Image, title: str) -> Image.Image:
    """Write a title into the corner of a picture, if there is one."""
    if title:
        draw = ImageDraw.Draw(picture)
        draw.text((5, 3), title, fill=INK, stroke_width=2, stroke_fill=PAPER)
    return picture


def beside(pictures: Sequence[Image.Image], *, below: bool = False) -> Image.Image:
    """Lay pictures in a row, or in a column, with a gap between them."""
    along = 1 if below else 0
    lengths = [picture.size[along] for picture in pictures]
    size = [max(picture.size[axis] for picture in pictures) for axis in (0, 1)]
    size[along] = sum(lengths) + _GAP * (len(pictures) - 1)
    whole = Image.new("RGB", (size[0], size[1]), PAPER)
    column = 0
    for picture, length in zip(pictures, lengths, strict=True):
        whole.paste(picture, (0, column) if below else (column, 0))
        column += length + _GAP
    return whole


def _draw_overlay(draw: ImageDraw.ImageDraw, panel: Panel, case: AnyCase, overlay: Overlay) -> None:
    for path, colour in ((overlay.true_path, TRUTH), (overlay.path, overlay.colour)):
        if path is not None and len(path) > 1:
            places = [panel.at(_index(case, position)) for position in path]
            _line(draw, places, colour)
    if overlay.box_mm > 0:
        x, y = panel.at(_index(case, overlay.middle))
        half = overlay.box_mm / panel.spacing_mm * panel.zoom / 2
        _frame(draw, (x - half, y - half, x + half, y + half), overlay.colour)
    for boxes, colour in ((overlay.true_boxes, TRUTH), (overlay.boxes, overlay.colour)):
        for corners in boxes:
            # The axes of an image may run against the patient's: the corners of a box do, too.
            ends = np.array([panel.at(_index(case, corner)) for corner in corners])
            _frame(draw, (*ends.min(axis=0), *ends.max(axis=0)), colour)
    for plane, colour in ((overlay.true_plane, TRUTH), (overlay.plane, overlay.colour)):
        if plane is not None and not isinstance(case, PictureCase):
            _draw_crossing(draw, panel, case, overlay.middle, plane, colour)
    for position in overlay.truth:
        x, y = panel.at(_index(case, position))
        draw.ellipse((x - 6, y - 6, x + 6, y + 6), outline=PAPER, width=4)
        draw.ellipse((x - 5, y - 5, x + 5, y + 5), outline=TRUTH, width=2)
    for position in overlay.found:
        x, y = panel.at(_index(case, position))
        for colour, length, width in ((PAPER, 6, 4), (FOUND, 5, 2)):
            draw.line((x - length, y, x + length, y), fill=colour, width=width)
            draw.line((x, y - length, x, y + length), fill=colour, width=width)


def _draw_crossing(
    draw: ImageDraw.ImageDraw,
    panel: Panel,
    case: Case,
    middle: NDArray[np.float64],
    plane: NDArray[np.float64],
    colour: tuple[int, int, int],
) -> None:
    """Draw the line in which a plane crosses a slice through a middle."""
    point, normal = plane
    through = 3 - panel.horizontal - panel.vertical
    axis = case.volume.direction[:, through]
    along = np.cross(normal, axis)
    if np.linalg.norm(along) < _PARALLEL:
        return
    # From the middle within the slice, straight to the plane.
    within = normal - (normal @ axis) * axis
    foot = middle + within * ((point - middle) @ normal) / (within @ within)
    far = along / np.linalg.norm(along) * case.volume.size.max() * case.volume.spacing_mm
    ends = [panel.at(_index(case, foot + sign * far)) for sign in (-1, 1)]
    _line(draw, ends, colour)


def _line(
    draw: ImageDraw.ImageDraw, places: Sequence[tuple[float, float]], colour: tuple[int, int, int]
) -> None:
    draw.line(places, fill=PAPER, width=4)
    draw.line(places, fill=colour, width=2)


def _frame(
    draw: ImageDraw.ImageDraw,
    corners: tuple[float, float, float, float],
    colour: tuple[int, int, int],
) -> None:
    left, top, right, bottom = corners
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=PAPER, width=4)
    draw.rectangle(corners, outline=colour, width=2)


def _index(case: AnyCase, position: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the continuous index of a position given as the case's landmarks are."""
    if isinstance(case, PictureCase):
        return np.asarray(position / case.picture.spacing_mm)
    return case.volume.world_to_index(position)


def caption(
    picture: Image.Image, line: str, names: Sequence[str], values: Iterable[float]
) -> Image.Image:
    """Add a line of text below a picture, and a bar for every action's value."""
    bars = list(zip(names, values, strict=True))
    strip = 64 if bars else 22
    whole = Image.new("RGB", (max(picture.width, 300), picture.height + strip), PAPER)
    whole.paste(picture, ((whole.width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(whole)
    draw.text((6, picture.height + 5), line, fill=INK)
    if not bars:
        return whole
    low, high = min(v for _, v in bars), max(v for _, v in bars)
    span = max(high - low, 1e-6)
    width = (whole.width - 12) / len(bars)
    base = whole.height - 16
    for k, (name, value) in enumerate(bars):
        x = 6 + k * width
        tall = 3 + 18 * (value - low) / span
        colour = FOUND if value == high else FAINT
        draw.rectangle((x, base - tall, x + width - 8, base), fill=colour)
        draw.text((x, base + 2), f"{name} {value:.2f}", fill=INK if value == high else FAINT)
    return whole
