"""Whether the federation has been where landmarks were found, by the map beside a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from site_client.agent.novelty import Familiar
from site_client.kinds.landmark_findings import FoundLandmark, middles_mm
from site_client.kinds.values import Built


def with_familiarity(
    built: Built[Any], findings: Sequence[FoundLandmark], familiar: Familiar
) -> tuple[FoundLandmark, ...]:
    """Say of each landmark how familiar the federation is with where it was found.

    Args:
        built: the search of one agent a landmark over the cases.
        findings: in them, as acquired.
        familiar: of the model that found them.
    """
    task, cases = built.task, built.cases
    rng = np.random.Generator(np.random.PCG64(0))
    situations = task.starts(rng, 1, posed=False)
    pairs = zip(situations["case"].tolist(), situations["head"].tolist(), strict=True)
    rows_of = {pair: row for row, pair in enumerate(pairs)}
    rows = [rows_of[f.case, cases.landmarks.index(f.landmark)] for f in findings]
    places = situations[rows]
    middles = middles_mm(cases)
    offsets = np.stack([f.position - middles[f.case] for f in findings])
    task.move_to(places, offsets.astype(np.float32))
    shares = familiar.shares(task, places)
    return tuple(
        replace(finding, met=None if np.isnan(share) else float(share))
        for finding, share in zip(findings, shares.tolist(), strict=True)
    )
