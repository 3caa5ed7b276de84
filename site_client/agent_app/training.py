"""A training run: learn, log, validate, save, stop politely and go on exactly.

After a stop and ``--resume`` the weights are bit for bit those of a run that was
never stopped: the learner's whole state is saved between two updates, and
validation draws from a generator of its own. "Best" is the smallest mean error
over all heads on the validation cases, under random poses.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from tensorboardX import SummaryWriter

from common.errors import InputDataError
from common.settings import KINDS, EvaluationSettings
from site_client.agent.evaluation import as_parameters, evaluate
from site_client.agent.learner import Learner, TrainingReport
from site_client.agent.network import set_some_weights, use_deterministic_torch
from site_client.agent.task import MM
from site_client.agent_app.beginning import METRICS_FILE, require_names, with_landmarks
from site_client.agent_app.checkpoint import (
    BEST,
    LATEST,
    Checkpoint,
    weights_sha256,
    write_checkpoint,
)
from site_client.agent_app.config import Config, render_config
from site_client.agent_app.networks import network_of, new_network
from site_client.console import Meter
from site_client.files import write_atomically
from site_client.imaging.case_sets import Cases
from site_client.imaging.sources import split_sources
from site_client.kinds.kind import kind_of
from site_client.kinds.values import Built, Player

CONFIG_FILE: Final = "config.toml"
SPLIT_FILE: Final = "split.json"
TENSORBOARD: Final = "tensorboard"
# Poses and starts of every validation of a run are the same, so that their errors compare.
_VALIDATION_SEED = 1


@dataclass(frozen=True)
class TrainingOutcome:
    """The end of a run.

    Attributes:
        output: its folder.
        updates, planned: gradient steps done, and wanted.
        weights_sha256: of the latest weights' file.
        unit: of the errors below; their names in JSON say mm where it is.
        validation_mm: mean error over heads at the last validation.
        best_mm: the smallest of the run.
        prior_mm: mean error of the constant predictor on the same searches.
        training_cases, validation_cases: how many.
    """

    output: Path
    updates: int
    planned: int
    weights_sha256: str
    unit: str
    validation_mm: float | None
    best_mm: float | None
    prior_mm: float | None
    training_cases: int
    validation_cases: int

    @property
    def finished(self) -> bool:
        """True where all planned updates were done."""
        return self.updates >= self.planned

    def as_dict(self) -> dict[str, object]:
        """Write it for JSON."""
        end = "_mm" if self.unit == MM else ""
        rest = {name.replace("_mm", end): value for name, value in asdict(self).items()}
        return {"output": "", "finished": self.finished} | rest | {"output": str(self.output)}


def train(
    config: Config,
    output: Path,
    resumed: Checkpoint | None,
    stop: threading.Event,
    meter: Meter,
    start: Checkpoint | None = None,
) -> TrainingOutcome:
    """Train until all updates are done or someone asks to stop; saves what it leaves.

    Args:
        config: of the run.
        output: its folder.
        resumed: where a run goes on; None for a new one.
        stop: set by whoever asks.
        meter: shows how far it is.
        start: the model whose weights a new run begins with; None for first weights.

    Raises:
        InputDataError: images or landmarks cannot be used, or are not those of the
            checkpoint; the start's network is not the configuration's.
    """
    kind = kind_of(config)
    training, validation = split_sources(config.data, config.run.seed, kind.find_labelled)
    names = kind.names(training, config)
    if "landmarks" in KINDS[config.task.kind].settings:
        config = with_landmarks(config, names)
    seen = kind.cases(training, names, config, meter)
    held_out = None
    if validation is not None:
        held_out = kind.cases(validation, names, config, meter, "reading validation images")
    run = _Run(config, output, seen, held_out, meter, start)
    if resumed is not None:
        run.restore(resumed)
    output.mkdir(parents=True, exist_ok=True)
    write_atomically(output / CONFIG_FILE, render_config(config).encode())
    split = {"training": [c.name for c in seen.each], "validation": []}
    if held_out is not None:
        split["validation"] = [c.name for c in held_out.each]
    write_atomically(output / SPLIT_FILE, (json.dumps(split, indent=1) + "\n").encode())
    return run.go(stop)


class _Run:
    """One run in memory."""

    def __init__(
        self,
        config: Config,
        output: Path,
        seen: Cases,
        held_out: Cases | None,
        meter: Meter,
        start: Checkpoint | None,
    ) -> None:
        use_deterministic_torch()
        self._config, self._output, self._meter = config, output, meter
        self._kind = kind = kind_of(config)
        self._built = kind.build(seen, config)
        self._held_out = None if held_out is None else kind.build(held_out, config)
        task = kind.to_learn_from(self._built, config)
        if start is None:
            self._network = new_network(task, config)
        else:
            require_names(start, self._built.cases.landmarks)
            self._network = network_of(task, start.weights, config)
        self._learner = Learner(task, self._network, config.learner, config.run.seed)
        self._prior = kind.prior(self._built)
        self._digest = seen.digest() + ("" if held_out is None else held_out.digest())
        self._validation: float | None = None
        self._prior_mm: float | None = None
        self._best: float | None = None

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint.

        Raises:
            InputDataError: it was made from other cases.
        """
        if checkpoint.data_sha256 != self._digest or checkpoint.state is None:
            raise InputDataError(
                "these are not the cases that the run began with",
                field="data.images",
                expected="the same images and landmarks",
                got="others",
                advice="A run that went on with them would be neither the one nor the other",
            )
        self._learner.load_state(checkpoint.state)
        self._validation, self._best = checkpoint.validation_mm, checkpoint.best_mm

    def go(self, stop: threading.Event) -> TrainingOutcome:
        """Train to the end or to the stop."""
        learner, planned, every = self._learner, self._config.learner.updates, self._config.run
        torch.set_num_threads(every.threads)
        first = learner.updates
        _forget_after(self._output / METRICS_FILE, first)
        window: list[TrainingReport] = []
        with SummaryWriter(str(self._output / TENSORBOARD), purge_step=first) as board:
            while learner.updates < planned and not stop.is_set():
                window.append(learner.train(1))
                done = learner.updates
                last = done == planned
                self._meter("updates", done, planned, self._note(window))
                if done % every.log_every == 0 or last:
                    self._log(board, done, _summary(window))
                    window.clear()
                if self._held_out is not None and (done % every.evaluate_every == 0 or last):
                    self._validate(board, self._held_out)
                if done % every.checkpoint_every == 0 and not last:
                    self._save(LATEST)
        if learner.updates >= planned:
            self._work_out()
        self._save(LATEST)
        return TrainingOutcome(
            output=self._output,
            updates=learner.updates,
            planned=planned,
            weights_sha256=weights_sha256(learner.weights()),
            validation_mm=self._validation,
            best_mm=self._best,
            prior_mm=self._prior_mm,
            unit=self._built.task.unit,
            training_cases=len(self._built.cases),
            validation_cases=0 if self._held_out is None else len(self._held_out.cases),
        )

    def _note(self, window: list[TrainingReport]) -> str:
        note = f"loss {window[-1].loss_mean:.4f}"
        if self._validation is None:
            return note
        return f"{note}, error {self._validation:.2f} {self._built.task.unit}"

    def _validate(self, board: SummaryWriter, held_out: Built[Any]) -> None:
        """Measure on the validation cases; keep the weights if they are the best so far."""
        settings = validation_settings(self._config)
        network = self._learner.network
        report = evaluate(
            held_out.task,
            network,
            settings,
            _VALIDATION_SEED,
            prior=as_parameters(held_out.task, self._prior),
            names=held_out.labels,
        )
        torch.set_num_threads(self._config.run.threads)
        self._validation = report.mean
        self._prior_mm = report.prior
        end = "_mm" if report.unit == MM else ""
        figures = {f"validation/{name}{end}": s.mean for name, s in report.posed.items()}
        figures[f"validation/mean{end}"] = report.mean
        if self._prior_mm is not None:
            figures[f"validation/prior{end}"] = self._prior_mm
        for name in self._kind.figures:
            values = [s.further[name] for s in report.posed.values()]
            figures[f"validation/{name}"] = float(np.mean(values))
        self._log(board, self._learner.updates, figures)
        if self._best is None or report.mean < self._best:
            self._best = report.mean
            self._work_out()
            self._save(BEST)

    def _work_out(self) -> None:
        """Add to the network what no gradient moves; it is searched with the training cases."""
        player: Player[Any] = Player(self._built, self._network, self._config)
        set_some_weights(self._network, self._kind.work_out(player))
        torch.set_num_threads(self._config.run.threads)

    def _save(self, which: str) -> None:
        state = self._learner.state_dict() if which == LATEST else None
        checkpoint = Checkpoint(
            config=self._config,
            weights=self._learner.weights(),
            updates=self._learner.updates,
            landmarks=self._built.cases.landmarks,
            prior_mm=self._prior,
            validation_mm=self._validation,
            best_mm=self._best,
            data_sha256=self._digest,
            state=state,
        )
        write_checkpoint(self._output / which, checkpoint)

    def _log(self, board: SummaryWriter, updates: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            board.add_scalar(name, value, updates)
        finite = {k: v if math.isfinite(v) else None for k, v in figures.items()}
        line = json.dumps({"updates": updates, **finite})
        with (self._output / METRICS_FILE).open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def validation_settings(config: Config) -> EvaluationSettings:
    """The evaluation's settings as validation uses them: fewer searches, posed only."""
    run = config.run
    return config.evaluation.model_copy(
        update={"starts": run.validation_starts, "poses": run.validation_poses, "native": False}
    )


def _summary(window: list[TrainingReport]) -> dict[str, float]:
    last = window[-1]
    return {
        "training/loss": float(np.mean([report.loss_mean for report in window])),
        "training/epsilon": last.epsilon,
        "training/learning_rate": last.learning_rate,
        "training/replay": float(last.replay_size),
    }


def _forget_after(path: Path, updates: int) -> None:
    """Drop the lines of metrics that a resumed run will write again."""
    if not path.exists():
        return
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["updates"] <= updates:
                lines.append(line)
        except (ValueError, KeyError, TypeError):
            continue  # a line that the death of a machine cut short
    write_atomically(path, "".join(line + "\n" for line in lines).encode())
