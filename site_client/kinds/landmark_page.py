"""The page of landmarks: errors and success drawn, and the cases with the largest errors.

Drawings take the page's colours, so that they are readable in the dark, too.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from common.page import colour, in_tokens
from site_client.imaging.drawing import FOUND, TRUTH
from site_client.kinds.landmark_errors import SUCCESS_MM, Errors
from site_client.kinds.tables import Section, Table
from site_client.kinds.values import Answers

_INK, _MUTED, _RULE = colour("--ink"), colour("--muted"), colour("--rule")
_AGENT, _PRIOR = colour("--site-0"), colour("--site-5")
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 12,
    "text.color": _INK,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": _RULE,
    "xtick.color": _MUTED,
    "ytick.color": _INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
_FARTHEST_MM = 20.0


def landmark_sections(
    tables: Mapping[str, Table],
    errors: Sequence[Errors],
    worst: Sequence[tuple[Image.Image, str]],
) -> list[Section]:
    """Lay out the page of landmarks.

    Args:
        tables: of errors under random poses, and perhaps as acquired.
        errors: under random poses, to draw.
        worst: pictures of the cases with the largest errors, with captions.
    """
    sections = [
        Section(
            "landmarks",
            "Error per landmark, under random poses",
            "Distance to the annotated landmark in mm; every search counts by itself; “≤ 2 mm” is "
            "the share of them that ended within 2 mm. “Prior” always answers the mean training "
            "position on the same poses. “Consensus” is what the starts of a case agree on.",
            tables["posed"],
            (
                _errors_drawing(errors),
                "Each line spans the middle 80 % of the searches, the bar the middle half, the "
                "point is the median. The diamond is the median of the constant prior.",
            ),
        ),
        Section(
            "success",
            "Share of searches within a distance",
            "",
            drawing=(
                _success_drawing(errors),
                "All landmarks together, under random poses. Dotted lines: "
                f"{', '.join(f'{limit:g}' for limit in SUCCESS_MM[:-1])} and "
                f"{SUCCESS_MM[-1]:g} mm.",
            ),
        ),
    ]
    if "native" in tables:
        note = (
            "Without a random pose. Scans that were all positioned alike flatter the constant "
            "prior and everything that learned a position by heart."
        )
        title = "Error per landmark, as acquired"
        sections.append(Section("native", title, note, tables["native"]))
    if worst:
        note = "The cases with the largest errors, as acquired."
        legend = (("annotated", TRUTH), ("found", FOUND))
        sections.append(Section("cases", "Cases", note, pictures=tuple(worst), legend=legend))
    return sections


def absence_sections(answers: Answers[Any]) -> list[Section]:
    """Lay out how well absent landmarks are told, where that is measured."""
    shown = []
    for extra in answers.extras:
        figures: Any = answers.further[extra.name]
        drawing = _receiver_drawing(np.array(figures["roc"]), figures["auroc"])
        about = "Every threshold of the score; the dotted line is an answer by chance."
        shown.append(
            Section(extra.name, extra.title, extra.note, extra.table, drawing=(drawing, about))
        )
    return shown


def _receiver_drawing(curve: NDArray[np.float64], area: float) -> Markup:
    """Draw the share of absent landmarks that are reported, against false alarms."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 4.6))
        axes = figure.add_subplot()
        axes.plot((0, 100), (0, 100), color=_MUTED, linewidth=0.8, linestyle=":")
        axes.plot(*(100 * curve.T), color=_AGENT, linewidth=2, label=f"area {area:.3f}")
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 101)
        axes.set_xlabel("present landmarks reported absent (%)")
        axes.set_ylabel("absent landmarks reported (%)")
        axes.grid()
        axes.legend(loc="lower right", frameon=False)
        figure.tight_layout()
        return _svg(figure, "Absent landmarks reported, against false alarms.")


def _errors_drawing(errors: Sequence[Errors]) -> Markup:
    """Draw a line per landmark: spread of the searches, and the prior beside."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10.5, 1.1 + 0.34 * len(errors)))
        axes = figure.add_subplot()
        for k, each in enumerate(errors):
            low, first, middle, third, high = np.percentile(each.searches, (10, 25, 50, 75, 90))
            axes.plot((low, high), (k, k), color=_AGENT, linewidth=1.2)
            axes.plot((first, third), (k, k), color=_AGENT, linewidth=6, solid_capstyle="butt")
            axes.plot(middle, k, "o", color=_INK, markersize=5)
            if each.prior.size:
                axes.plot(np.median(each.prior), k, "D", color=_PRIOR, markersize=5)
        axes.set_yticks(range(len(errors)), [each.row.landmark for each in errors])
        axes.set_ylim(len(errors) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.set_xlabel("error (mm)")
        axes.grid(axis="x")
        axes.tick_params(length=0)
        figure.tight_layout()
        return _svg(figure, "Error of every landmark in mm, beside the constant prior.")


def _success_drawing(errors: Sequence[Errors]) -> Markup:
    """Draw the share of searches within a distance, against the distance."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10.5, 3.4))
        axes = figure.add_subplot()
        lines = [("agent", [e.searches for e in errors], _AGENT)]
        lines.append(("constant prior", [e.prior for e in errors], _PRIOR))
        reach = np.linspace(0, _FARTHEST_MM, 201)
        for name, parts, ink in lines:
            values = np.sort(np.concatenate(parts))
            if values.size:
                share = np.searchsorted(values, reach, side="right") / values.size * 100
                axes.plot(reach, share, color=ink, linewidth=2, label=name)
        for limit in SUCCESS_MM:
            axes.axvline(limit, color=_MUTED, linewidth=0.8, linestyle=":")
        axes.set_xlim(0, _FARTHEST_MM)
        axes.set_ylim(0, 101)
        axes.set_xlabel("distance (mm)")
        axes.set_ylabel("searches (%)")
        axes.grid(axis="y")
        axes.legend(loc="best", frameon=False)
        figure.tight_layout()
        return _svg(figure, "Share of searches within a distance, agent and constant prior.")


def _svg(figure: Figure, label: str) -> Markup:
    """Make inline SVG in the page's colours, without date or outside reference."""
    text = io.StringIO()
    # Two drawings of a page may not share the names of their parts.
    with mpl.rc_context({"svg.hashsalt": label}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    drawing = text.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = in_tokens(drawing)
    drawing = re.sub(r'(<svg [^>]*?)width="[^"]*"', r"\1", drawing, count=1)
    drawing = re.sub(r'(<svg [^>]*?)height="[^"]*"', r"\1", drawing, count=1)
    drawing = drawing.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    return Markup(drawing)  # noqa: S704 - drawn by us; matplotlib escapes the names in it
