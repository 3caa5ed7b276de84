"""A run without work: what a round costs when nothing is trained.

No image is opened; the folder is only counted. The update is zero and the
experience is a seeded stream of random keys, long enough for the floors, which
hold here as everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.model import Weights, initial_weights, own_part
from common.wire.bounds import samples_of
from common.wire.codes import ReplyCode
from common.wire.envelope import Envelope
from common.wire.labels import LABELS
from common.wire.records import ModelUpdate, RoundReport
from site_client.worker.experience import experience_identity, experience_spec
from site_client.worker.study import Assignment, State, StudyRoom, Subject


class NoOpStudy:
    """Answers of the right size, at once.

    Args:
        subject: site, run, plan and sketch.
        data: folder of images; they are counted and not opened.
    """

    def __init__(self, subject: Subject, data: Path) -> None:
        self._subject = subject
        self._data = data
        self.trained = 0

    def answer(self, assignment: Assignment) -> list[Envelope]:
        """See ``Study``."""
        from site_client.imaging.folders import find_cases

        subject, header = self._subject, assignment.header
        images, trains = len(find_cases(self._data)), header.phase == "train"
        keys = self._keys(header.round) if trains else np.empty(0, np.uint64)
        about = subject.about(header.round)
        report = RoundReport(
            **about,
            code=ReplyCode.OK,
            images=images,
            transitions=len(keys),
            weights_sha256=assignment.model.digest,
            link=assignment.derived.link,
            key_id=subject.spec.key_id,
            codec=subject.spec.domain,
        )
        if not trains:
            return [Envelope(report, {})]
        update = ModelUpdate(
            **about,
            images=images,
            samples=samples_of(subject.plan, images, 0, subject.samples),
            transitions=len(keys),
            updates=0,
        )
        zeros: dict[str, NDArray[np.int32]] = {
            name: np.zeros(a.shape, np.int32) for name, a in assignment.model.weights.items()
        }
        if subject.plan.tells_labels:  # nothing was trained: no label keeps a site back
            zeros[LABELS] = np.ones(len(subject.plan.space.labels), np.int32)
        self.trained = header.round
        return [
            Envelope(update, zeros),
            *([subject.table(header.round, keys)] if subject.plan.counts else []),
            Envelope(report, {}),
        ]

    def state(self) -> State:
        """See ``Study``; there is nothing to keep."""
        return {}

    def load_state(self, trained: int, state: Mapping[str, NDArray[np.generic]]) -> None:
        """See ``Study``."""
        del state
        self.trained = trained

    def own_weights(self) -> Weights:
        """See ``Study``: the first ones, for nothing is trained."""
        plan = self._subject.plan
        return own_part(initial_weights(plan), plan)

    def _keys(self, round_: int) -> NDArray[np.uint64]:
        """uint64[n] random keys, n for every floor that a plan can set."""
        plan = self._subject.plan
        cells = plan.experience.rows * plan.experience.columns
        count = max(
            plan.limits.min_transitions,
            math.ceil(cells / plan.limits.max_cells_per_input),
            plan.experience.columns,
        )
        rng = np.random.Generator(np.random.PCG64([self._subject.seed, round_]))
        return rng.integers(0, 2**64, count, dtype=np.uint64)


ROOM: Final = StudyRoom(
    experience_spec,
    experience_identity,
    lambda subject, given: NoOpStudy(subject, given.data),
)
