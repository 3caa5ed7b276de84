"""Ladders of prefixes: few enough cells to count exactly, few enough extensions to try."""

import pytest

from common.plan.prefixes import band_ladder, component_ladder


@pytest.mark.parametrize(
    ("digits", "ladder"), [(3, (1, 2)), (4, (1, 2)), (6, (2, 4)), (8, (4, 6)), (12, (8, 10))]
)
def test_keys_of_components_have_one_rung(digits, ladder):
    # Frozen: these are the prefixes of every table that was ever sent.
    assert component_ladder(digits) == ladder


@pytest.mark.parametrize(
    ("digits", "radix", "ladder"),
    [
        (3, 3, (1, 2)),
        (12, 3, (10, 11)),
        (35, 3, (11, 17, 23, 29)),
        (40, 3, (11, 16, 22, 28, 34)),
        (64, 2, (18, 27, 36, 45, 54)),
    ],
)
def test_keys_of_all_bands_have_as_many_rungs_as_they_need(digits, radix, ladder):
    assert band_ladder(digits, radix) == ladder
