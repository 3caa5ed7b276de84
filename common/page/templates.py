"""The one template environment. Every text that a template prints is escaped and cleaned.

Whoever makes pages of templates has jinja2 by an extra; nothing else in ``common`` may come
here. A template holds what stands in the one column of the page, and sets ``title``; beside
it may lie a style sheet of its own, of the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import unescape
from importlib.resources import files
from pathlib import PurePath

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from common.page import page

Filters = Mapping[str, Callable[..., str]]


def render(
    package: str, template: str, context: Mapping[str, object], filters: Filters | None = None
) -> str:
    """Make a page of a template; the same context gives the same bytes.

    Args:
        package: in whose folder ``templates`` it lies.
        template: its file.
        context: what it names; a name that it lacks is an error.
        filters: that it uses, by name.
    """
    environment = Environment(
        loader=PackageLoader(package), autoescape=True, undefined=StrictUndefined, finalize=_clean
    )
    environment.filters.update(filters or {})
    module = environment.get_template(template).make_module(dict(context))
    title = unescape(str(module.title))  # type: ignore[attr-defined]
    sheet = files(package).joinpath("templates", f"{PurePath(template).name.split('.')[0]}.css")
    own = sheet.read_text(encoding="utf-8") if sheet.is_file() else ""
    return page(title, str(module).strip(), own)


def _clean(value: object) -> object:
    """Take control characters out of what a template prints, but for line ends.

    Drawings are ours and pass.
    """
    if not isinstance(value, str) or type(value) is Markup:
        return value
    return "".join(
        c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in value
    )
