"""Measure a checkpoint on images it has not seen, beside a predictor that never looks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from common.cli import counted
from common.errors import InputDataError, InternalError
from site_client.agent.evaluation import EvaluationReport, evaluate
from site_client.agent.network import set_weights
from site_client.agent.networks import QNetwork
from site_client.agent_app.cases import Cases, load
from site_client.agent_app.checkpoint import Checkpoint, find_checkpoint, read_checkpoint
from site_client.agent_app.config import Config
from site_client.agent_app.progress import Meter
from site_client.agent_app.results import (
    Errors,
    Prediction,
    Row,
    errors_of,
    mean_row,
    predictions,
    write_json,
    write_predictions,
)
from site_client.agent_app.sources import find_source, training_sources
from site_client.agent_app.tasks import Built, as_parameters, build, new_network

# Draws poses and starts: equal for every evaluation, so that checkpoints compare.
EVALUATION_SEED = 1
METRICS_FILE, REPORT_FILE, PREDICTIONS = "metrics.json", "report.html", "predictions"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was measured.

    Attributes:
        checkpoint: what was measured.
        place: where it lies.
        built: the task over the held-out cases.
        posed, native: errors per landmark; native is empty where it was not asked for.
        found: positions in the cases as acquired.
    """

    checkpoint: Checkpoint
    place: Path
    built: Built
    posed: tuple[Errors, ...]
    native: tuple[Errors, ...]
    found: tuple[Prediction, ...]

    @property
    def cases(self) -> int:
        """How many cases were searched."""
        return len(self.built.cases)

    def tables(self) -> dict[str, list[Row]]:
        """Rows under random poses and as acquired, the mean last."""
        tables = {"posed": self.posed, "native": self.native}
        return {
            name: [*(rows := [e.row for e in errors]), mean_row(rows)]
            for name, errors in tables.items()
            if errors
        }

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        config, checkpoint = self.checkpoint.config, self.checkpoint
        return {
            "checkpoint": str(self.place),
            "origin": checkpoint.origin,
            "task": config.task.kind,
            "updates": checkpoint.updates,
            "cases": self.cases,
            "starts": config.evaluation.starts,
            "poses": config.evaluation.poses,
            "seed": EVALUATION_SEED,
            **{name: [row.as_dict() for row in rows] for name, rows in self.tables().items()},
        }


def open_checkpoint(given: Path) -> tuple[Path, Checkpoint]:
    """The checkpoint that a path means.

    Raises:
        InputDataError: there is none, or it is damaged.
    """
    place = find_checkpoint(given)
    return place, read_checkpoint(place)


def network_of(built: Built, checkpoint: Checkpoint, config: Config) -> QNetwork:
    """The checkpoint's network.

    Raises:
        InputDataError: its weights are not those of its configuration.
    """
    network = new_network(built, config)
    set_weights(network, checkpoint.weights)
    return network


def evaluation_cases(
    config: Config, data: Path | None, landmarks: str, checkpoint: Checkpoint, meter: Meter
) -> Cases:
    """The cases to measure on: those given, or those that the run held out.

    Raises:
        InputDataError: they cannot be used, or the run held none out.
    """
    if data is not None:
        kind, moving = config.task.kind, config.data.moving
        source = find_source([data], landmarks, config.data, kind, moving=moving)
    else:
        held = training_sources(config)[1] if config.data.images else None
        if held is None:
            raise InputDataError(
                "nothing to evaluate on", field="--data", expected="images with landmarks"
            )
        source = held
    return load(source, checkpoint.landmarks, config, meter)


def measure(
    place: Path, checkpoint: Checkpoint, config: Config, cases: Cases, meter: Meter
) -> Evaluation:
    """Search all cases under random poses and as acquired.

    Args:
        place: where the checkpoint lies.
        checkpoint: what to measure.
        config: its configuration, perhaps with other settings of evaluation.
        cases: with their landmarks.
        meter: shows how far it is.
    """
    built = build(cases, config)
    network = network_of(built, checkpoint, config)
    prior = checkpoint.prior_mm
    constant = None if prior is None else as_parameters(built, prior)
    settings = config.evaluation.model_copy(update={"native": True})
    meter.say(
        f"searching {counted(len(cases), 'case')}, {settings.poses} poses, "
        f"{settings.starts} starts each"
    )
    torch.set_num_threads(config.run.threads)
    report: EvaluationReport = evaluate(
        built.task, network, settings, EVALUATION_SEED, prior=constant, names=built.labels
    )
    native = report.native_searches
    if native is None:
        raise InternalError("the cases as acquired were not searched")
    return Evaluation(
        checkpoint=checkpoint,
        place=place,
        built=built,
        posed=tuple(errors_of(built, report.posed_searches)),
        native=tuple(errors_of(built, native)) if config.evaluation.native else (),
        found=tuple(predictions(built, native, settings.outlier_mads, truth=True)),
    )


def write_evaluation(folder: Path, evaluation: Evaluation, *, pictures: bool) -> None:
    """Write predictions, metrics and the page.

    Args:
        folder: where; made when missing.
        evaluation: what was measured.
        pictures: show slices of the cases on the page.
    """
    from site_client.agent_app.page import render_page
    from site_client.files import write_atomically

    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(folder / PREDICTIONS, evaluation.found)
    write_json(folder / METRICS_FILE, evaluation.as_dict())
    page = render_page(evaluation, pictures=pictures)
    write_atomically(folder / REPORT_FILE, page.encode())
