"""Bars and pictures of a report as inline SVG: bytes, time, and one search.

Colours belong to sites and stay the same from figure to figure. None is
returned when there is nothing to draw.
"""

from __future__ import annotations

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from aggregator.report.extras import DrawnSearch
from aggregator.report.ink import (
    FAINT,
    INK,
    MUTED,
    PAPER,
    SITES,
    WARN,
    WIDTH,
    quiet,
    sheet,
    site_colour,
    style,
    svg,
)
from aggregator.report.run import RoundSummary, RunState, SiteRound
from aggregator.report.text import duration, mm, printable, size
from common.page import LEVEL_COLOURS, colour


def bytes_out(state: RunState) -> Markup | None:
    """Bytes that left each site, stacked per round."""
    if not any(part.bytes for r in state.rounds for part in r.sites):
        return None
    with mpl.rc_context(style()):
        figure = sheet(WIDTH, 260)
        axes = figure.subplots()
        quiet(axes)
        base = [0.0] * len(state.rounds)
        x = range(len(state.rounds))
        for place, site in enumerate(state.sites):
            heights = [float(p.bytes) if (p := r.of(site)) else 0.0 for r in state.rounds]
            axes.bar(
                x,
                heights,
                bottom=base,
                width=0.62,
                color=site_colour(place),
                edgecolor=PAPER,
                linewidth=1,
                label=printable(site),
            )
            base = [b + h for b, h in zip(base, heights, strict=True)]
        if len(base) <= 16:
            for place, total in zip(x, base, strict=True):
                axes.annotate(
                    size(int(total)),
                    (place, total),
                    xytext=(0, 4),
                    textcoords="offset points",
                    ha="center",
                    color=MUTED,
                    fontsize=11,
                )
        _round_ticks(axes, state)
        axes.set_ylim(0, max(base) * 1.14)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: _short(int(v))))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.set_ylabel("bytes out of the sites")
        _key(axes, state)
        sums = ", ".join(f"{printable(s)} {size(state.site(s).bytes_out)}" for s in state.sites)
        return svg(figure, "bytes", f"Bytes out per round, stacked by site. In total: {sums}.")


def _short(value: int) -> str:
    """Return a size for an axis, without idle zeros: 2 MB."""
    number, unit = size(value).split()
    return f"{float(number):g} {unit}"


def _round_ticks(axes: Axes, state: RunState) -> None:
    step = -(-len(state.rounds) // 20)
    names = {"begin": "start", "evaluate": "evaluation"}
    places = range(0, len(state.rounds), step)
    axes.set_xticks(list(places), [names.get(r.phase, str(r.round)) for r in state.rounds[::step]])
    axes.set_xlabel("round")


def _key(axes: Axes, state: RunState) -> None:
    if len(state.sites) > len(SITES):
        return
    axes.legend(
        handles=[
            Patch(color=site_colour(n), label=printable(s)) for n, s in enumerate(state.sites)
        ],
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=len(SITES),
        frameon=False,
        handlelength=0.9,
        handleheight=0.9,
        columnspacing=1.6,
        borderaxespad=0.2,
        fontsize=12,
    )


def timeline(state: RunState) -> Markup | None:
    """Draw who trained, worked otherwise and waited; round after round, in seconds."""
    if not state.rounds or not state.sites:
        return None
    spans, end = [], 0.0
    for r in state.rounds:
        lasts = r.seconds or _so_far(state, r)
        spans.append((r, end, lasts))
        end += lasts
    with mpl.rc_context(style()):
        figure = sheet(WIDTH, 120 + 34 * len(state.sites))
        axes = figure.subplots()
        quiet(axes, grid="none")
        for r, begin, lasts in spans:
            axes.axvline(begin, color=FAINT, linewidth=0.7, zorder=0)
            _round_name(axes, r, begin, room=lasts / max(end, 1.0) * WIDTH * 0.9)
            for place, site in enumerate(state.sites):
                if (part := r.of(site)) is not None:
                    row = len(state.sites) - 1 - place
                    _bars(axes, row, begin, lasts, part, site_colour(place))
        names = [printable(s) for s in reversed(state.sites)]
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_xlim(0, max(end, 1.0))
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_xlabel("seconds; rounds are named above")
        alt = f"Rounds over time, {duration(end)} in all; the table below has the seconds."
        return svg(figure, "timeline", alt)


def _so_far(state: RunState, r: RoundSummary) -> float:
    """Seconds of a round without an end: to the newest event, or to its last answer."""
    answered = max((part.seconds for part in r.sites), default=0.0)
    if r is not state.current or state.updated_at is None:
        return answered
    return max(answered, (state.updated_at - r.started_at).total_seconds())


def _round_name(axes: Axes, r: RoundSummary, begin: float, room: float) -> None:
    """Write a round's name above its first moment, where there is room (pixels) for it."""
    name = {"begin": "start", "evaluate": "eval."}.get(r.phase, str(r.round))
    if room > 4 + 7 * len(name):
        axes.annotate(
            name,
            (begin, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, 3),
            textcoords="offset points",
            color=MUTED,
            fontsize=11,
        )


def _bars(axes: Axes, row: int, begin: float, lasts: float, part: SiteRound, colour: str) -> None:
    """Full for training, pale for the rest of the site's work, a line for waiting."""
    if part.status in ("late", "rejected", "failed"):
        axes.barh(
            row,
            lasts,
            left=begin,
            height=0.5,
            facecolor="none",
            edgecolor=WARN,
            hatch="////",
            linewidth=1.2,
        )
        axes.annotate(
            part.status,
            (begin + lasts / 2, row + 0.28),
            xytext=(0, 1),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=WARN,
            fontsize=11,
            fontweight="bold",
        )
        return
    work = min(part.seconds or lasts, lasts)
    train = min(part.train_s, work)
    axes.barh(row, train, left=begin, height=0.5, color=colour)
    axes.barh(row, work - train, left=begin + train, height=0.5, color=colour, alpha=0.35)
    axes.plot([begin + work, begin + lasts], [row, row], color=FAINT, linewidth=1.4)


_LEVELS = tuple(colour(f"--over-level-{n}") for n in range(LEVEL_COLOURS))
_RIM, _TRUTH = colour("--over-black"), colour("--over-white")


def trajectory(value: DrawnSearch) -> Markup:
    """One search over one slice of a public image, coloured by level."""
    left, right, bottom, top = value.extent_mm
    high, wide = abs(top - bottom), abs(right - left)
    width = 560
    with mpl.rc_context(style()):
        figure = sheet(width, min(760, round((width - 60) * high / wide) + 50))
        axes = figure.subplots()
        axes.imshow(
            value.image, cmap="gray", vmin=0, vmax=255, extent=value.extent_mm, origin="upper"
        )
        for spine in axes.spines.values():
            spine.set_visible(False)
        xs, ys = [p[0] for p in value.path], [p[1] for p in value.path]
        axes.plot(xs, ys, color=_RIM, linewidth=4.2, alpha=0.55)
        for k in range(1, len(value.path)):
            line = _level_colour(value.path[k][2])
            axes.plot(xs[k - 1 : k + 1], ys[k - 1 : k + 1], color=line, linewidth=2.4)
        for x, y, level in value.path:
            axes.plot([x], [y], "o", color=_level_colour(level), markersize=4.5, mec=_RIM)
        tx, ty = value.truth_mm
        axes.plot([tx], [ty], "o", mfc="none", mec=_RIM, mew=4.5, markersize=17)
        axes.plot([tx], [ty], "o", mfc="none", mec=_TRUTH, mew=2.2, markersize=17)
        axes.annotate(
            "start",
            (xs[0], ys[0]),
            xytext=(9, 6),
            textcoords="offset points",
            color=_TRUTH,
            fontweight="bold",
            bbox={"boxstyle": "round,pad=0.2", "facecolor": _RIM, "alpha": 0.6, "lw": 0},
        )
        axes.set_xlim(min(left, right), max(left, right))
        axes.set_ylim(bottom, top)
        axes.set_xlabel("mm")
        axes.set_ylabel("mm")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
        alt = (
            f"A search for {printable(value.landmark)} in {len(value.path) - 1} steps over a slice "
            f"of a public image; it ends {mm(value.error_mm)} mm from the landmark."
        )
        return svg(figure, "trajectory", alt)


def _level_colour(level: int) -> str:
    return _LEVELS[min(max(level, 0), len(_LEVELS) - 1)]


def level_colours(value: DrawnSearch) -> tuple[tuple[int, str], ...]:
    """Return the levels that occur, each with its colour, for the caption."""
    return tuple((n, _level_colour(n)) for n in sorted({p[2] for p in value.path}))
