"""One style for every page: whole on light paper and on dark, and readable on both."""

from __future__ import annotations

import ast
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from common import page
from common.page import templates
from deploy.bundle.locks import ROOT

DARK = "@media screen and (prefers-color-scheme: dark)"
PRODUCT = [ROOT / name for name in ("common", "aggregator", "site_client")]
TOKENS = ROOT / "common" / "page" / "tokens.css"
# Whatever a page may be made of, and all code: none of them names a colour.
SOURCES = sorted(
    path
    for folder in PRODUCT
    for path in folder.rglob("*")
    if path.suffix in (".css", ".html", ".j2", ".py", ".svg") and path != TOKENS
)
TEMPLATES = [path for path in SOURCES if path.suffix == ".j2"]
SHEETS = [TOKENS, *(path for path in SOURCES if path.suffix == ".css")]
# Colours of the web by name that a style sheet could hide a literal behind.
NAMED = "black|white|red|green|blue|gr[ae]y|orange|yellow|brown|purple|silver|navy|teal"


def tokens() -> dict[str, dict[str, str]]:
    """The colours of each paper, by token; what only light paper names holds on both."""
    light = page.colours()
    dark = page.style().split(DARK)[1].split("\n}\n")[0]
    return {
        "light": light,
        "dark": light | dict(re.findall(r"(--[a-z0-9-]+): (#[0-9a-f]{6});", dark)),
    }


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """As WCAG 2.2 defines it: 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def literals(text: str) -> list[str]:
    """Colours written out: by number, by function, or by name in a style."""
    found = re.findall(r"(?<![&\w-])#(?:[0-9a-fA-F]{6}|[0-9a-fA-F]{8}|[0-9a-fA-F]{3,4})\b", text)
    found += re.findall(r"\b(?:rgba?|hsla?|oklch|color)\(\s*[\d.]", text)
    return found + re.findall(rf"(?:fill|stroke|background|color):\s*(?:{NAMED})\b", text)


def test_a_literal_is_found_however_it_is_written():
    for text in (
        "color: #fff;",
        "fill:#12345678",
        "rgb(1, 2, 3)",
        "rgba( 0,0,0,.4)",
        "stroke: black",
        '"#1f77b4"',
    ):
        assert literals(text), text
    for text in ("var(--ink)", "&#39;", "href='#map'", "background: none", "rgb(token)"):
        assert not literals(text), text


def strings(path):
    """What a file may write into a page: of code its strings, else all of it."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    constants = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
    return "\n".join(node.value for node in constants if isinstance(node.value, str))


def test_no_colour_is_written_outside_the_tokens():
    found = {str(path.relative_to(ROOT)): literals(strings(path)) for path in SOURCES}
    assert len(found) > 300, "the walk has gone astray"
    assert {path: colours for path, colours in found.items() if colours} == {}


def test_every_token_that_is_used_is_there():
    known = {*page.colours(), "--text", "--code"}
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        used = re.findall(r"var\((--[a-z0-9-]+)\)|(?:colour|rgb)\(\"(--[a-z0-9-]+)\"\)", text)
        assert {a or b for a, b in used} <= known, path


def test_frame_and_style_are_written_in_one_place():
    frame = re.compile(r"<(?:!doctype|html|head|body|style)\b", re.I)
    writing = [path for path in SOURCES if frame.search(strings(path))]
    assert {path.parent for path in writing} == {ROOT / "common" / "page"}
    assert all(path.read_text("utf-8").startswith("{% set title %}") for path in TEMPLATES)


def test_a_style_asks_nobody_for_anything():
    for sheet in SHEETS:
        assert not re.search(r"url\(|@import|https?:", sheet.read_text(encoding="utf-8")), sheet


def test_what_lies_on_paper_has_its_counterpart_on_dark_paper():
    dark = page.style().split(DARK)[1].split("\n}\n")[0]
    changed = set(re.findall(r"(--[a-z0-9-]+): #", dark))
    stay = {name for name in page.colours() if re.match(r"--(?:over|cluster)-", name)}
    assert changed | stay | {"--above", "--below"} == set(page.colours())
    assert not changed & stay


@pytest.mark.parametrize("paper", ["light", "dark"])
def test_words_can_be_read_and_shapes_be_seen_on_either_paper(paper):
    colours = tokens()[paper]
    for back in ("--paper", "--panel"):
        for word in ("--ink", "--muted", "--good", "--warn", "--bad"):
            assert contrast(colours[word], colours[back]) >= 4.5, (word, back)
    for tone in ("--good", "--warn", "--bad"):
        assert contrast(colours[tone], colours[f"{tone}-back"]) >= 4.5, tone
        assert contrast(colours["--ink"], colours[f"{tone}-back"]) >= 4.5, tone
    sites = (f"--site-{at}" for at in range(page.SITE_COLOURS))
    for shape in ("--above", "--below", *sites):
        assert contrast(colours[shape], colours["--paper"]) >= 3, shape
    for at in range(page.CLUSTER_COLOURS):
        assert contrast(colours[f"--cluster-{at}"], colours["--paper"]) >= 2.4, at


def test_words_over_an_image_can_be_read_on_their_rim():
    colours = page.colours()
    for name in colours:
        if name.startswith("--over-") and name not in ("--over-paper", "--over-black"):
            assert contrast(colours[name], colours["--over-black"]) >= 4.5, name
            assert contrast(colours[name], colours["--over-paper"]) >= 4.5, name


def test_a_drawing_follows_the_paper_but_what_lies_over_an_image_stays():
    told = {name: colour for name, colour in page.colours().items() if "over" not in name}
    assert len(set(told.values())) == len(told), "two tokens of one colour cannot be told apart"
    for name, colour in page.colours().items():
        drawn = page.in_tokens(f'<path style="fill: {colour}"/>')
        assert drawn == f'<path style="fill: {colour if "over" in name else f"var({name})"}"/>'
    assert page.in_tokens('<use href="#m1f77b4"/> #123456') == '<use href="#m1f77b4"/> #123456'


def test_a_scale_tells_what_its_ends_its_middle_and_half_its_depth_mean():
    html = page.signed_scale(0.0316, 0.0079)
    told = re.findall(r"<span>([^<]*)</span>", html)
    assert told == ["≤ \N{MINUS SIGN}0.0316", "\N{MINUS SIGN}0.0079", "0", "+0.0079", "≥ +0.0316"]
    assert "every value is 0" in page.signed_scale(0.0, 0.0)
    assert "&lt;b&gt;" in page.scale("grey", ["<b>", "255"])


class Titled(HTMLParser):
    """What a page says in its title and in its paragraphs."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.title, self.main = "", ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "title":
            self.title += data
        if self.open and self.open[-1] == "p":
            self.main += data


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A package with a template of its own."""
    root = tmp_path_factory.mktemp("pages")
    (root / "leaflet" / "templates").mkdir(parents=True)
    (root / "leaflet" / "__init__.py").touch()
    text = "{% set title %}Of {{ name }}{% endset -%}\n<p>{{ name }}{{ name | twice }}</p>\n"
    (root / "leaflet" / "templates" / "note.html.j2").write_text(text, encoding="utf-8")
    (root / "leaflet" / "templates" / "note.css").write_text("p { color: var(--ink); }\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root))
        yield "leaflet"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_whatever_a_name_is_it_stays_text_in_title_and_column(package, name):
    html = templates.render(package, "note.html.j2", {"name": name}, {"twice": lambda t: t * 2})
    shown = "".join(
        c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in name
    )
    seen = Titled(html)
    assert seen.title == f"Of {shown}"
    assert seen.main == shown * 3
    assert "p { color: var(--ink); }\n</style>" in html


def test_a_page_has_the_frame_that_forbids_every_request(package):
    html = templates.render(package, "note.html.j2", {"name": "x"}, {"twice": str})
    assert html.startswith("<!doctype html>")
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in html
    assert DARK in html
    assert "<script" not in html


def test_a_name_that_the_context_lacks_is_an_error(package):
    with pytest.raises(UndefinedError):
        templates.render(package, "note.html.j2", {}, {"twice": str})
