"""The picture: keys of tissue in the plane, by cluster and by what the reference says of them.

Points stand for keys, that is for kinds of pixels; nothing of an image's shape is in it.
"""

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

NAME = "pixels-plane.png"
_INK = "#1f2430"
_CYCLE = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#e08214", "#7f8c8d",
    "#8073ac", "#35978f",
)  # fmt: skip


def draw(path, layouts):
    """One row per grain of the first seed; left clusters, right epithelium."""
    first = {}
    for job in sorted(layouts):
        first.setdefault(job.split("/")[0], layouts[job])
    with mpl.rc_context({"font.size": 10, "text.color": _INK, "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(13.0, 6.2 * len(first)), dpi=80, facecolor="white")
        axes = figure.subplots(len(first), 2, squeeze=False)
        for row, (grain, layout) in enumerate(sorted(first.items())):
            _row(figure, axes[row], grain, layout)
        figure.tight_layout()
        figure.savefig(path, metadata={"Software": None})


def _row(figure, axes, grain, layout):
    points, counts = np.array(layout["points"]), np.array(layout["counts"])
    clusters, share = np.array(layout["clusters"]), np.array(layout["epithelium"])
    size = 4 + 40 * np.sqrt(counts / counts.max())
    order = np.argsort(-counts, kind="stable")  # large ones first, so that none is hidden
    x, y = points[order].T
    colours = [_CYCLE[c % len(_CYCLE)] for c in clusters[order]]
    axes[0].scatter(x, y, s=size[order], c=colours, linewidths=0, alpha=0.7)
    for cluster in range(clusters.max() + 1):
        middle = np.median(points[clusters == cluster], axis=0)
        box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.8, "linewidth": 0}
        axes[0].text(*middle, str(cluster), ha="center", va="center", fontsize=8, bbox=box)
    axes[0].set_title(f"Bands {grain}: {len(points):,} named keys, {clusters.max() + 1} clusters")
    shown = axes[1].scatter(x, y, s=size[order], c=share[order], cmap="viridis", linewidths=0)
    axes[1].set_title("Share of each key's pixels that the reference calls epithelium")
    figure.colorbar(shown, ax=axes[1], fraction=0.046)
    for each in axes:
        each.set_xticks([])
        each.set_yticks([])
        for spine in each.spines.values():
            spine.set_color("#c7cbd3")
