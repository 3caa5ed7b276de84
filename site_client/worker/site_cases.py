"""A site's cases as a plan looks at them: read once, built into the search it asks for.

The kind of task decides what is read and what is searched; nothing here asks which kind
it is. A case with its name stays in the worker's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.model import Weights
from common.plan import FederationPlan
from site_client.agent.evaluation import as_parameters
from site_client.agent.federated import planned_network
from site_client.agent.task import Task
from site_client.imaging.case_sets import Cases, Progress
from site_client.imaging.data_settings import DataSettings, read_data_settings
from site_client.kinds.kind import kind_of
from site_client.kinds.values import Built, Player
from site_client.worker.lacking import with_enough_of_each


class SiteCases:
    """Cases, and the plan's search over them.

    Args:
        cases: in memory.
        plan: what is looked for in them.
    """

    def __init__(self, cases: Cases, plan: FederationPlan) -> None:
        self.cases = cases
        self.plan = plan

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def names(self) -> list[str]:
        """Name the cases, in order."""
        return [case.name for case in self.cases.each]

    @cached_property
    def built(self) -> Built[Any]:
        """The search with the cases that it is over."""
        return kind_of(self.plan).build(self.cases, self.plan)

    @property
    def task(self) -> Task:
        """The search."""
        task: Task = self.built.task
        return task

    @cached_property
    def to_learn_from(self) -> Task:
        """The search that is trained on; that over the cases, unless the kind adds to them."""
        task: Task = kind_of(self.plan).to_learn_from(self.built, self.plan)
        return task

    def worked_out(self, weights: Weights) -> Weights:
        """Give what goes with the trained weights and no gradient moves."""
        player = Player(self.built, planned_network(self.plan, weights), self.plan)
        return kind_of(self.plan).work_out(player)

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for every agent of every head."""
        return self.built.labels

    @cached_property
    def prior(self) -> NDArray[np.float64]:
        """Parameters of the answer that never looks, of these cases."""
        return as_parameters(self.task, kind_of(self.plan).prior(self.built))

    def with_enough_of_each(self, least: int) -> SiteCases:
        """Take labels that fewer than ``least`` cases have for labels that none has.

        Only where the plan lets cases lack labels.

        Raises:
            InputDataError: no label is left.
        """
        if self.plan.task.missing != "allow":
            return self
        return SiteCases(with_enough_of_each(self.cases, least), self.plan)

    def part(self, numbers: Sequence[int]) -> SiteCases:
        """Give some of the cases, by number, in that order."""
        return SiteCases(self.cases.part(numbers), self.plan)


def read_site_cases(
    folder: Path,
    plan: FederationPlan,
    progress: Progress,
    *,
    settings: Path | None = None,
    least: int = 1,
) -> SiteCases:
    """Read a site's images as a plan asks.

    Args:
        folder: of the images.
        plan: what is looked for.
        progress: called with (what, images read, images in all); may raise.
        settings: the site's ``data.toml``, if it may have one.
        least: labelled cases that must be there.

    Raises:
        InputDataError: images, landmarks, boxes or ``data.toml`` cannot be used.
    """
    data = read_data_settings(settings, folder)
    cases = kind_of(plan).site_cases(folder, plan, data, progress, least=least)
    return SiteCases(cases, plan)


def names_for(plan: FederationPlan) -> Callable[[Path, DataSettings], list[str]]:
    """Return what names the cases that `read_site_cases` would read; it opens no image."""
    return partial(kind_of(plan).site_names, plan)
