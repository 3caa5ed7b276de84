"""Measure searches for boxes, planes and motions on images they have not seen.

Errors stand beside those of an answer that never looks: the mean true box or plane of
the training cases; for a registration, that nothing has moved. Boxes are also looked
for all over each image, as a person would use them, and judged by recall and precision.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from common.cli import counted
from common.errors import InternalError
from site_client.agent.evaluation import ErrorSummary, EvaluationReport, evaluate
from site_client.agent.tasks.box import BoxSearch
from site_client.agent.tasks.detection import DetectionReport, judge
from site_client.agent.tasks.plane import PlaneSearch
from site_client.agent.tasks.registration import Registration
from site_client.agent_app.cases import Cases
from site_client.agent_app.checkpoint import Checkpoint
from site_client.agent_app.config import Config
from site_client.agent_app.evaluating import (
    EVALUATION_SEED,
    METRICS_FILE,
    PREDICTIONS,
    REPORT_FILE,
    network_of,
)
from site_client.agent_app.findings import (
    Finding,
    boxes_found,
    detect_all,
    motions_found,
    planes_found,
    write_findings,
)
from site_client.agent_app.kinds import FIGURES
from site_client.agent_app.progress import Meter
from site_client.agent_app.results import ENOUGH_IOU, write_json
from site_client.agent_app.tasks import Built, as_parameters, build
from site_client.files import write_atomically


@dataclass(frozen=True, eq=False)
class SearchEvaluation:
    """What was measured.

    Attributes:
        checkpoint: what was measured.
        place: where it lies.
        config: with the settings that it was measured with.
        built: the task over the held-out cases.
        report: errors of single searches, by head.
        detection: by label, of boxes looked for all over each case; empty for other tasks.
        found: in the cases as acquired.
    """

    checkpoint: Checkpoint
    place: Path
    config: Config
    built: Built
    report: EvaluationReport
    detection: dict[str, DetectionReport]
    found: tuple[Finding, ...]

    @property
    def cases(self) -> int:
        """How many cases were searched."""
        return len(self.built.cases)

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of the task's own figures."""
        return FIGURES[self.config.task.kind]

    def tables(self) -> dict[str, dict[str, ErrorSummary]]:
        """Summaries under random poses and as acquired, by head."""
        tables = {"posed": self.report.posed}
        if self.config.evaluation.native:
            tables["native"] = self.report.native
        return tables

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        config, checkpoint = self.config, self.checkpoint
        tables = self.report.as_dict()
        return {
            "checkpoint": str(self.place),
            "origin": checkpoint.origin,
            "task": config.task.kind,
            "updates": checkpoint.updates,
            "starts": config.evaluation.starts,
            "poses": config.evaluation.poses,
            "seed": EVALUATION_SEED,
            **{k: v for k, v in tables.items() if k != "native" or config.evaluation.native},
            **({"detection": self._detection()} if self.detection else {}),
        }

    def _detection(self) -> dict[str, object]:
        each = {label: asdict(report) for label, report in self.detection.items()}
        return {"enough_iou": ENOUGH_IOU, **each}


def measure_search(
    place: Path, checkpoint: Checkpoint, config: Config, cases: Cases, meter: Meter
) -> SearchEvaluation:
    """Search all cases under random poses and as acquired.

    Args:
        place: where the checkpoint lies.
        checkpoint: what to measure.
        config: its configuration, perhaps with other settings of evaluation.
        cases: with what is known of them.
        meter: shows how far it is.
    """
    built = build(cases, config)
    network, task = network_of(built, checkpoint, config), built.task
    prior = None if checkpoint.prior_mm is None else as_parameters(built, checkpoint.prior_mm)
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
    found: list[Finding] = []
    detection: dict[str, DetectionReport] = {}
    if isinstance(task, BoxSearch):
        meter.say(f"looking for boxes all over {counted(len(cases), 'case')}")
        detections = detect_all(built, task, network, config)
        found += boxes_found(built, task, detections, known=True)
        for head, label in enumerate(built.labels):
            of_label = [detections[case, head] for case in range(len(cases))]
            true = [task.true_boxes(case, head) for case in range(len(cases))]
            detection[label] = judge(of_label, true, ENOUGH_IOU)
    elif isinstance(task, PlaneSearch):
        found += planes_found(built, task, native, known=True)
    elif isinstance(task, Registration):
        found += motions_found(built, task, native, known=True)
    return SearchEvaluation(checkpoint, place, config, built, report, detection, tuple(found))


def write_search_evaluation(folder: Path, evaluation: SearchEvaluation) -> None:
    """Write predictions, metrics and the page."""
    from site_client.agent_app.search_page import render_search_page

    folder.mkdir(parents=True, exist_ok=True)
    names = [case.name for case in evaluation.built.cases.each]
    write_findings(folder / PREDICTIONS, evaluation.found, names=names)
    write_json(folder / METRICS_FILE, evaluation.as_dict())
    write_atomically(folder / REPORT_FILE, render_search_page(evaluation).encode())
