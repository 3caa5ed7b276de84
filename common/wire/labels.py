"""Labels that a site has, told beside its update by plans whose sites may lack some.

Such an update has one array more, ``labels``: int32, a value for every label of the plan,
1 where the site trained it and 0 where it lacks it. It is added up like the weights, times
the samples, so that a sum holds exactly the samples behind each label. What belongs to one
label alone must not move at a site without it: there it would be divided by the others'
samples only. Pure: no file, no socket, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.plan import FederationPlan
from common.settings import parameters_of
from common.wire.envelope import Array, Envelope
from common.wire.expected import require, require_array
from common.wire.records import ModelUpdate, RoundReport

LABELS: Final = "labels"
"""The array's name; no parameter of a network has it."""


def without_labels(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Take the differences of weights of an update."""
    return {name: array for name, array in arrays.items() if name != LABELS}


def branch_rows(plan: FederationPlan) -> dict[str, int]:
    """Name to rows of each branch, of the parameters that belong to branches."""
    parameters = parameters_of(plan.network, plan.space)
    return {name: p.branch_rows for name, p in parameters.items() if p.branch_rows}


def check_labels(arrays: Mapping[str, Array], plan: FederationPlan) -> None:
    """Refuse labels that are not zeros and ones, and changes of what a site says it lacks.

    Args:
        arrays: of an update, its weights of the plan's shapes.
        plan: one that ``tells_labels``.

    Raises:
        RefusedError: names the array and what it must be.
    """
    require(LABELS in arrays, LABELS, "there", "nothing")
    labels = np.asarray(arrays[LABELS])
    require_array(labels, LABELS, "int32", (len(plan.space.labels),))
    require(bool(((labels == 0) | (labels == 1)).all()), LABELS, "zeros and ones", "others")
    require(bool(labels.any()), LABELS, "1 for one label at least", "none")
    lacking = labels == 0
    for name, rows in branch_rows(plan).items():
        still = not np.asarray(arrays[name])[np.repeat(lacking, rows)].any()
        require(still, f"weights/{name}", "unchanged for labels that the site lacks", "a change")


def check_labels_told(envelopes: Iterable[Envelope], plan: FederationPlan) -> None:
    """Refuse an answer that trained a label of which its report knows no error.

    Every label that is trained on is evaluated before, so that people see from the report
    which site stands behind which head.

    Args:
        envelopes: of one answer, each checked.
        plan: of the run; of others than those that train and tell labels nothing is asked.

    Raises:
        RefusedError: a label without an error.
    """
    if not (plan.kind == "training" and plan.tells_labels):
        return
    trained: NDArray[np.generic] | None = None
    reported: set[str] | None = None
    for envelope in envelopes:
        match envelope.record:
            case ModelUpdate():
                trained = np.asarray(envelope.arrays[LABELS])
            case RoundReport() as report:
                reported = {error.label for error in report.errors}
            case _:
                continue
    if trained is not None and reported is not None:
        named = {label for label, has in zip(plan.space.labels, trained, strict=True) if has}
        require(named <= reported, LABELS, "labels whose errors the report tells", "others")
