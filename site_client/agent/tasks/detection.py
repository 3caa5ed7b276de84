"""From many searches in one image to a list of found boxes, and how good such lists are.

Searches start all over the image; each ends in a box with a score, what the
network thinks its trigger is worth there. Of boxes that overlap only the best
scored is kept (non-maximum suppression).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from common.settings import BoxSettings, EvaluationSettings
from site_client.agent.search import Values, action_values, greedy_search
from site_client.agent.task import Situations
from site_client.agent.tasks.box import BoxSearch
from site_client.agent.tasks.boxes import overlaps_of_corners
from site_client.agent.tasks.poses import native_poses


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes found in one case, best first.

    Attributes:
        boxes_mm: float64[k, 2, d], corners, mm from the middle of the image.
        scores: float64[k].
    """

    boxes_mm: NDArray[np.float64]
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class DetectionReport:
    """Found against true boxes over cases.

    Attributes:
        true, found: boxes there are, and boxes found.
        recall: share of the true boxes that a found one overlaps enough.
        precision: share of the found boxes that overlap a true one enough; NaN without any.
        mean_iou: mean overlap of the true boxes with their best found one.
    """

    true: int
    found: int
    recall: float
    precision: float
    mean_iou: float


def detect(
    task: BoxSearch,
    policy: nn.Module | Values,
    case: int,
    head: int = 0,
    settings: BoxSettings | None = None,
    search: EvaluationSettings | None = None,
) -> Detections:
    """All boxes of a kind in one case, as acquired.

    Args:
        task: holds the image; its true boxes are not looked at.
        policy: a Q-network, or a function with its values.
        case: which image.
        head: which kind.
        settings: starts and suppression.
        search: steps and visits.
    """
    settings = settings or BoxSettings()
    start = task.grid(case, head, settings.per_axis, settings.sizes_mm)
    ends = greedy_search(task, policy, start, search)
    # Only on the finest level is a trigger worth just what it earns there.
    ends["level"] = task.levels - 1
    scores = action_values(task, policy, ends)[:, task.trigger].astype(np.float64)
    boxes = task.native_boxes(ends)
    scored = scores >= settings.least_score
    boxes, scores = boxes[scored], scores[scored]
    chosen = suppress(boxes, scores, settings.suppress_above)
    return Detections(boxes[chosen], scores[chosen])


def suppress(
    boxes: NDArray[np.float64], scores: NDArray[np.float64], above: float
) -> NDArray[np.int64]:
    """Indices of the boxes float64[k, 2, d] that no better scored one overlaps, best first."""
    order = np.argsort(-scores, kind="stable")
    overlap = overlaps_of_corners(boxes[order], boxes[order])
    chosen: list[int] = []
    for i in range(len(order)):
        if not (overlap[i, chosen] > above).any():
            chosen.append(i)
    return np.asarray(order[np.array(chosen, dtype=np.int64)])


def judge(
    answers: Sequence[Detections], true: Sequence[NDArray[np.float64]], enough: float = 0.5
) -> DetectionReport:
    """Compare the findings of each case with its true boxes.

    A true box is found once: of several findings in it, the best scored counts and
    the others are false. Findings are matched in the order of their scores.
    """
    hits = total = count = 0
    best: list[float] = []
    for detections, boxes in zip(answers, true, strict=True):
        total += len(boxes)
        count += len(detections)
        overlap = overlaps_of_corners(detections.boxes_mm, boxes)
        best += list(overlap.max(axis=0, initial=0.0))
        free = np.ones(len(boxes), dtype=bool)
        for row in overlap:
            candidates = np.where(free, row, 0.0)
            if candidates.max(initial=0.0) >= enough:
                free[candidates.argmax()] = False
                hits += 1
    return DetectionReport(
        true=total,
        found=count,
        recall=hits / total if total else float("nan"),
        precision=hits / count if count else float("nan"),
        mean_iou=float(np.mean(best)) if best else float("nan"),
    )


def best_overlaps(
    task: BoxSearch, case: int, head: int, boxes_mm: NDArray[np.float64]
) -> list[float | None]:
    """Compute the overlap of each box with the best fitting true one; 0 where there is none."""
    situations = np.zeros(len(boxes_mm), task.situation)
    situations["case"], situations["head"], situations["pose"] = (
        case,
        head,
        native_poses(len(situations), task.dim),
    )
    size = boxes_mm[:, 1] - boxes_mm[:, 0]
    situations["box"] = np.concatenate([boxes_mm.mean(axis=1), np.log(size)], axis=1)
    return [float(1.0 - error) for error in task.errors(situations)]


def best_start(
    task: BoxSearch, policy: nn.Module | Values, starts: Situations, settings: EvaluationSettings
) -> Situations:
    """Choose, of starts all over an image, the one whose search ends where a trigger pays most."""
    ended = greedy_search(task, policy, starts, settings)
    ended["level"] = task.levels - 1
    score = action_values(task, policy, ended)[:, task.trigger]
    best = int(score.argmax())
    return starts[best : best + 1]
