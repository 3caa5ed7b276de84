"""Landmarks that an image may not show: copies to learn from, signs to weigh, figures to show.

What decides is worked out on the training cases and cropped copies of them, as whoever
plays an image would search it: without the truth. What is measured is measured in the
same way on cases that were held out, beside a predictor that never looks and answers
how often each landmark was cut off.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from common.model import Weights
from common.settings import AgentSettings
from site_client.agent.absence import (
    ABSENT_FROM,
    AbsenceRule,
    area_under,
    receiver_curve,
    scores_of,
    signs_of,
    weigh,
)
from site_client.agent.evaluation import Searched
from site_client.agent.networks import QNetwork
from site_client.agent.networks.absence import parameters_of
from site_client.imaging.case_sets import Cases
from site_client.imaging.cases import AnyCase, first_of, middle_of
from site_client.imaging.trimming import are_inside, joined, trimmed
from site_client.kinds.kind import TaskKind
from site_client.kinds.tables import Column, Table, TableRow
from site_client.kinds.values import Extra, Player

# Cuts to learn from, to weigh signs on and to measure on are drawn apart.
_LEARNED, _WEIGHED, _MEASURED = 0x63757431, 0x63757432, 0x63757433
_MOST_WEIGHED: Final = 24  # training cases that signs are weighed on
_STARTS: Final = 3
NAME: Final = "absent"


def to_learn_from(cases: Cases, config: AgentSettings) -> Cases:
    """Add cropped copies to training cases; their landmarks may lie outside."""
    rng = np.random.Generator(np.random.PCG64(_LEARNED))
    return joined(cases, trimmed(cases, config.task.crops, rng))


def weighed(kind: TaskKind[Any, Any], player: Player[Any], prior: NDArray[np.float64]) -> Weights:
    """Work out what decides, from searches of training cases and of cropped copies of them.

    Args:
        kind: of task.
        player: the trained network over the training cases.
        prior: float64[heads, 1, d], mean positions from the middle of an image, mm.

    Returns:
        the arrays that go with the network's weights.
    """
    cases, player = player.built.cases, replace(player, prior=prior[:, 0])
    few = np.unique(np.linspace(0, len(cases) - 1, min(_MOST_WEIGHED, len(cases))).astype(int))
    looked = _looked(kind, player, cases.part(few.tolist()), _WEIGHED)
    # Of a landmark that no case here has nothing is known.
    places = np.nan_to_num(prior[:, 0])
    signs = _signs(looked, places)
    labelled = looked.absent >= 0
    weights = weigh(signs[labelled], looked.absent[labelled] == 1)
    return parameters_of(
        {"places": places, "shares": _shares(looked, len(places)), "weights": weights}
    )


def scores(player: Player[Any], searched: Searched) -> NDArray[np.float64] | None:
    """float64[groups] in 0..1: how sure it is that landmarks are absent; None if unknown.

    Args:
        player: what searched; every landmark of each image, as acquired.
        searched: the searches.
    """
    decision = decision_of(player.network)
    if decision is None or not decision.fitted:
        return None
    looked = _Looked(player, searched, np.zeros(len(searched.agreed), np.int64))
    return scores_of(_signs(looked, decision.places_mm), decision.weights)


def decision_of(network: QNetwork) -> AbsenceRule | None:
    """Read what a network knows; None where it takes all landmarks to be there."""
    if network.absence is None:
        return None
    arrays = network.absence.known
    return AbsenceRule(arrays["places"], arrays["shares"], arrays["weights"])


def measured_absence(
    kind: TaskKind[Any, Any], player: Player[Any]
) -> tuple[dict[str, object], Extra] | None:
    """Say how well absent landmarks are told, on held-out cases and cropped copies of them.

    Returns:
        figures for JSON, and a table; None where the network does not decide it, or where
        nothing is absent or nothing there.
    """
    decision = decision_of(player.network)
    if decision is None or not decision.fitted:
        return None
    looked = _looked(kind, player, player.built.cases, _MEASURED)
    score = scores_of(_signs(looked, decision.places_mm), decision.weights)
    labelled = looked.absent >= 0
    absent, score, head = looked.absent[labelled] == 1, score[labelled], looked.head[labelled]
    if absent.all() or not absent.any():
        return None
    curve = receiver_curve(score, absent)
    constant = area_under(receiver_curve(decision.shares[head], absent))
    said = score > ABSENT_FROM
    figures: dict[str, object] = {
        "images": len(player.built.cases),
        "absent": int(absent.sum()),
        "present": int((~absent).sum()),
        "auroc": round(area_under(curve), 4),
        "auroc_never_looks": round(constant, 4),
        "absent_reported": round(float(said[absent].mean()), 4),
        "present_reported_absent": round(float(said[~absent].mean()), 4),
        "roc": np.round(curve, 4).tolist(),
    }
    names = player.built.cases.landmarks
    rows = [_row(names[k], absent[head == k], said[head == k]) for k in np.unique(head).tolist()]
    rows.append(_row("all", absent, said))
    columns = (
        Column("absent", "absent", "d", "d"),
        Column("reported", "of these reported absent", ".0%", ".1%"),
        Column("present", "present", "d", "d"),
        Column("reported absent", "of these reported absent", ".0%", ".1%"),
    )
    title = f"Absent landmarks: area under the curve {area_under(curve):.3f}"
    note = (
        "Every image as acquired and cropped at random, searched for every landmark. An answer "
        f"that never looks, how often each was cut off in training, reaches {constant:.3f}."
    )
    table = Table("landmark", columns, tuple(rows), summed=True)
    said_above = f"{title} ({constant:.3f} without looking)"
    return {NAME: figures}, Extra(NAME, said_above, title, note, table)


@dataclass(frozen=True, eq=False)
class _Looked:
    """Searches for all landmarks of some images, without their truth.

    Attributes:
        player: what searched.
        searched: the searches.
        absent: int64[groups], 1 absent, 0 there, -1 where nobody knows.
    """

    player: Player[Any]
    searched: Searched
    absent: NDArray[np.int64]

    @property
    def head(self) -> NDArray[np.int64]:
        """int64[groups]: the landmark that each was for."""
        heads: NDArray[np.int64] = self.searched.agreed["head"].astype(np.int64)
        return heads


def _looked(kind: TaskKind[Any, Any], player: Player[Any], cases: Cases, seed: int) -> _Looked:
    """Search cases and cropped copies of them as if nothing were known."""
    rng = np.random.Generator(np.random.PCG64(seed))
    whole = joined(cases, trimmed(cases, max(1, player.config.task.crops), rng))
    blind = replace(
        whole,
        volumes=tuple(replace(c, landmarks_mm=_middles(c, whole)) for c in whole.volumes),
        pictures=tuple(replace(c, landmarks_mm=_middles(c, whole)) for c in whole.pictures),
    )
    built = kind.build(blind, player.config, known=False)
    settings = player.config.evaluation
    config = player.config.model_copy(
        update={"evaluation": settings.model_copy(update={"starts": min(_STARTS, settings.starts)})}
    )
    blindly = Player(built, player.network, config, player.say, player.prior)
    searched = kind.search(blindly)
    truth = np.stack([_states(case, whole.landmarks) for case in whole.each])
    agreed = searched.agreed
    return _Looked(blindly, searched, truth[agreed["case"], agreed["head"]])


def _middles(case: AnyCase, cases: Cases) -> NDArray[np.float64]:
    """float64[landmarks, d]: a stand-in for every landmark."""
    return np.tile(middle_of(case), (len(cases.landmarks), 1))


def _states(case: AnyCase, names: tuple[str, ...]) -> NDArray[np.int64]:
    """int64[landmarks]: 1 absent, 0 there, -1 where nobody knows."""
    states = np.where(are_inside(case), 0, 1)
    states[~np.isfinite(case.landmarks_mm).all(axis=1)] = -1
    states[[name in case.absent for name in names]] = 1
    return states


def _signs(looked: _Looked, places_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    built, searched = looked.player.built, looked.searched
    halves = np.stack([np.abs(middle_of(c) - first_of(c)) for c in built.cases.each])
    return signs_of(
        built.task,
        looked.player.network,
        searched.found,
        searched.agreed,
        halves,
        places_mm,
        looked.player.config.ladder.steps_mm,
    )


def _shares(looked: _Looked, heads: int) -> NDArray[np.float64]:
    """float64[heads]: how often each was absent; 0 where nobody knows."""
    shares = np.zeros(heads)
    for head in range(heads):
        labelled = looked.absent[(looked.head == head) & (looked.absent >= 0)]
        shares[head] = labelled.mean() if labelled.size else 0.0
    return shares


def _row(label: str, absent: NDArray[np.bool_], said: NDArray[np.bool_]) -> TableRow:
    missed, there = said[absent], said[~absent]
    return TableRow(
        label,
        (
            int(absent.sum()),
            float(missed.mean()) if missed.size else None,
            int((~absent).sum()),
            float(there.mean()) if there.size else None,
        ),
    )
