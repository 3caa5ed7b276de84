"""Positions that searches agree on, by case and landmark, in the patient's world (LPS)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from site_client.agent.absence import ABSENT_FROM
from site_client.agent.evaluation import Searched
from site_client.agent.import_weights import RlMedicalCube
from site_client.agent.novelty import FEW
from site_client.agent.search import consensus
from site_client.agent.task import Situations, Task
from site_client.agent.tasks.multi_agent import MultiAgent
from site_client.agent.tasks.points import PointSearch
from site_client.imaging.case_sets import Cases
from site_client.imaging.cases import middle_of
from site_client.imaging.datasets2d import PictureCase
from site_client.kinds.values import Built


@dataclass(frozen=True, eq=False)
class FoundLandmark:
    """The place of a landmark found in a case as acquired.

    Attributes:
        case: number of the case.
        name: the case's name.
        landmark: its name.
        position: float64[d], as the case's landmarks are given.
        world_mm: float64[3], LPS mm.
        spread_mm: mean distance of the single searches from what they agree on.
        error_mm: distance to the truth, of interchangeable landmarks in the better of their
            two orders; None where there is none.
        absent: 0..1, how sure it is that the image does not show it; None where that is not
            decided.
        met: share of the federation's experience with this landmark in places no more
            familiar than this one; None where that is not known.
    """

    case: int
    name: str
    landmark: str
    position: NDArray[np.float64]
    world_mm: NDArray[np.float64]
    spread_mm: float
    error_mm: float | None
    absent: float | None = None
    met: float | None = None

    @property
    def is_novel(self) -> bool:
        """Tell whether the federation has met few situations like this one."""
        return self.met is not None and self.met < FEW

    @property
    def is_absent(self) -> bool:
        """Tell whether it is reported as absent."""
        return self.absent is not None and self.absent > ABSENT_FROM

    @property
    def says_absent(self) -> str:
        """Say how sure it is that the image does not show it, and whether that is the answer."""
        score = f"{self.absent:.2f}" if self.absent is not None else "unknown"
        return f"absent {score}" if self.is_absent else score

    def as_dict(self) -> dict[str, object]:
        """Write it for JSON."""
        whole: dict[str, object] = {
            "case": self.name,
            "landmark": self.landmark,
            "position_lps_mm": [round(float(value), 4) for value in self.world_mm],
            "spread_mm": round(self.spread_mm, 4),
            "error_mm": None if self.error_mm is None else round(self.error_mm, 4),
        }
        if self.absent is not None:
            whole |= {"absent": self.is_absent, "absent_score": round(self.absent, 4)}
        if self.met is not None:
            whole |= {"novel": self.is_novel, "met_share": round(self.met, 4)}
        return whole


def positions_mm(built: Built[Any], situations: Situations) -> NDArray[np.float64]:
    """Give float64[n, agents, d]: positions of situations as acquired, as landmarks are given.

    LPS mm in volumes; mm from the first pixel in pictures.
    """
    places = built.task.parameters(situations).astype(np.float64)
    places = places.reshape(len(situations), len(built.teams[0]), -1)
    search = _one_search(built.task)
    if isinstance(search, RlMedicalCube):
        case = np.repeat(situations["case"].astype(np.int64), places.shape[1])
        flat = places.reshape(-1, 3).astype(np.float32)
        return search.world_mm(case, flat).reshape(places.shape)
    return np.asarray(
        places + middles_mm(built.cases)[situations["case"].astype(np.int64)][:, None]
    )


def found_landmarks(
    built: Built[Any],
    searched: Searched,
    outlier_mads: float,
    *,
    known: bool,
    absent: NDArray[np.float64] | None = None,
) -> list[FoundLandmark]:
    """Give what searches of the cases as acquired agree on, by case and landmark.

    Args:
        built: the task.
        searched: its searches, without poses.
        outlier_mads: see `site_client.agent.search.consensus`.
        known: whether the cases' landmarks are true; otherwise errors are None.
        absent: float64[groups], how sure it is that landmarks are absent; None says nothing.
    """
    sure = _by_landmark(searched.agreed, absent)
    votes: dict[tuple[int, int], list[NDArray[np.float64]]] = {}
    answers: dict[tuple[int, int], NDArray[np.float64]] = {}
    for group in searched.found:
        case, head = int(group[0]["case"]), int(group[0]["head"])
        places, team = positions_mm(built, group), built.teams[head]
        for landmark in np.unique(team).tolist():
            of_team = places[:, team == landmark].reshape(-1, places.shape[-1])
            answers[case, landmark] = consensus(of_team, outlier_mads)
        for agent, landmark in enumerate(team.tolist()):
            votes.setdefault((case, landmark), []).append(places[:, agent])
    landmarks: list[FoundLandmark] = []
    for (case, landmark), position in sorted(answers.items(), key=lambda item: item[0]):
        each = built.cases.each[case]
        other = _partner(built, case, landmark)
        cloud = np.concatenate(votes[case, landmark])
        # In the better of a couple's two orders.
        ends = np.stack([position, answers[case, other]])
        marks = each.landmarks_mm[[landmark, other]]
        straight, crossed = (np.linalg.norm(ends - m, axis=1) for m in (marks, marks[::-1]))
        gap = float(min(straight, crossed, key=lambda gaps: gaps.sum())[0])
        world = each.picture.to_world(position) if isinstance(each, PictureCase) else position
        landmarks.append(
            FoundLandmark(
                case=case,
                name=each.name,
                landmark=built.cases.landmarks[landmark],
                position=position,
                world_mm=world,
                spread_mm=float(np.linalg.norm(cloud - position, axis=1).mean()),
                error_mm=gap if known else None,
                absent=sure.get((case, landmark)),
            )
        )
    return landmarks


def _by_landmark(
    agreed: Situations, scores: NDArray[np.float64] | None
) -> dict[tuple[int, int], float]:
    """Give scores by case and landmark; there are none of teams."""
    if scores is None:
        return {}
    pairs = zip(agreed["case"].tolist(), agreed["head"].tolist(), strict=True)
    return dict(zip(pairs, scores.tolist(), strict=True))


def middles_mm(cases: Cases) -> NDArray[np.float64]:
    """Give float64[cases, d]: the middle of each image, given as landmarks are."""
    return np.stack([middle_of(case) for case in cases.each])


def _one_search(task: Task) -> Task:
    """Give the search of one agent of a team, or of the only one."""
    return task.task if isinstance(task, MultiAgent) else task


def _partner(built: Built[Any], case: int, landmark: int) -> int:
    """Give the landmark that is interchangeable with one and known in the case, or itself."""
    search = built.task
    if not isinstance(search, PointSearch) or search.exchange is None:
        return landmark
    other = int(search.exchange.partner[landmark])
    marked = np.isfinite(built.cases.each[case].landmarks_mm[other]).all()
    return other if marked else landmark
