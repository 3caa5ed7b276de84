"""The one style of every page that Cairn writes: its frame, colours, letters, tables, scales.

Pages stand alone: the style sheets are put into them whole, no page runs a script, and none
names a file, a font or an address; its own policy forbids a browser to ask for one. Light or
dark is the reader's choice, by ``prefers-color-scheme``. Colours are named in tokens.css and
nowhere else. What is here needs no extra: an auditor's page is made without one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files
from string import Template
from typing import Final, Literal

SITE_COLOURS: Final = 6
CLUSTER_COLOURS: Final = 12
LEVEL_COLOURS: Final = 4
_DARK: Final = "@media screen and (prefers-color-scheme: dark)"


def page(title: str, body: str, own: str = "") -> str:
    """Put the frame around what a page says.

    Args:
        title: plain text.
        body: HTML of the one column; whoever made it has escaped the texts in it.
        own: a style sheet for what only this page has, in the shared colours.
    """
    return Template(_read("page.html")).substitute(
        title=escape(title), style=style() + own, body=body
    )


def style() -> str:
    """Read the style sheet that every page has."""
    return _read("tokens.css") + _read("page.css")


@cache
def colours() -> dict[str, str]:
    """Read every token's colour on light paper, as ``#rrggbb`` by its name."""
    light = _read("tokens.css").split(_DARK)[0]
    return dict(re.findall(r"(--[a-z0-9-]+): (#[0-9a-f]{6});", light))


def colour(token: str) -> str:
    """Look up one token's colour on light paper, ``#rrggbb``: for pictures, and for figures.

    Figures are drawn in it and then handed to `in_tokens`, so that they follow the paper.
    """
    return colours()[token]


def rgb(token: str) -> tuple[int, int, int]:
    """Look up one token's colour on light paper as red, green and blue of 255."""
    red, green, blue = bytes.fromhex(colour(token).removeprefix("#"))
    return red, green, blue


def in_tokens(drawing: str) -> str:
    """Name the tokens in a drawing in the place of their colours, so that it follows the paper.

    Colours over images stay: what they lie on does not change with the paper.
    """
    following = {light: token for token, light in colours().items() if "over" not in token}
    return re.sub(
        r"#[0-9a-f]{6}\b",
        lambda found: f"var({following[found[0]]})" if found[0] in following else found[0],
        drawing,
    )


def scale(kind: Literal["signed", "grey"], ticks: Sequence[str]) -> str:
    """Build a colour scale with its numbers, as HTML.

    Args:
        kind: blue to orange through paper, or black to white.
        ticks: what the colours mean, evenly from the left end to the right one.
    """
    numbers = "".join(f"<span>{escape(tick)}</span>" for tick in ticks)
    return f'<span class="scale {kind}"><i></i><b>{numbers}</b></span>'


def signed_scale(full: float, half: float) -> str:
    """Build the scale of values of both signs.

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
    """Write a number with its sign, which is as wide as a digit, and three digits."""
    return f"{value:+.3g}".replace("-", "\N{MINUS SIGN}")


@cache
def _read(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")
