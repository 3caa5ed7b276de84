"""One style for every page: whole on light paper and on dark, and readable on both."""

from __future__ import annotations

import re

import pytest

from aggregator.report.figures import _LEVELS
from aggregator.report.ink import TOKENS
from common.page import ABOVE, BELOW, scale, signed_scale, style
from deploy.bundle.locks import ROOT

DARK = "@media screen and (prefers-color-scheme: dark)"
PAGES = [
    *sorted((ROOT / "aggregator").rglob("templates/*")),
    *sorted((ROOT / "site_client" / "worker").rglob("templates/*")),
    ROOT / "common" / "audit" / "report.py",
]
ON_BOTH_PAPERS = {"--above": ABOVE, "--below": BELOW}


def tokens() -> dict[str, dict[str, str]]:
    """The colours of each paper, by token."""
    light, dark = style().split(DARK)
    dark = dark.split("\n}\n")[0]
    found = {
        name: dict(re.findall(r"(--[a-z0-9-]+): (#[0-9a-f]{6});", text))
        for name, text in (("light", light), ("dark", dark))
    }
    found["dark"] = ON_BOTH_PAPERS | found["dark"]
    return found


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """As WCAG 2.2 defines it: 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_every_colour_has_its_counterpart_on_dark_paper():
    both = tokens()
    assert set(both["light"]) == set(both["dark"])
    assert {name: both["light"][name] for name in ON_BOTH_PAPERS} == ON_BOTH_PAPERS


@pytest.mark.parametrize("paper", ["light", "dark"])
def test_words_can_be_read_and_shapes_be_seen_on_either_paper(paper):
    colours = tokens()[paper]
    for back in ("--paper", "--panel"):
        for word in ("--ink", "--muted", "--good", "--warn", "--bad"):
            assert contrast(colours[word], colours[back]) >= 4.5, (word, back)
    for tone in ("--good", "--warn", "--bad"):
        assert contrast(colours[tone], colours[f"{tone}-back"]) >= 4.5, tone
        assert contrast(colours["--ink"], colours[f"{tone}-back"]) >= 4.5, tone
    for shape in ("--above", "--below", *(f"--site-{at}" for at in range(6))):
        assert contrast(colours[shape], colours["--paper"]) >= 3, shape


def test_a_style_asks_nobody_for_anything():
    assert not re.search(r"url\(|@import|https?:", style())


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_uses_the_shared_colours_and_brings_none_of_its_own(path):
    text = path.read_text(encoding="utf-8")
    known = {*tokens()["light"], "--text", "--code"}
    used = {a or b for a, b in re.findall(r"var\((--[a-z0-9-]+)\)|'(--[a-z0-9-]+)'", text)}
    assert used <= known
    assert not re.search(r"(?<!&)#[0-9a-fA-F]{3,8}\b", text), "a colour of its own"
    if path.suffix in (".j2", ".py"):
        assert re.search(r"\{\{ style \}\}|\$style", text)


def test_figures_name_tokens_that_are_there():
    assert set(TOKENS.values()) <= set(tokens()["light"])


def test_what_lies_over_an_image_keeps_its_colour_on_either_paper():
    assert not {*_LEVELS, "#000000", "#ffffff"} & set(TOKENS)


def test_a_scale_tells_what_its_ends_its_middle_and_half_its_depth_mean():
    html = signed_scale(0.0316, 0.0079)
    told = re.findall(r"<span>([^<]*)</span>", html)
    assert told == ["≤ \N{MINUS SIGN}0.0316", "\N{MINUS SIGN}0.0079", "0", "+0.0079", "≥ +0.0316"]
    assert "every value is 0" in signed_scale(0.0, 0.0)
    assert "&lt;b&gt;" in scale("grey", ["<b>", "255"])
