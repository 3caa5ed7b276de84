"""What ``round start`` says of a plan before it starts: short enough to be read."""

from __future__ import annotations

import pytest

from aggregator.cli import _about_kind
from common.plan import parse_plan


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (8, "b0, b1, b2, b3, b4, b5, b6, b7"),
        (200, "b0, b1, b2, b3, b4, b5, … (200 in all)"),
    ],
)
def test_bands_are_shown_whole_when_they_are_few_and_else_the_first_with_their_number(count, shown):
    bands = [f"b{i}" for i in range(count)]
    plan = parse_plan({"name": "p", "kind": "pixels", "seed": 1, "pixels": {"bands": bands}})
    assert dict(_about_kind(plan))["bands"] == shown
