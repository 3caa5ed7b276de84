"""A no-op says as many transitions as the wire lets it, whatever floors its plan sets."""

from __future__ import annotations

import pytest

from common.plan import parse_plan
from common.sketching import SketchSpec
from common.wire.bounds import most_transitions
from site_client.worker.noop import NoOpStudy
from site_client.worker.study import Subject


@pytest.mark.parametrize(
    ("limits", "experience"),
    [
        ({}, {"rows": 3, "columns": 64}),
        ({"min_transitions": 5000}, {"rows": 3, "columns": 64}),
        ({"max_cells_per_input": 0.7}, {"rows": 3, "columns": 64}),
        ({}, {"rows": 2, "columns": 20_000}),
    ],
)
def test_a_no_op_draws_as_many_keys_as_the_bound_and_no_more(tmp_path, limits, experience):
    plan = parse_plan(
        {
            "name": "no-op",
            "kind": "no-op",
            "seed": 3,
            "task": {"landmarks": ["AC"]},
            "limits": limits,
            "experience": experience,
        }
    )
    spec = SketchSpec(rows=1, columns=16, key=b"k" * 16, domain="d" * 64)
    study = NoOpStudy(Subject("north", "run-1", plan, spec), tmp_path)
    assert len(study._keys(1)) == most_transitions(plan)
