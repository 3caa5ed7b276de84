"""The configuration of a training run: TOML, typed, every default visible, nothing guessed.

Sections that describe the agent are its own settings; those that say where data
lies and how a run is kept are defined here. A key that does not exist is an error
that names the nearest one that does.
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, model_validator

from common.arrivals.texts import toml_of
from common.errors import InputDataError
from common.settings import (
    FEDERATED,
    AgentSettings,
    Frozen,
    MisfitError,
    check_keys,
    parse_settings,
    sections_of,
)
from site_client.agent_app.sections import DataSettings, RunSettings


class Config(AgentSettings):
    """All of a run's settings; one TOML table per field that its kind of task has."""

    data: DataSettings = DataSettings()
    run: RunSettings = RunSettings()

    @model_validator(mode="after")
    def _trains_alone(self) -> Self:
        for name, key in FEDERATED:
            section = getattr(self, name)
            if getattr(section, key) != type(section).model_fields[key].default:
                raise MisfitError(f"{name}.{key}", "left out: only a federation's plan has it")
        return self


# Data first and run last: as people think of a run, and as checkpoints hold them.
_SECTIONS: Final[Mapping[str, type[Frozen]]] = {
    name: type(Config.model_fields[name].default)
    for name in ("data", *AgentSettings.model_fields, "run")
}
_INTRODUCTION: Final = """\
A training run. Every setting stands here with its default; leave out what you do not
change. Train with:   cairn-site train --config train.toml --data FOLDER --output run
Go on after a stop:   cairn-site train --output run --resume"""


def default_config(kind: str) -> Config:
    """All defaults for one kind of task."""
    return parse_config({"task": {"kind": kind}})


def read_config(path: Path) -> Config:
    """Read and validate a configuration.

    Raises:
        InputDataError: unreadable, no TOML, an unknown key (with the nearest known one), or a
            value that cannot be used; names section and key.
    """
    return parse_config(read_tables(path))


def read_tables(path: Path) -> dict[str, object]:
    """The tables of a TOML file, not validated yet.

    Raises:
        InputDataError: unreadable, or no TOML.
    """
    try:
        return toml_of(path.read_bytes())
    except OSError as error:
        raise InputDataError(
            "cannot read the configuration",
            field=str(path),
            got=error.strerror or "an error",
            advice="cairn-site train --print-config > train.toml makes one",
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise InputDataError(
            "the configuration is not TOML", field=str(path), got=str(error).split("\n", 1)[0]
        ) from error


def parse_config(data: Mapping[str, object]) -> Config:
    """Validate a decoded configuration; what it leaves out has the defaults of its kind.

    Raises:
        InputDataError: see `read_config`.
    """
    advice = "cairn-site train --print-config shows all of them"
    check_keys(data, Config, advice, "the configuration")
    return parse_settings(Config, data)


def render_config(config: Config, *, comments: bool = True) -> str:
    """The configuration as TOML that `read_config` reads back to the same."""
    parts = [_commented(_INTRODUCTION)] if comments else []
    for name in sections_of(config.task.kind, _SECTIONS):
        section = _SECTIONS[name]
        values: BaseModel = getattr(config, name)
        about = _descriptions(section)
        lines = []
        if comments:
            lines.append(_commented(inspect.getdoc(section).split("\n")[0]))  # type: ignore[union-attr]
        lines.append(f"[{name}]")
        for key in section.model_fields:
            if (name, key) in FEDERATED:
                continue
            if comments and key in about:
                lines.append(_commented(about[key]))
            lines.append(f"{key} = {_toml(getattr(values, key))}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def differences(one: Config, other: Config) -> list[str]:
    """``section.key`` of every setting that differs."""
    changes = []
    for name, section in _SECTIONS.items():
        first, second = getattr(one, name), getattr(other, name)
        changes += [
            f"{name}.{key}"
            for key in section.model_fields
            if getattr(first, key) != getattr(second, key)
        ]
    return changes


def _descriptions(section: type[Frozen]) -> dict[str, str]:
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
    """A value as TOML writes it."""
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(entry) for entry in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)
