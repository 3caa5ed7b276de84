"""The demonstration's picture: keys in the plane, the federation's map, and the ground truth.

Every kind of ground has one colour in all three, and its name beside them.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from deploy.demo_pixels.data import CLASSES, UNLABELLED, Labels, blocks

# Crops of one plant are shades of one colour.
COLOURS = (
    "#e4e6ea", "#7b3f98", "#c98a00", "#e9b020", "#f7d774", "#2f9e8f", "#1d7a5f", "#8fd0bd",
    "#b58fd6", "#111111", "#3d7fc1", "#74abe2", "#b9d6f2", "#d1495b", "#2e6b1f", "#9c6b4e",
    "#6c8596",
)  # fmt: skip
_INK = "#1f2430"
_DPI = 110


def write_picture(
    path: Path,
    points: NDArray[np.float32],
    counts: NDArray[np.int64],
    kinds: NDArray[np.int64],
    maps: Labels,
    truth: Labels,
    caption: str,
) -> None:
    """Write the picture as PNG.

    Args:
        path: of the file.
        points: float32[n, 2], released keys in the plane.
        counts: int64[n], their pixels.
        kinds: int64[n], the kind of ground that each was named.
        maps: kind of every pixel by the sites' maps.
        truth: what it is; 0 where nobody labelled it.
        caption: one line below.
    """
    with mpl.rc_context({"font.size": 11, "text.color": _INK, "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(17.0, 6.6), dpi=_DPI, facecolor="white")
        left, middle, right = figure.subplots(1, 3, gridspec_kw={"width_ratios": [1.05, 1, 1]})
        _plane(left, points, counts, kinds)
        _ground(middle, maps, "The federation's map, put together from three sites")
        _ground(right, truth, "Ground truth (grey: nobody labelled it)")
        used = sorted(set(np.unique(truth).tolist()) | set(np.unique(kinds).tolist()))
        figure.legend(
            handles=[Patch(color=COLOURS[kind], label=CLASSES[kind]) for kind in used],
            loc="lower center",
            ncols=9,
            frameon=False,
            bbox_to_anchor=(0.5, 0.055),
            fontsize=10,
        )
        figure.text(0.5, 0.02, caption, ha="center", fontsize=10.5)
        figure.subplots_adjust(left=0.015, right=0.985, top=0.93, bottom=0.16, wspace=0.05)
        figure.savefig(path)


def _plane(
    axes: Axes, points: NDArray[np.float32], counts: NDArray[np.int64], kinds: NDArray[np.int64]
) -> None:
    axes.set_title(f"{len(points)} released keys in the plane (UMAP)", fontsize=12)
    order = np.argsort(-counts, kind="stable")  # large ones first, so that none is hidden
    axes.scatter(
        points[order, 0],
        points[order, 1],
        s=16 + 260 * np.sqrt(counts[order] / counts.max()),
        c=[COLOURS[kind] for kind in kinds[order]],
        alpha=0.85,
        edgecolors="white",
        linewidths=0.6,
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.margins(0.08)
    for spine in axes.spines.values():
        spine.set_color("#c7cbd3")


def _ground(axes: Axes, kinds: Labels, title: str) -> None:
    axes.set_title(title, fontsize=12)
    axes.imshow(
        kinds,
        cmap=ListedColormap(COLOURS),
        vmin=UNLABELLED,
        vmax=len(CLASSES) - 1,
        interpolation="nearest",
    )
    height, width = kinds.shape
    for block in blocks(height, width):
        if block.column:
            axes.axvline(block.columns[0] - 0.5, color="white", linewidth=1)
        if block.row:
            axes.axhline(block.rows[0] - 0.5, color="white", linewidth=1)
        axes.text(
            block.columns[0] + 1.5,
            block.rows[0] + 5,
            "abc"[block.site],
            color="white",
            fontsize=11,
            fontweight="bold",
            bbox={"boxstyle": "round,pad=0.15", "facecolor": _INK, "edgecolor": "none"},
        )
    axes.set_axis_off()
