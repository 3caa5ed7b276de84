"""Measure a checkpoint on images it has not seen, beside an answer that never looks.

Errors stand beside those of a constant: the mean true place of the training cases; for a
registration, that nothing has moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from common.cli import counted
from common.errors import InputDataError, InternalError
from common.settings import AgentSettings
from site_client.agent.evaluation import as_parameters, evaluate
from site_client.agent_app.checkpoint import Checkpoint
from site_client.agent_app.config import Config
from site_client.agent_app.networks import network_of
from site_client.console import Meter
from site_client.files import write_atomically, write_json
from site_client.imaging.case_sets import Cases
from site_client.imaging.sources import Wanted, split_sources
from site_client.kinds.kind import EVALUATION_SEED, TaskKind, kind_of
from site_client.kinds.tables import Table
from site_client.kinds.values import Measured, Player

METRICS_FILE, REPORT_FILE, PREDICTIONS = "metrics.json", "report.html", "predictions"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The measurement of a checkpoint.

    Attributes:
        checkpoint: what was measured.
        place: where it lies.
        kind: of task.
        measured: the task, the errors and what was found.
    """

    checkpoint: Checkpoint
    place: Path
    kind: TaskKind[Any, Any]
    measured: Measured[Any, Any]

    @property
    def config(self) -> AgentSettings:
        """Give the settings that it was measured with."""
        return self.measured.config

    @property
    def cases(self) -> int:
        """Count the cases that were searched."""
        return len(self.measured.built.cases)

    def tables(self) -> dict[str, Table]:
        """Lay out the errors under random poses and as acquired."""
        return self.kind.tables(self.measured)

    def as_dict(self) -> dict[str, object]:
        """Write it for JSON."""
        config, checkpoint = self.config, self.checkpoint
        return {
            "checkpoint": str(self.place),
            "origin": checkpoint.origin,
            "task": config.task.kind,
            "updates": checkpoint.updates,
            "cases": self.cases,
            "starts": config.evaluation.starts,
            "poses": config.evaluation.poses,
            "seed": EVALUATION_SEED,
            **self.kind.summary(self.measured),
            **self.measured.answers.further,
        }


def evaluation_cases(
    config: Config, data: Path | None, truth: str, checkpoint: Checkpoint, meter: Meter
) -> Cases:
    """Read the cases to measure on: those given, or those that the run held out.

    Raises:
        InputDataError: they cannot be used, or the run held none out.
    """
    kind = kind_of(config)
    if data is not None:
        source = kind.find_files(Wanted((data,), truth, config.data.moving), config.data)
        return kind.cases(source, checkpoint.landmarks, config, meter)
    held_out = None
    if config.data.images:
        _, held_out = split_sources(config.data, config.run.seed, kind.find_labelled)
    if held_out is None:
        raise InputDataError(
            "nothing to evaluate on", field="--data", expected="images with landmarks"
        )
    return kind.cases(held_out, checkpoint.landmarks, config, meter)


def measure(
    place: Path, checkpoint: Checkpoint, config: Config, cases: Cases, meter: Meter
) -> Evaluation:
    """Search all cases under random poses and as acquired.

    Args:
        place: where the checkpoint lies.
        checkpoint: what to measure.
        config: its configuration, perhaps with other settings of evaluation.
        cases: with what is known of them.
        meter: shows how far it is.
    """
    kind = kind_of(config)
    built = kind.build(cases, config)
    network, task = network_of(built.task, checkpoint.weights, config), built.task
    prior = None if checkpoint.prior_mm is None else as_parameters(task, checkpoint.prior_mm)
    settings = config.evaluation.model_copy(update={"native": True})
    meter.say(
        f"searching {counted(len(cases), 'case')}, {settings.poses} poses, "
        f"{settings.starts} starts each"
    )
    torch.set_num_threads(config.run.threads)
    report = evaluate(task, network, settings, EVALUATION_SEED, prior=prior, names=built.labels)
    native = report.native_searches
    if native is None:
        raise InternalError("the cases as acquired were not searched")
    answers = kind.find(Player(built, network, config, meter.say, prior), native)
    return Evaluation(checkpoint, place, kind, Measured(config, built, report, answers))


def write_evaluation(folder: Path, evaluation: Evaluation, *, pictures: bool) -> None:
    """Write predictions, metrics and the page.

    Args:
        folder: where; made when missing.
        evaluation: what was measured.
        pictures: show slices of the cases on the page.
    """
    from site_client.agent_app.page import render_page

    folder.mkdir(parents=True, exist_ok=True)
    measured = evaluation.measured
    names = [case.name for case in measured.built.cases.each]
    evaluation.kind.write(folder / PREDICTIONS, names, measured.answers.findings)
    write_json(folder / METRICS_FILE, evaluation.as_dict())
    page = render_page(
        evaluation.kind, measured, evaluation.checkpoint, evaluation.place, pictures=pictures
    )
    write_atomically(folder / REPORT_FILE, page.encode())
