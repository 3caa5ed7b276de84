"""The page of an evaluation: self-contained, for a screen or for paper, no request to anywhere.

Every text is escaped by the template. With pictures the page shows patients'
images, and says so.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from common.cli import counted
from site_client.agent_app.pictures import Overlay, draw_case
from site_client.agent_app.results import SUCCESS_MM, Errors, Row

if TYPE_CHECKING:
    from site_client.agent_app.evaluating import Evaluation

_INK, _MUTED, _RULE, _AGENT, _PRIOR = "#15191e", "#59626d", "#d8dde3", "#0072b2", "#b67c00"
_TOKENS: Final = {
    _INK: "--ink",
    _MUTED: "--muted",
    _RULE: "--rule",
    _AGENT: "--agent",
    _PRIOR: "--prior",
}
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
_MOST_PICTURES = 8
_FARTHEST_MM = 20.0


@dataclass(frozen=True)
class _Picture:
    png: str
    text: str


def render_page(evaluation: Evaluation, *, pictures: bool) -> str:
    """The page as a string; the same evaluation gives the same page."""
    environment = Environment(
        loader=PackageLoader("site_client.agent_app"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters.update(mm=_mm, percent=_percent)
    return environment.get_template("evaluation.html.j2").render(_context(evaluation, pictures))


def _context(evaluation: Evaluation, pictures: bool) -> dict[str, object]:
    tables = evaluation.tables()
    mean = tables["posed"][-1]
    checkpoint = evaluation.checkpoint
    tone, verdict, sentence = _verdict(mean)
    return {
        "headline": f"{checkpoint.config.task.kind}, {len(checkpoint.landmarks)} landmarks, "
        f"{counted(evaluation.cases, 'case')}",
        "lead": f"{checkpoint.origin}, {checkpoint.updates:,} updates",
        "tone": tone,
        "verdict": verdict,
        "sentence": sentence,
        "numbers": _numbers(mean),
        "limits": [f"{limit:g}" for limit in SUCCESS_MM],
        "posed": tables["posed"],
        "native": tables.get("native", []),
        "drawings": {
            "errors": _errors_drawing(evaluation.posed),
            "success": _success_drawing(evaluation.posed),
        },
        "pictures": _pictures(evaluation) if pictures else [],
        "facts": _facts(evaluation),
    }


def _verdict(mean: Row) -> tuple[str, str, str]:
    found = f"{mean.mean_mm:.2f} mm on average over the landmarks, under random poses"
    if mean.prior_mm is None:
        return (
            "warn",
            "NO PRIOR TO COMPARE WITH",
            f"{found}. The checkpoint does not know the mean position in its training cases.",
        )
    beside = f"{found}; always answering the mean training position gives {mean.prior_mm:.2f} mm."
    if mean.mean_mm >= mean.prior_mm:
        return "warn", "NO BETTER THAN A CONSTANT", beside
    return "good", f"{mean.prior_mm / mean.mean_mm:.1f} TIMES CLOSER THAN A CONSTANT", beside


def _numbers(mean: Row) -> list[tuple[str, str, str]]:
    return [
        ("mean error", f"{mean.mean_mm:.2f} mm", f"± {mean.std_mm:.2f}, every search"),
        ("median error", f"{mean.median_mm:.2f} mm", "mean of the landmarks’ medians"),
        ("consensus", f"{mean.consensus_mm:.2f} mm", "what the starts agree on"),
        ("constant prior", f"{_mm(mean.prior_mm)} mm", "never looks"),
        ("over 10 mm", _percent(mean.far), f"of {mean.searches:,} searches"),
    ]


def _facts(evaluation: Evaluation) -> list[tuple[str, str]]:
    config = evaluation.checkpoint.config
    settings = config.evaluation
    pose = config.pose
    return [
        ("checkpoint", str(evaluation.place)),
        ("network", f"{config.network.architecture}, seed {config.run.seed}"),
        ("working spacing", f"{config.task.spacing_mm:g} mm"),
        (
            "steps",
            ", ".join(f"{step:g}" for step in config.ladder.steps_mm) + " mm, coarse to fine",
        ),
        ("searches", f"{settings.poses} poses per case, {settings.starts} starts each"),
        (
            "random poses",
            f"up to {pose.rotation_deg:g}°, {pose.scale_fraction:.0%} size, "
            f"{pose.shift_mm:g} mm shift",
        ),
    ]


def _pictures(evaluation: Evaluation) -> list[_Picture]:
    """The cases with the largest errors, volumes cut through their worst landmark."""
    worst: dict[int, list[Any]] = {}
    for entry in evaluation.found:
        worst.setdefault(entry.case, []).append(entry)
    ordered = sorted(worst.items(), key=lambda item: -max(e.error_mm or 0.0 for e in item[1]))
    shown: list[_Picture] = []
    for case, entries in ordered[:_MOST_PICTURES]:
        each = evaluation.built.cases.each[case]
        top = max(entries, key=lambda entry: entry.error_mm or 0.0)
        names = evaluation.built.cases.landmarks
        # A volume is cut through one landmark; marks of others would float beside the slice.
        marked = entries if len(top.position) == 2 else [top]
        truth = [each.landmarks_mm[names.index(entry.landmark)] for entry in marked]
        found = [entry.position for entry in marked]
        middle = truth[marked.index(top)]
        image = draw_case(each, Overlay(middle, found=found, truth=truth))
        data = io.BytesIO()
        image.save(data, "PNG", optimize=True)
        text = f"{each.name}: largest error {top.error_mm:.1f} mm, {top.landmark}"
        shown.append(_Picture(base64.b64encode(data.getvalue()).decode(), text))
    return shown


def _errors_drawing(errors: Sequence[Errors]) -> Markup:
    """A line per landmark: spread of the searches, and the prior beside."""
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
    """Share of searches within a distance, against the distance."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10.5, 3.4))
        axes = figure.add_subplot()
        lines = [("agent", [e.searches for e in errors], _AGENT)]
        lines.append(("constant prior", [e.prior for e in errors], _PRIOR))
        reach = np.linspace(0, _FARTHEST_MM, 201)
        for name, parts, colour in lines:
            values = np.sort(np.concatenate(parts))
            if values.size:
                share = np.searchsorted(values, reach, side="right") / values.size * 100
                axes.plot(reach, share, color=colour, linewidth=2, label=name)
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
    """Inline SVG in the page's colours, without date or outside reference."""
    text = io.StringIO()
    # Two drawings of a page may not share the names of their parts.
    with mpl.rc_context({"svg.hashsalt": label}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    drawing = text.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    for colour, token in _TOKENS.items():
        drawing = drawing.replace(colour, f"var({token})")
    drawing = re.sub(r'(<svg [^>]*?)width="[^"]*"', r"\1", drawing, count=1)
    drawing = re.sub(r'(<svg [^>]*?)height="[^"]*"', r"\1", drawing, count=1)
    drawing = drawing.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    return Markup(drawing)  # noqa: S704 - drawn by us; matplotlib escapes the names in it


def _mm(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _percent(share: float) -> str:
    return f"{share:.1%}"
