"""Curves of a report as inline SVG: the errors, and the merged sketch.

Curves carry their names and last values at their ends instead of a legend.
None is returned when there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from aggregator.report.extras import HeldOut
from aggregator.report.ink import (
    FAINT,
    INK,
    MUTED,
    SITES,
    WIDTH,
    quiet,
    sheet,
    site_colour,
    style,
    svg,
)
from aggregator.report.run import TRAINED, Curve, RunState, prior_mm
from aggregator.report.text import count, mm, percent, printable
from common.wire.records import Part

_OWN: dict[Part, str] = {
    "held-out": "Held out at each site",
    "training": "Training cases of each site",
}
_TICKS_MM = (0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 500)


@dataclass(frozen=True)
class _Line:
    label: str
    points: Curve
    colour: str
    width: float = 1.4
    dashes: bool = False
    marker: str = "o"


def learning(state: RunState, held_out: HeldOut | None) -> Markup | None:
    """Mean error by training rounds: on held-out cases first, then on those trained on."""
    panels: list[tuple[str, list[_Line]]] = []
    if held_out is not None:
        title = f"Held out: all {held_out.subjects} subjects"
        panels.append((title, _held_out_lines(state, held_out)))
    panels += [(_OWN[part], _own_lines(state, part)) for part in state.parts]
    if not panels:
        return None
    values = [v for _, lines in panels for line in lines for _, v in line.points]
    with mpl.rc_context(style()):
        figure = sheet(WIDTH, 400)
        row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, lines) in zip(row, panels, strict=True):
            axes.set_title(title)
            _curves(axes, lines, values)
        row[0].set_ylabel(f"mean error ({state.unit}, logarithmic)")
        figure.draw_without_rendering()  # lays the axes out, so that labels can be kept apart
        for axes, (_, lines) in zip(row, panels, strict=True):
            _end_labels(axes, lines, state.unit)
        summary = "; ".join(f"{title}: {_told(lines, state.unit)}" for title, lines in panels)
        return svg(figure, "learning", f"Mean error in {state.unit} by training rounds. {summary}.")


def _held_out_lines(state: RunState, held_out: HeldOut) -> list[_Line]:
    ends = [n for curve in (held_out.curve, *held_out.local_rounds.values()) for n, _ in curve]
    last = max(ends)
    lines = []
    for site, final in held_out.local.items():
        points = held_out.local_rounds.get(site) or ((last, final),)
        lines.append(_Line(f"{site} alone", points, _colour(state, site)))
    prior = ((0, held_out.prior), (last, held_out.prior))
    lines.append(_Line("constant prior", prior, MUTED, dashes=True, marker=""))
    return [*lines, _Line("federated", held_out.curve, INK, width=3.6)]


def _own_lines(state: RunState, part: Part) -> list[_Line]:
    """Return the federated model on each site's cases; the prior's moves when the cases change."""
    lines = [
        _Line(f"at {site}", points, _colour(state, site))
        for site in state.sites
        if (points := state.curve(part, site))
    ]
    evaluated = state.evaluated(part)
    prior = {r.trained: p for r in evaluated if (p := prior_mm(r.errors, part)) is not None}
    if prior:
        points = tuple(sorted(prior.items()))
        lines.append(_Line("constant prior", points, MUTED, dashes=True, marker=""))
    return [*lines, _Line("all sites", state.curve(part), INK, width=3.6)] if lines else []


def _colour(state: RunState, site: str) -> str:
    return site_colour(state.sites.index(site)) if site in state.sites else FAINT


def _told(lines: Sequence[_Line], unit: str) -> str:
    return ", ".join(
        f"{printable(s.label)} from {mm(s.points[0][1])} to {mm(s.points[-1][1])} {unit}"
        for s in lines
    )


def _curves(axes: Axes, lines: Sequence[_Line], values: Sequence[float]) -> None:
    """Draw lines on a logarithmic axis and write their names and last values at their ends."""
    quiet(axes)
    axes.set_yscale("log")
    low, high = max(min(values), 0.05), max(*values, 0.1)
    axes.set_ylim(low / 1.25, high * 1.15)
    ticks = [t for t in _TICKS_MM if low / 1.25 <= t <= high * 1.15]
    axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
    axes.yaxis.set_minor_locator(NullLocator())
    for line in lines:
        x, y = zip(*line.points, strict=True)
        shape = (0, (5, 4)) if line.dashes else "solid"
        mark = line.marker if line.width < 3 or len(x) == 1 else ""
        axes.plot(
            x,
            [max(v, 0.05) for v in y],
            color=line.colour,
            linewidth=line.width,
            linestyle=shape,
            marker=mark,
            markersize=3.5 if len(x) > 1 else 6,
            solid_capstyle="round",
            clip_on=False,
        )
    last = max(n for line in lines for n, _ in line.points)
    axes.set_xlim(-0.02 * max(last, 1), max(last, 1) * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.set_xlabel("training rounds finished")


def _end_labels(axes: Axes, lines: Sequence[_Line], unit: str) -> None:
    """Names right of the last points, pushed apart where they would touch."""
    if len(lines) > len(SITES) + 2:
        lines = [line for line in lines if line.colour in (INK, MUTED)]
    newest = max(line.points[-1][0] for line in lines)
    box = axes.get_window_extent()
    ends = [
        (float(axes.transData.transform((0, max(line.points[-1][1], 0.05)))[1]) - box.y0, line)
        for line in lines
    ]
    ends.sort(key=lambda end: end[0])
    heights = spread([height for height, _ in ends], gap=17.0)
    for height, (_, line) in zip(heights, ends, strict=True):
        axes.annotate(
            _end_label(line, newest, unit),
            xy=(1.0, height / box.height),
            xycoords="axes fraction",
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            color=line.colour if line.colour != FAINT else MUTED,
            fontweight="bold" if line.width > 3 else "normal",
            fontsize=12,
            annotation_clip=False,
        )


def _end_label(line: _Line, newest: int, unit: str) -> str:
    """Return the name and last value; says so when the curve ends before the others."""
    x, value = line.points[-1]
    return f"{printable(line.label)} {mm(value)} {unit}" + (f" after {x}" if x < newest else "")


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Ascending positions moved as little as needed to lie ``gap`` apart.

    Blocks of touching labels are placed around the mean of where they want to be.
    """
    blocks: list[tuple[float, list[float]]] = []
    for position in positions:
        blocks.append((position, [position]))
        while len(blocks) > 1:
            (low, lower), (high, upper) = blocks[-2], blocks[-1]
            if high - low >= gap * (len(lower) + len(upper)) / 2:
                break
            both = lower + upper
            blocks[-2:] = [(sum(both) / len(both), both)]
    return [
        centre + gap * (k - (len(block) - 1) / 2)
        for centre, block in blocks
        for k in range(len(block))
    ]


def sketch(state: RunState) -> Markup | None:
    """Fill and total of the merged sketch after every round."""
    rounds = [r for r in state.rounds if r.finished_at is not None and r.sketch_total]
    if not rounds:
        return None
    x = [r.round for r in rounds]
    with mpl.rc_context(style()):
        figure = sheet(WIDTH, 230)
        fill_axes, total_axes = figure.subplots(1, 2)
        fills = [100 * r.sketch_fill for r in rounds]
        totals = [float(r.sketch_total) for r in rounds]
        for axes, y, title in (
            (fill_axes, fills, "Cells in use (%)"),
            (total_axes, totals, "Keys counted"),
        ):
            quiet(axes)
            axes.set_title(title)
            axes.plot(x, y, color=SITES[0], linewidth=2.4, marker="o", markersize=4, clip_on=False)
            axes.set_ylim(0, max(y) * 1.18)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
            axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
            axes.set_xlabel("round")
        total_axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: count(int(v))))
        for axes, y_last, label in (
            (fill_axes, fills[-1], percent(rounds[-1].sketch_fill)),
            (total_axes, totals[-1], count(rounds[-1].sketch_total)),
        ):
            axes.annotate(
                label,
                (x[-1], y_last),
                xytext=(0, 8),
                textcoords="offset points",
                ha="right",
                color=INK,
                fontweight="bold",
            )
        what = "Experience" if state.kind in TRAINED else "Merged"
        alt = (
            f"{what} sketch: {percent(rounds[0].sketch_fill)} of cells in use after round "
            f"{x[0]}, {percent(rounds[-1].sketch_fill)} after round {x[-1]}, "
            f"{count(rounds[-1].sketch_total)} keys counted."
        )
        return svg(figure, "sketch", alt)
