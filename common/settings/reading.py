"""Reading settings, and saying which field is wrong with them; never what stood in it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeGuard, TypeVar

from pydantic import BaseModel, ValidationError

from common.errors import InputDataError
from common.settings.fields import Frozen
from common.settings.misfit import MisfitError

Settings = TypeVar("Settings", bound=Frozen)


def describe_validation(error: ValidationError) -> tuple[str, str, str]:
    """(field, expected, got) of the first thing wrong; never the value itself."""
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    expected = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return field, "a known key", "an unknown key"
    if first["type"] == "missing":
        return field, "present", "nothing"
    complaint = first.get("ctx", {}).get("error")
    if isinstance(complaint, MisfitError):
        return ".".join(filter(None, (field, complaint.field))), expected, complaint.got
    return field or "(top level)", expected[0].lower() + expected[1:], "another value"


def parse_settings(kind: type[Settings], data: object, section: str = "") -> Settings:
    """Validate decoded settings, e.g. a table of a TOML file.

    Args:
        kind: a section, or another frozen model.
        data: mapping of names to values.
        section: the table's name, for the message.

    Raises:
        InputDataError: names the first field that is wrong, never its value.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        field, expected, got = describe_validation(error)
        raise InputDataError(
            "the settings are not valid",
            field=f"{section}.{field}" if section else field,
            expected=expected,
            got=got,
        ) from error


def check_keys(data: object, model: type[BaseModel], advice: str, what: str) -> None:
    """Refuse keys that do not exist, naming the nearest that does.

    Args:
        data: decoded settings, sections as mappings.
        model: what they are validated by; its fields that are sections are looked into.
        advice: what shows all keys.
        what: the keys are in, in words.

    Raises:
        InputDataError: an unknown section or key, or a section that is no table.
    """
    if not isinstance(data, Mapping):
        return
    fields = model.model_fields
    sections = any(_is_section(field.annotation) for field in fields.values())
    _check_names(data, fields, "", advice, what, sections=sections)
    for name, values in data.items():
        section = fields[name].annotation
        if not _is_section(section):
            continue
        if isinstance(values, Mapping):
            _check_names(values, section.model_fields, f"{name}.", advice, what, sections=False)
        elif not isinstance(values, BaseModel):
            raise InputDataError(
                "the settings are not valid", field=name, expected="a table", got="another value"
            )


def _is_section(kind: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _check_names(
    keys: Mapping[str, object],
    known: Iterable[str],
    section: str,
    advice: str,
    what: str,
    *,
    sections: bool,
) -> None:
    names = list(known)
    for key in keys:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
            # Sections are few enough to be told; a guess at one misleads.
            guess = section + near[0] if near and not sections else ""
            raise InputDataError(
                "an unknown section" if sections else f"an unknown key in {what}",
                field=f"{section}{key}",
                expected=guess or f"one of {', '.join(names)}",
                advice=advice,
            )
