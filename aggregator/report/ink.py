"""From a matplotlib figure to inline SVG that takes its colours from the page.

Nothing global is touched: figures are drawn on their own canvas inside an
``rc_context``, without pyplot, without a display, without date and with fixed
ids, so that the same figure always gives the same bytes. The result holds no
reference to anything outside the page.
"""

from __future__ import annotations

import io
import re
from html import escape
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from common.errors import InternalError
from common.page import SITE_COLOURS, colour, in_tokens

# After Okabe & Ito's colour-blind-safe palette, ordered so that neighbours differ in
# lightness too.
SITES = tuple(colour(f"--site-{n}") for n in range(SITE_COLOURS))
INK = colour("--ink")
MUTED = colour("--muted")
RULE = colour("--rule")
FAINT = colour("--faint")
WARN = colour("--warn")
PAPER = colour("--paper")
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name with dollar signs is a name
    "svg.image_inline": True,
    "font.size": 12.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 13,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlepad": 12,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "hatch.linewidth": 1.0,
    "path.simplify": False,
}
WIDTH = 1000
_PX = 1 / 72  # one SVG user unit is one pixel of the page at full width


def site_colour(place: int) -> str:
    """Return a site's colour by its place; beyond the palette sites share a neutral one."""
    return SITES[place] if place < len(SITES) else FAINT


def sheet(width: int, height: int) -> Figure:
    """Return an empty figure of so many pixels, without background; use inside ``style``."""
    figure = Figure(figsize=(width * _PX, height * _PX), dpi=72, layout="constrained")
    figure.patch.set_visible(False)
    return figure


def style() -> dict[Any, Any]:
    """Return the settings that hold while a figure is made, whatever the user's own are."""
    base = {k: v for k, v in mpl.rcParamsDefault.items() if "backend" not in k}
    return {**base, **_STYLE}


def quiet(axes: Axes, *, grid: str = "y") -> None:
    """Leave the axes with the lines that help reading and no others."""
    axes.patch.set_visible(False)
    axes.spines["left"].set_visible(False)
    if grid in ("x", "y"):
        axes.grid(visible=True, axis="y" if grid == "y" else "x")


def svg(figure: Figure, name: str, alt: str) -> Markup:
    """Inline SVG of a figure.

    Args:
        figure: made inside ``style``.
        name: unique on the page; prefixes every id.
        alt: what a reader who cannot see the figure is told.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(buffer, metadata=nothing)  # type: ignore[no-untyped-call]
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
    head = re.match(r"<svg[^>]*?viewBox=\"([^\"]*)\"[^>]*>", text)
    if head is None:
        raise InternalError(
            "a figure could not be drawn", field=name, expected="an SVG with a viewBox"
        )
    body = text[head.end() :]
    body = re.sub(r"(\bid=\"|href=\"#|url\(#)", rf"\g<1>{name}-", body)
    return Markup(  # noqa: S704 - matplotlib escapes the texts it draws; name and alt are escaped here
        f'<svg viewBox="{head[1]}" role="img" aria-label="{escape(alt)}">{in_tokens(body)}'
    )
