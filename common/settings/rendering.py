"""Settings as TOML, with what each means as a comment above it: read from its class's docstring."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Collection, Mapping

from pydantic import BaseModel


def render_sections(
    sections: Mapping[str, BaseModel],
    *,
    introduction: str | None = None,
    without: Collection[tuple[str, str]] = (),
) -> str:
    """Write sections as tables of a TOML file.

    Args:
        sections: settings by the name of their table.
        introduction: a comment over the whole; None leaves every comment out.
        without: section and key of what is not written.
    """
    comments = introduction is not None
    parts = [] if introduction is None else [_commented(introduction)]
    for name, values in sections.items():
        section = type(values)
        about = _descriptions(section) if comments else {}
        lines = [_commented((inspect.getdoc(section) or "").split("\n")[0])] if comments else []
        lines.append(f"[{name}]")
        for key in section.model_fields:
            if (name, key) in without:
                continue
            if key in about:
                lines.append(_commented(about[key]))
            lines.append(f"{key} = {_toml(getattr(values, key))}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _descriptions(section: type[BaseModel]) -> dict[str, str]:
    """Read the text of each attribute in the section's docstring."""
    text = inspect.getdoc(section) or ""
    _, _, attributes = text.partition("Attributes:\n")
    descriptions: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \w)", attributes):
        names, colon, about = entry.partition(": ")
        if colon:
            # The first of several names carries what is said of all.
            descriptions[names.split(",")[0].strip()] = re.sub(r"\s+", " ", about).replace(
                "``", '"'
            )
    return descriptions


def _commented(text: str) -> str:
    lines = [line for part in text.split("\n") for line in _wrap(part) or [""]]
    return "\n".join(f"# {line}".rstrip() for line in lines)


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, 96, break_on_hyphens=False, break_long_words=False)


def _toml(value: object) -> str:
    """Write a value as TOML has it."""
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(entry) for entry in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)
