"""The one style of every page that Cairn writes: colours, letters, tables, colour scales.

Pages stand alone, so the style sheets are put into them whole; they name no file, no font
and no address. Light or dark is the reader's choice, by ``prefers-color-scheme``.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Literal

ABOVE, BELOW = "#d2650f", "#2f7fc8"
"""``--above`` and ``--below`` of tokens.css, for pictures: readable on either paper."""


def style() -> str:
    """The style sheet of a page: what stands between ``<style>`` and ``</style>``."""
    sheets = (files(__name__).joinpath(name) for name in ("tokens.css", "page.css"))
    return "".join(sheet.read_text(encoding="utf-8") for sheet in sheets)


def scale(kind: Literal["signed", "grey"], ticks: Sequence[str]) -> str:
    """A colour scale with its numbers, as HTML.

    Args:
        kind: blue to orange through paper, or black to white.
        ticks: what the colours mean, evenly from the left end to the right one.
    """
    numbers = "".join(f"<span>{escape(tick)}</span>" for tick in ticks)
    return f'<span class="scale {kind}"><i></i><b>{numbers}</b></span>'


def signed_scale(full: float, half: float) -> str:
    """The scale of values of both signs.

    Args:
        full: what is drawn at full depth, and everything beyond it; 0 when nothing is.
        half: what is drawn at half depth.
    """
    if not full:
        return scale("signed", ["", "every value is 0", ""])
    ends = (
        f"\N{LESS-THAN OR EQUAL TO} {_number(-full)}",
        f"\N{GREATER-THAN OR EQUAL TO} {_number(full)}",
    )
    return scale("signed", [ends[0], _number(-half), "0", _number(half), ends[1]])


def _number(value: float) -> str:
    """With its sign, which is as wide as a digit, and three digits."""
    return f"{value:+.3g}".replace("-", "\N{MINUS SIGN}")
