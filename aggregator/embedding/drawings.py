"""The pictures of a codebook: keys in the plane, and the profile of every cluster.

Points are one embedded image, since twenty thousand vector circles would make a
page of megabytes; labels, rules and cells are vectors in the page's own colours.
"""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.offsetbox import AnnotationBbox, TextArea, VPacker
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from aggregator.embedding.plane import Embedding
from aggregator.embedding.profiles import Profiles
from aggregator.report.ink import INK, MUTED, PAPER, RULE, WIDTH, sheet, style, svg
from aggregator.report.text import count, percent, printable
from common import page

# Readable on white and on near-black, and apart from each other for colour-blind eyes
# as far as twelve colours can be; every cluster carries its number as well.
COLOURS = tuple(page.colour(f"--cluster-{n}") for n in range(page.CLUSTER_COLOURS))
FULL_CONTRAST = 2.0  # standard deviations that are drawn in full colour
MOST_LABELS = 70  # of bands; of more, every second or third is named
_DPI = 150  # of the embedded points
_EDGE = 0.05  # free room around the points, of their extent


def colour(number: int) -> str:
    """Return a cluster's colour by its number; they repeat after twelve."""
    return COLOURS[number % len(COLOURS)]


def group_colour(number: int) -> str:
    """Return a group's colour by its number; other colours than the largest clusters have."""
    return colour(number + len(COLOURS) // 2)


def plane(
    embedding: Embedding,
    ids: NDArray[np.int64],
    names: tuple[str, ...],
    colours: tuple[str, ...],
    name: str,
) -> Markup:
    """Return the keys in the plane, coloured and labelled directly.

    Args:
        embedding: of n keys.
        ids: int[n], what each key belongs to.
        names: of what keys belong to, by id.
        colours: the same way.
        name: unique on the page.
    """
    points = _turned(embedding.points.astype(np.float64))
    low, high = points.min(axis=0), points.max(axis=0)
    extent = np.maximum(high - low, 1e-9)
    with mpl.rc_context(style()):
        figure = sheet(WIDTH, round(float(np.clip(WIDTH * extent[1] / extent[0], 320, 720))))
        figure.dpi = _DPI
        axes = figure.subplots()
        axes.set_axis_off()
        axes.set_aspect("equal")
        axes.set_xlim(low[0] - _EDGE * extent[0], high[0] + _EDGE * extent[0])
        axes.set_ylim(low[1] - _EDGE * extent[1], high[1] + _EDGE * extent[1])
        # In one order for all, so that no cluster hides another; frequent keys on top.
        order = np.argsort(embedding.counts, kind="stable")
        share = embedding.counts[order] / embedding.counts.max()
        axes.scatter(
            points[order, 0],
            points[order, 1],
            s=3.0 + 60.0 * np.sqrt(share),
            c=[colours[int(number)] for number in ids[order]],
            alpha=0.8,
            linewidths=0,
            rasterized=True,
        )
        for number, text in enumerate(names):
            if (here := ids == number).any():
                _label(axes, points[here], text, count(int(np.count_nonzero(here))))
        description = ", ".join(
            f"{printable(t)} {np.count_nonzero(ids == n)}" for n, t in enumerate(names)
        )
        return svg(figure, name, f"{ids.size} keys in the plane; keys of each: {description}.")


def _turned(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the points with their longest extent lying flat; the axes mean nothing anyway."""
    centred = points - points.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    directions = directions[:, ::-1] * np.sign(directions[:, ::-1].sum(axis=0) + 1e-12)
    turned: NDArray[np.float64] = centred @ directions
    return turned


def _label(axes: Axes, points: NDArray[np.float64], text: str, detail: str) -> None:
    """Write a name and a number on the point of a crowd that is nearest to its middle."""
    middle = np.median(points, axis=0)
    x, y = points[int(((points - middle) ** 2).sum(axis=1).argmin())]
    name = TextArea(printable(text), textprops={"color": INK, "fontsize": 15, "fontweight": "bold"})
    number = TextArea(detail, textprops={"color": MUTED, "fontsize": 11})
    box = VPacker(children=[name, number], align="center", pad=0, sep=1)
    back = {"boxstyle": "round,pad=0.15", "facecolor": PAPER, "edgecolor": "none", "alpha": 0.9}
    axes.add_artist(AnnotationBbox(box, (x, y), frameon=True, pad=0.1, bboxprops=back))


def profiles(value: Profiles, order: tuple[int, ...], names: tuple[str, ...]) -> Markup:
    """One row of cells per cluster, one cell per band: how far from the mean of all pixels.

    Args:
        value: the profiles.
        order: clusters from top to bottom.
        names: what to call each cluster, by number.
    """
    columns = _column_order(value)
    longest = max(len(printable(axis)) for axis in value.axes)
    tilt = len(columns) > 12 or longest > 8
    height = 30 + 26 * len(order) + (round(6.4 * longest) + 12 if tilt else 26)
    with mpl.rc_context(style()):
        figure = sheet(WIDTH, height)
        axes = figure.subplots()
        axes.patch.set_visible(False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        for row, cluster in enumerate(order):
            for place, column in enumerate(columns):
                _cell(axes, place, row, value.clusters[cluster].contrast[column])
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(order) - 0.5, -0.5)
        axes.xaxis.tick_top()
        named = range(0, len(columns), -(-len(columns) // MOST_LABELS))
        labels = [printable(value.axes[columns[place]]) for place in named]
        axes.set_xticks(named, labels, rotation=90 if tilt else 0)
        axes.set_yticks(range(len(order)), [printable(names[cluster]) for cluster in order])
        axes.tick_params(axis="both", length=0, labelcolor=INK, labelsize=11.5)
        return svg(figure, "profiles", _told(value, order, names))


def _column_order(value: Profiles) -> list[int]:
    """Bands side by side that are high in the same clusters; components in their own order."""
    contrast = np.array([profile.contrast for profile in value.clusters])
    if contrast.shape[1] <= 12:
        return list(range(contrast.shape[1]))
    return sorted(
        range(contrast.shape[1]),
        key=lambda column: (int(contrast[:, column].argmax()), -float(contrast[:, column].max())),
    )


def _cell(axes: Axes, x: int, y: int, contrast: float) -> None:
    """Colour a cell by its contrast: one colour above the mean, another below."""
    strength = min(abs(contrast) / FULL_CONTRAST, 1.0)
    axes.add_patch(
        Rectangle((x - 0.46, y - 0.43), 0.92, 0.86, facecolor="none", edgecolor=RULE, linewidth=0.6)
    )
    if strength > 0.02:
        axes.add_patch(
            Rectangle(
                (x - 0.46, y - 0.43), 0.92, 0.86, alpha=round(strength, 3), linewidth=0,
                facecolor=page.colour("--above" if contrast > 0 else "--below"),
            )
        )  # fmt: skip


def _told(value: Profiles, order: tuple[int, ...], names: tuple[str, ...]) -> str:
    parts = []
    for cluster in order:
        contrast = np.array(value.clusters[cluster].contrast)
        top = ", ".join(printable(value.axes[i]) for i in np.argsort(-contrast)[:3])
        share = percent(value.clusters[cluster].share)
        parts.append(f"{printable(names[cluster])} ({share} of pixels): highest in {top}")
    return "Profile of each cluster. " + "; ".join(parts) + "."
