"""What ``round start`` says of a plan before it starts: short enough to be read."""

from __future__ import annotations

import pytest

from common.plan import parse_plan
from common.words import about_kind


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
    assert dict(about_kind(plan))["bands"] == shown


def test_a_plan_of_all_bands_says_levels_and_five_sketches():
    section = {"bands": [f"b{i}" for i in range(35)], "codec": "all-bands", "columns": 100_000}
    plan = parse_plan({"name": "p", "kind": "pixels", "seed": 1, "pixels": section})
    shown = dict(about_kind(plan))
    assert shown["codec"] == "35 bands of 3 levels"
    assert shown["sketches"].startswith("5 of 15 x 100000")
    assert "range" not in shown["rounds"]
