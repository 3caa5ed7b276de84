"""The configuration of a training run: TOML, typed, every default visible, nothing guessed.

Sections that describe the agent are its own settings; those that say where data
lies and how a run is kept are defined here. A key that does not exist is an error
that names the nearest one that does.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from common.arrivals.texts import toml_of
from common.errors import InputDataError
from common.settings import (
    FEDERATED,
    AgentSettings,
    Frozen,
    MisfitError,
    check_keys,
    parse_settings,
    render_sections,
    sections_of,
)
from site_client.imaging.data_settings import DataSettings, Text


class RunSettings(Frozen):
    """The course of a run and its files.

    Attributes:
        output: folder for checkpoints, metrics and TensorBoard; ``--output`` takes its place.
        seed: of first weights, exploration, sampling and the split.
        start: SHA-256 of the weights that the run begins with; "" for first weights from the
            seed. ``--checkpoint`` or ``--model`` fills it in.
        threads: of the network's arithmetic; another number gives other weights.
        device: ``cpu``, ``cuda``, or ``auto``, which takes a graphics card where there is one; a
            card gives slightly other weights.
        execution: ``plain``, or ``fastest``: where the processor has 16-bit arithmetic, convolve
            in it with another memory layout; that gives slightly other weights there.
        log_every: updates between two lines of metrics.
        checkpoint_every: updates between two saves of the latest checkpoint.
        evaluate_every: updates between two evaluations on the validation cases.
        validation_starts: searches per validation case and landmark.
        validation_poses: random poses per validation case.
    """

    output: Text = ""
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    start: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    execution: Literal["plain", "fastest"] = "plain"
    log_every: Annotated[int, Field(ge=1)] = 50
    checkpoint_every: Annotated[int, Field(ge=1)] = 500
    evaluate_every: Annotated[int, Field(ge=1)] = 500
    validation_starts: Annotated[int, Field(ge=1, le=100)] = 1
    validation_poses: Annotated[int, Field(ge=1, le=100)] = 2


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
        InputDataError: an unknown key (with the nearest known one), or a value that cannot be
            used; names section and key.
    """
    advice = "cairn-site train --print-config shows all of them"
    check_keys(data, Config, advice, "the configuration")
    return parse_settings(Config, data)


def render_config(config: Config, *, comments: bool = True) -> str:
    """Write the configuration as TOML that `parse_config` reads back to the same."""
    names = sections_of(config.task.kind, _SECTIONS)
    return render_sections(
        {name: getattr(config, name) for name in names},
        introduction=_INTRODUCTION if comments else None,
        without=FEDERATED,
    )


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
