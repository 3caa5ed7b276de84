"""Labels that too few of a site's cases have: of those the site says that it lacks them.

Under a plan that lets cases lack labels, a head would otherwise be trained on, and told
of, as few cases as a label happens to have. What holds for all cases of a site, that an
update rests on no fewer than the plan and the site's own policy ask for, holds here for
each label. Nothing is read or written here.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from common.cli import counted
from common.errors import InputDataError
from site_client.agent.task import Task
from site_client.imaging.boxes import Boxes
from site_client.imaging.case_sets import Cases
from site_client.imaging.dataset import Case
from site_client.imaging.datasets2d import PictureCase

LOG = logging.getLogger("cairn.worker")
_Case = TypeVar("_Case", Case, PictureCase)


def with_enough_of_each(cases: Cases, least: int) -> Cases:
    """Take labels that fewer than ``least`` cases have for labels that none has.

    A case that then has no landmark is left out; an image without boxes stays, for that is
    what it shows.

    Raises:
        InputDataError: no label is left.
    """
    having = cases_having(cases)
    rare = (having > 0) & (having < least)
    if not (having >= max(1, least)).any():
        raise InputDataError(
            "too few cases of each thing that is looked for",
            expected=f"at least {max(1, least)} cases of one of them",
            got=f"{int(having.max(initial=0))}",
            advice="Mark more of them: cairn-site check --data lists them",
        )
    for name, count in zip(cases.landmarks, having.tolist(), strict=True):
        if count < least:
            level = logging.WARNING if count else logging.INFO
            words = "%s: %s, at least %d asked for: not trained at this site"
            LOG.log(level, words, name, counted(count, "case"), least)
    if not rare.any():
        return cases
    if cases.boxes:
        dropped = {name for name, few in zip(cases.landmarks, rare, strict=True) if few}
        return replace(cases, boxes=tuple(_without(boxes, dropped) for boxes in cases.boxes))
    blanked = replace(
        cases,
        volumes=tuple(_blanked(case, rare) for case in cases.volumes),
        pictures=tuple(_blanked(case, rare) for case in cases.pictures),
    )
    left = [k for k, case in enumerate(blanked.each) if np.isfinite(case.landmarks_mm).any()]
    return blanked.part(left)


def cases_having(cases: Cases) -> NDArray[np.int64]:
    """int64[labels]: how many cases have each."""
    if cases.boxes:
        has = [[name in boxes.labels for name in cases.landmarks] for boxes in cases.boxes]
        return np.asarray(np.array(has, dtype=np.int64).sum(axis=0), np.int64)
    placed = np.stack([case.landmarks_mm for case in cases.each])
    return np.asarray(np.isfinite(placed).all(axis=2).sum(axis=0), np.int64)


def labels_searched(task: Task) -> NDArray[np.int32]:
    """int32[heads * agents]: 1 for every branch whose head some case of a task has."""
    starts = task.starts(np.random.Generator(np.random.PCG64(0)), 1, posed=False)
    has = np.zeros(task.heads, np.int32)
    has[starts["head"].astype(np.int64)] = 1
    return np.repeat(has, task.agents)


def _blanked(case: _Case, rare: NDArray[np.bool_]) -> _Case:
    placed = case.landmarks_mm.copy()
    placed[rare] = np.nan
    return replace(case, landmarks_mm=placed)


def _without(boxes: Boxes, dropped: set[str]) -> Boxes:
    kept = [k for k, label in enumerate(boxes.labels) if label not in dropped]
    return replace(
        boxes, labels=tuple(boxes.labels[k] for k in kept), corners_mm=boxes.corners_mm[kept]
    )
