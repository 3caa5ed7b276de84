"""The configuration of a training run: TOML, typed, every default visible, nothing guessed.

Sections that describe the agent are its own settings; those that say where data
lies and how a run is kept are defined here. A key that does not exist is an error
that names the nearest one that does.
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
import textwrap
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self, get_args

from pydantic import BaseModel, Field, model_validator

from common.errors import InputDataError
from common.plan import Frozen, LandmarkName, Positive
from site_client.agent.settings import (
    EvaluationSettings,
    LadderSettings,
    LearnerSettings,
    NetworkSettings,
    PoseSettings,
    parse_settings,
)

Kind = Literal["landmark-3d", "landmark-3d-cube", "landmark-2d", "multi-agent-3d"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
Text = Annotated[str, Field(max_length=4096)]
Names = Annotated[tuple[LandmarkName, ...], Field(max_length=255, strict=False)]


class DataSettings(Frozen):
    """Where images and landmarks are, and how they are told apart.

    Attributes:
        images: a BIDS or flat folder, one image, a DICOM folder, or a text file with one
            image path per line; ``--data`` takes its place.
        landmarks: "" looks beside each image (.mrk.json, .fcsv, or .txt with one ``x,y,z``
            voxel line per landmark) and under BIDS derivatives; otherwise a folder of such
            files, a list of them line by line with the images, or a .csv table of all.
        validation: images held out, as ``images``; "" splits by subject as below.
        validation_landmarks: as ``landmarks``, for ``validation``.
        validation_subjects: the subjects to hold out; none draws ``validation_share`` of them.
        validation_share: share of the subjects that is held out; 0 trains on all and has no best
            checkpoint.
        subject: regular expression whose first group, found in a case's name, is the subject;
            "" takes BIDS's sub-..., or else every case for a subject of its own.
        unit: of positions in a table that does not say it: "mm" or "voxel".
        coordinate_system: of positions in mm in a table that does not say it: "LPS" or "RAS".
        names: of the landmarks in files without names, in the order of their lines or columns.
        pixel_mm: size of the pixels of PNG, JPEG, TIFF and BMP files; 0 where all files say it.
    """

    images: Text = ""
    landmarks: Text = ""
    validation: Text = ""
    validation_landmarks: Text = ""
    validation_subjects: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    validation_share: Annotated[float, Field(ge=0, le=0.9)] = 0.2
    subject: Text = ""
    unit: Literal["", "mm", "voxel"] = ""
    coordinate_system: Literal["", "LPS", "RAS"] = ""
    names: Names = ()
    pixel_mm: Annotated[float, Field(ge=0, le=100)] = 0.0


class TaskSettings(Frozen):
    """What is looked for, and what the agent sees of an image.

    Attributes:
        kind: ``landmark-3d`` sees three orthogonal cuts, ``landmark-3d-cube`` a cube,
            ``landmark-2d`` an image; ``multi-agent-3d`` sends several agents into a cube.
        landmarks: their names, one head of the network each; none takes all that are found.
        spacing_mm: every image is resampled to this isotropic grid.
        roi: side of what is seen, samples.
        zooms: strides seen at once, as multiples of the level's; not for landmark-3d.
        frames: last positions that are seen, the present one included; not for landmark-3d.
        agents_per_landmark: for multi-agent-3d: 1 sends one agent after each landmark, all
            together; more make a team of so many for each landmark, which then votes.
        world: ``rl-medical`` shows cubes as that system's agents saw them, for its weights.
    """

    kind: Kind = "landmark-3d"
    landmarks: Names = ()
    spacing_mm: Positive = 1.0
    roi: Annotated[int, Field(ge=9, le=129)] = 45
    zooms: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=8, strict=False)] = (1.0,)
    frames: Annotated[int, Field(ge=1, le=8)] = 1
    agents_per_landmark: Annotated[int, Field(ge=1, le=16)] = 1
    world: Literal["cairn", "rl-medical"] = "cairn"

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if len(set(self.landmarks)) != len(self.landmarks):
            raise ValueError("landmarks must differ from each other")
        if self.kind == "landmark-3d" and (self.zooms != (1.0,) or self.frames != 1):
            raise ValueError("zooms and frames are for the other kinds; leave [1.0] and 1")
        if self.kind != "multi-agent-3d" and self.agents_per_landmark != 1:
            raise ValueError("agents_per_landmark is for multi-agent-3d; leave 1")
        if self.world != "cairn" and self.kind not in ("landmark-3d-cube", "multi-agent-3d"):
            raise ValueError("world rl-medical is for cubes; leave cairn")
        return self


class RunSettings(Frozen):
    """How a run is kept.

    Attributes:
        output: folder for checkpoints, metrics and TensorBoard; ``--output`` takes its place.
        seed: of first weights, exploration, sampling and the split.
        threads: of the network's arithmetic; another number gives other weights.
        log_every: updates between two lines of metrics.
        checkpoint_every: updates between two saves of the latest checkpoint.
        evaluate_every: updates between two evaluations on the validation cases.
        validation_starts: searches per validation case and landmark.
        validation_poses: random poses per validation case.
    """

    output: Text = ""
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    log_every: Annotated[int, Field(ge=1)] = 50
    checkpoint_every: Annotated[int, Field(ge=1)] = 500
    evaluate_every: Annotated[int, Field(ge=1)] = 500
    validation_starts: Annotated[int, Field(ge=1, le=100)] = 1
    validation_poses: Annotated[int, Field(ge=1, le=100)] = 2


class Config(Frozen):
    """All of a run's settings; one TOML table per field."""

    data: DataSettings = DataSettings()
    task: TaskSettings = TaskSettings()
    ladder: LadderSettings = LadderSettings()
    pose: PoseSettings = PoseSettings()
    network: NetworkSettings = NetworkSettings()
    learner: LearnerSettings = LearnerSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    run: RunSettings = RunSettings()


NETWORKS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "landmark-3d": ("triplanar",),
    "landmark-3d-cube": ("volume-light", "network3d"),
    "landmark-2d": ("planar", "paper2d"),
    "multi-agent-3d": ("commnet", "collab", "volume-light", "network3d"),
}
_SECTIONS: Final[Mapping[str, type[Frozen]]] = {
    "data": DataSettings,
    "task": TaskSettings,
    "ladder": LadderSettings,
    "pose": PoseSettings,
    "network": NetworkSettings,
    "learner": LearnerSettings,
    "evaluation": EvaluationSettings,
    "run": RunSettings,
}
# Where the defaults of a section do not suit the kind of task.
_DEFAULTS: Final[Mapping[object, Mapping[str, Mapping[str, object]]]] = {
    "landmark-3d": {},
    "landmark-3d-cube": {
        "network": {"architecture": "volume-light"},
        "learner": {"batch": 32, "searches": 16},
    },
    "landmark-2d": {
        "task": {"spacing_mm": 0.5, "zooms": [1.0, 3.0, 9.0]},
        "ladder": {"scales": [4.0, 2.0, 1.0], "steps_mm": [8.0, 2.0, 0.5]},
        "network": {"architecture": "planar"},
        "learner": {"replay_capacity": 100_000},
    },
    "multi-agent-3d": {
        "task": {"frames": 4},
        "network": {"architecture": "commnet"},
        "learner": {"batch": 16, "searches": 8, "learning_rate": 1e-4},
    },
}
_INTRODUCTION: Final = """\
A training run. Every setting stands here with its default; leave out what you do not
change. Train with:   cairn-site train --config train.toml --data FOLDER --output run
Go on after a stop:   cairn-site train --output run --resume"""


def default_config(kind: Kind) -> Config:
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
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputDataError(
            "cannot read the configuration",
            field=str(path),
            got=error.strerror or "an error",
            advice="cairn-site train --print-config > train.toml makes one",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputDataError(
            "the configuration is not TOML", field=str(path), got=str(error).split("\n", 1)[0]
        ) from error


def parse_config(data: Mapping[str, object]) -> Config:
    """Validate a decoded configuration; what it leaves out has the defaults of its kind.

    Raises:
        InputDataError: see `read_config`.
    """
    _check_keys(data, _SECTIONS, "")
    task = data.get("task", {})
    kind = task.get("kind", "landmark-3d") if isinstance(task, dict) else None
    defaults = _DEFAULTS.get(kind, {})
    sections: dict[str, object] = {}
    for name, section in _SECTIONS.items():
        given = data.get(name, {})
        if not isinstance(given, dict):
            raise InputDataError(
                "the settings are not valid", field=name, expected="a table", got="another value"
            )
        _check_keys(given, section.model_fields, name)
        sections[name] = parse_settings(section, {**defaults.get(name, {}), **given}, name)
    config = parse_settings(Config, sections)
    wanted = NETWORKS[config.task.kind]
    if config.network.architecture not in wanted:
        raise InputDataError(
            "the settings are not valid",
            field="network.architecture",
            expected=f"{' or '.join(wanted)} for {config.task.kind}",
            got=config.network.architecture,
        )
    return config


def render_config(config: Config, *, comments: bool = True) -> str:
    """The configuration as TOML that `read_config` reads back to the same."""
    parts = [_commented(_INTRODUCTION)] if comments else []
    for name, section in _SECTIONS.items():
        values: BaseModel = getattr(config, name)
        about = _descriptions(section)
        lines = []
        if comments:
            lines.append(_commented(inspect.getdoc(section).split("\n")[0]))  # type: ignore[union-attr]
        lines.append(f"[{name}]")
        for key in section.model_fields:
            if comments and key in about:
                lines.append(_commented(about[key]))
            lines.append(f"{key} = {_toml(getattr(values, key))}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def with_paths(config: Config, data: Path | None, output: Path | None) -> Config:
    """The configuration with what the command line says of data and output."""
    changed = config
    if data is not None:
        changed = changed.model_copy(
            update={"data": changed.data.model_copy(update={"images": str(data)})}
        )
    if output is not None:
        changed = changed.model_copy(
            update={"run": changed.run.model_copy(update={"output": str(output)})}
        )
    return changed


def differences(one: Config, other: Config) -> list[str]:
    """``section.key`` of every setting that differs."""
    found = []
    for name, section in _SECTIONS.items():
        first, second = getattr(one, name), getattr(other, name)
        found += [
            f"{name}.{key}"
            for key in section.model_fields
            if getattr(first, key) != getattr(second, key)
        ]
    return found


def _check_keys(given: Mapping[str, object], known: Mapping[str, object], section: str) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            where = f"{section}.{key}" if section else key
            raise InputDataError(
                "an unknown key in the configuration" if section else "an unknown section",
                field=where,
                expected=(f"{section}.{near[0]}" if section else near[0])
                if near
                else f"one of {', '.join(known)}",
                advice="cairn-site train --print-config shows all of them",
            )


def _descriptions(section: type[Frozen]) -> dict[str, str]:
    """What the section's docstring says of each attribute."""
    text = inspect.getdoc(section) or ""
    _, _, attributes = text.partition("Attributes:\n")
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \w)", attributes):
        names, colon, about = entry.partition(": ")
        if colon:
            # The first of several names carries what is said of all.
            found[names.split(",")[0].strip()] = re.sub(r"\s+", " ", about).replace("``", '"')
    return found


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
