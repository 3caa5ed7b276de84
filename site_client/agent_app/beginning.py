"""How a training run begins: where its files lie, what it goes on from, its first weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from common.errors import InputDataError, UsageError
from common.settings import KINDS
from site_client.agent_app.checkpoint import (
    LATEST,
    Checkpoint,
    latest_checkpoint,
    read_checkpoint,
    weights_sha256,
)
from site_client.agent_app.config import Config, differences

METRICS_FILE: Final = "metrics.jsonl"
# Keys of [data] that say where cases lie, and not how they are read.
PATHS: Final = (
    "images",
    "landmarks",
    "moving",
    "validation",
    "validation_landmarks",
    "validation_moving",
)


def begin_or_resume(
    config: Config | None, data: Path | None, output: Path | None, *, resume: bool
) -> tuple[Config, Path, Checkpoint | None]:
    """Settle what a command line means: the configuration, the folder, where to go on from.

    Raises:
        UsageError: no folder, a folder that holds a run already, or nothing to go on from.
        InputDataError: the given configuration is not that of the run.
    """
    place = output or (Path(config.run.output) if config and config.run.output else None)
    if place is None:
        raise UsageError("no folder for the run", expected="--output, or run.output")
    latest = latest_checkpoint(place)
    if not resume:
        if latest is not None or (place / METRICS_FILE).exists():
            raise UsageError(
                "the folder holds a run already",
                field=str(place),
                expected="an empty or new folder",
                advice="Add --resume to go on with it",
            )
        if config is None:
            raise UsageError("no configuration", expected="--config, or --resume")
        return _settled(config, data, place), place, None
    if latest is None:
        raise UsageError(
            "nothing to go on from", field=str(place / LATEST), expected="a checkpoint"
        )
    checkpoint = read_checkpoint(latest, with_state=True)
    if config is not None:
        settled = _settled(config, data, place)
        if not settled.task.landmarks:
            settled = with_landmarks(settled, checkpoint.config.task.landmarks)
        if not settled.run.start:
            settled = _begun_with(settled, checkpoint.config.run.start)
        # Where the same cases lie is free; their digest is compared once they are read.
        free = ("run.output", *(f"data.{key}" for key in PATHS))
        differing = [key for key in differences(settled, checkpoint.config) if key not in free]
        if differing:
            raise InputDataError(
                "the configuration is not that of the run",
                field=", ".join(differing),
                expected="as in the checkpoint",
                got="another value",
                advice="Leave --config out, or start anew in another folder",
            )
        return settled, place, checkpoint
    return _settled(checkpoint.config, data, place), place, checkpoint


def _settled(config: Config, data: Path | None, output: Path) -> Config:
    """The configuration with absolute paths, so that it can be resumed from anywhere."""
    where = config.data
    paths = {key: getattr(where, key) for key in PATHS}
    if data is not None:
        paths["images"] = str(data)
    absolute = {key: str(Path(value).absolute()) if value else "" for key, value in paths.items()}
    run = config.run.model_copy(update={"output": str(output.absolute())})
    return config.model_copy(update={"data": where.model_copy(update=absolute), "run": run})


def with_landmarks(config: Config, landmarks: tuple[str, ...]) -> Config:
    """Return the configuration with the names of what is looked for."""
    task = config.task.model_copy(update={"landmarks": landmarks})
    return config.model_copy(update={"task": task})


def with_start(config: Config, start: Checkpoint | None) -> Config:
    """Return the configuration of a new run that begins with a model's weights.

    Args:
        config: of the run.
        start: the model; None where the run begins with first weights.

    Raises:
        UsageError: the configuration names a model, and none is given.
        InputDataError: another model than it names, of another kind of task, or one that
            looks for something else.
    """
    named = config.run.start
    if start is None:
        if named:
            raise UsageError(
                "the run begins with a model that is not given",
                field="run.start",
                expected=f"--checkpoint or --model, the weights {named[:12]}",
                got="neither",
                advice="Leave run.start out to begin with first weights",
            )
        return config
    digest = weights_sha256(start.weights)
    if named not in ("", digest):
        raise _misfit("run.start", digest, named)
    if start.config.task.kind != config.task.kind:
        raise _misfit("task.kind", start.config.task.kind, config.task.kind)
    if "landmarks" in KINDS[config.task.kind].settings:
        if config.task.landmarks:
            require_names(start, config.task.landmarks)
        config = with_landmarks(config, start.landmarks)
    return _begun_with(config, digest)


def _begun_with(config: Config, digest: str) -> Config:
    return config.model_copy(update={"run": config.run.model_copy(update={"start": digest})})


def require_names(start: Checkpoint, names: Sequence[str]) -> None:
    """Refuse to begin with the heads of another task.

    Raises:
        InputDataError: the model looks for something else, or in another order.
    """
    if tuple(names) != start.landmarks:
        raise _misfit("task.landmarks", ", ".join(start.landmarks), ", ".join(names))


def _misfit(field: str, expected: str, got: str) -> InputDataError:
    return InputDataError(
        "a run cannot begin with this model",
        field=field,
        expected=f"{expected}, as in the model",
        got=got,
        advice="Leave the key out, or begin with first weights",
    )
