"""A map of familiar places: what it says of a place, and which files are none."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import InputDataError
from site_client.agent.novelty import Familiar


def found_at(task, fractions):
    """Native situations of thing 0 at fractions of the image along x and y."""
    at = np.repeat(task.starts(np.random.default_rng(0), 1, posed=False)[:1], len(fractions))
    native = task.images.at_fractions(np.array(fractions, float), at["case"].astype(np.int64))
    task.move_to(at, native.astype(np.float32))
    return at


def test_a_place_is_as_familiar_as_the_share_of_what_is_no_more_so(make_task):
    task = make_task("landmark2d")
    places = np.zeros((task.heads, 1, 10, 10), np.int64)
    places[0, 0, 2, 7], places[0, 0, 2, 6], places[0, 0, 9, 0] = 90, 9, 1
    where = [(0.75, 0.25), (0.63, 0.25), (0.02, 0.98), (0.2, 0.6), (0.68, 0.25)]
    shares = Familiar(places).shares(task, found_at(task, where))
    # The last lies between two parts: the more familiar one counts.
    np.testing.assert_allclose(shares, [1.0, 0.1, 0.01, 0.0, 1.0])


def test_of_what_was_never_met_nothing_is_said(make_task):
    task = make_task("landmark2d")
    nothing = Familiar(np.zeros((task.heads, 1, 4, 4), np.int64))
    assert np.isnan(nothing.shares(task, found_at(task, [(0.5, 0.5)]))).all()


def test_a_map_is_read_as_it_was_written():
    places = np.arange(2 * 3 * 3 * 3).reshape(2, 3, 3, 3)
    again = Familiar.from_bytes(Familiar(places).to_bytes(), 2)
    np.testing.assert_array_equal(again.places, places)


@pytest.mark.parametrize(
    ("data", "heads"),
    [
        (b"none", 2),
        (Familiar(np.zeros((2, 1, 3, 3), np.int64)).to_bytes(), 3),
        (Familiar(np.full((2, 1, 3, 3), -1)).to_bytes(), 2),
        (Familiar(np.zeros((2, 1, 3, 3))).to_bytes(), 2),
    ],
)
def test_what_is_no_map_of_the_model_is_refused(data, heads):
    with pytest.raises(InputDataError, match="familiar places cannot be used"):
        Familiar.from_bytes(data, heads)
