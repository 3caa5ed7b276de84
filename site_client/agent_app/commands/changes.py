"""Settings from a command line: a configuration, changes to one, changes to a checkpoint's."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from common.checkpoint import planned_config
from common.errors import InputDataError, UsageError
from common.plan import read_plan
from site_client.agent_app.beginning import PATHS
from site_client.agent_app.config import Config, differences, parse_config, read_tables

# What may be changed of a trained network beside data, evaluation and pose.
_FREE = (
    "run.threads",
    "run.execution",
    "run.device",
    "box.per_axis",
    "box.sizes_mm",
    "box.suppress_above",
    "box.least_score",
    "box.least_voxels",
    "registration.start",
)


def configuration(
    file: Path | None,
    plan_file: Path | None,
    kind: str | None,
    changes: tuple[str, ...],
    model: Config | None = None,
) -> Config:
    """Say what a file or a plan, a kind and single changes mean together.

    Args:
        file: a configuration.
        plan_file: or a federation's plan.
        kind: of task, for its defaults.
        changes: ``SECTION.KEY=VALUE``.
        model: the configuration of the model that training begins with, where no file says more.

    Raises:
        UsageError: they contradict each other, or a change is not understood.
        InputDataError: the configuration is not valid.
    """
    if file is not None and plan_file is not None:
        raise UsageError("two sources of settings", expected="--config or --plan, not both")
    tables: dict[str, Any] = {} if file is None else read_tables(file)
    if model is not None and file is None and plan_file is None and kind is None:
        tables = _anew(model)
    if plan_file is not None:
        tables = _of_plan(plan_file)
    task = tables.setdefault("task", {})
    if kind is not None and isinstance(task, dict):
        if task.get("kind", kind) != kind:
            raise UsageError("--task is not the task.kind of --config", expected=task["kind"])
        task["kind"] = kind
    _apply(tables, changes)
    return parse_config(tables)


def _of_plan(path: Path) -> dict[str, Any]:
    """Take a plan as configuration: the same sections, and its seed.

    Raises:
        InputDataError: no plan, or one that trains nothing.
    """
    plan = read_plan(path)
    if not plan.trains:
        raise InputDataError(
            "the plan has no agent", field="kind", expected="training", got=plan.kind
        )
    return planned_config(plan) | {"run": {"seed": plan.seed % 2**32}}


def _anew(config: Config) -> dict[str, Any]:
    """Take a model's settings for another run: without its images and its folder."""
    tables: dict[str, Any] = config.model_dump(mode="json")
    tables["data"] = {k: v for k, v in tables["data"].items() if k not in PATHS}
    tables["run"] = {k: v for k, v in tables["run"].items() if k not in ("output", "start")}
    return tables


def changed(config: Config, changes: tuple[str, ...]) -> Config:
    """A checkpoint's configuration with other ways of reading data or of evaluating.

    Raises:
        UsageError: a change would make it another network's.
        InputDataError: the change is not valid.
    """
    tables = config.model_dump(mode="json")
    _apply(tables, changes)
    changed_config = parse_config(tables)
    fixed = [
        key
        for key in differences(config, changed_config)
        if key.partition(".")[0] not in ("data", "evaluation", "pose") and key not in _FREE
    ]
    if fixed:
        raise UsageError(
            "a checkpoint's network cannot be changed",
            field=", ".join(fixed),
            expected="as it was trained",
            advice=f"--set takes data.*, evaluation.*, pose.*, {', '.join(_FREE)} here",
        )
    return changed_config


def _apply(tables: dict[str, Any], changes: tuple[str, ...]) -> None:
    """Put single changes into a configuration's tables.

    Raises:
        UsageError: a change is not understood.
    """
    for change in changes:
        name, equals, value = change.partition("=")
        section, dot, key = name.strip().partition(".")
        if not equals or not dot:
            raise UsageError("--set is not understood", expected="SECTION.KEY=VALUE", got=change)
        table = tables.setdefault(section, {})
        if isinstance(table, dict):
            table[key] = _value(value.strip())


def _value(text: str) -> object:
    """A value as TOML has it; what is none is taken as a text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
