"""The page of a rehearsal: what its pictures show, and that nothing is left out or fetched."""

import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from site_client.exposure.findings import Pair
from site_client.worker.dry_run import rehearse
from site_client.worker.rehearsal_page import RehearsalPage, draw_array, draw_pair


@settings(deadline=None)  # drawing takes as long as the machine is busy
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=1, max_dims=4, max_side=40),
        elements=st.floats(-1e6, 1e6, width=32),
    )
)
def test_every_shape_is_drawn_within_the_page(array):
    drawn = draw_array(array)
    dots = drawn.dots
    assert dots.dtype == np.uint8
    assert dots.shape[2] == 4
    assert (drawn.full > 0) == bool(np.any(array))
    assert 1 <= dots.shape[0] <= 240
    assert 1 <= dots.shape[1] <= 960


def test_a_single_value_in_a_million_cells_is_seen():
    table = np.zeros((10, 100_000), np.int64)
    empty = draw_array(table).dots
    assert (empty == empty[0, 0]).all()
    table[7, 31_337] = 1
    seen = draw_array(table).dots
    assert (seen != empty).any()
    rows = np.unique(np.flatnonzero((seen != empty).any(axis=(1, 2))) * 10 // len(seen))
    assert rows.tolist() == [7]


def test_loss_and_gain_differ_in_hue():
    gain, loss = (draw_array(np.array([value])).dots for value in (1.0, -1.0))
    assert gain[0, 0, 0] > gain[0, 0, 2]
    assert loss[0, 0, 0] < loss[0, 0, 2]


def test_the_page_names_every_record_and_array_and_asks_nobody(site):
    page = RehearsalPage()
    rehearsal = rehearse(site.folder, site.plan, seen=page.draw, attacks=False)
    html = page.render(rehearsal)
    for finding in rehearsal.findings:
        assert f"{finding.phase}: {finding.record_type}" in html
        for array in finding.arrays:
            assert f"{array.name}: {array.dtype}" in html
    assert html.count("data:image/png;base64,") == sum(len(f.arrays) for f in rehearsal.findings)
    assert "Every one of them may leave" in html
    drawn = sum(len(finding.arrays) for finding in rehearsal.findings)
    assert html.count('<span class="scale signed">') == drawn, "colours mean numbers"
    assert "prefers-color-scheme: dark" in html
    assert not re.findall(r'(?:src|href)="(?!data:)', html)
    assert "<script" not in html


def test_the_page_shows_what_every_attack_got_and_says_that_it_stays(site):
    page = RehearsalPage()
    rehearsal = rehearse(site.folder, site.plan, seen=page.draw)
    html = page.render(rehearsal)
    sent = sum(len(finding.arrays) for finding in rehearsal.findings)
    assert html.count("data:image/png;base64,") == sent + 2
    for name, got, guess, verdict in rehearsal.exposure.lines():
        assert f"<h3>{name}</h3>" in html
        assert verdict.replace("'", "&#39;") in html
        assert got in html
        assert guess in html
    assert html.count('<span class="scale grey">') == 2
    assert "would not leave" in html
    assert "This page stays here" in html
    assert not re.findall(r'(?:src|href)="(?!data:)', html)


def test_a_reconstruction_stands_above_the_crop_it_resembles():
    crop = np.arange(3 * 5 * 5, dtype=np.uint8).reshape(3, 5, 5)
    made = crop.astype(np.float32) + 100
    made[2] = np.nan
    dots = draw_pair(Pair(made, crop, 0))
    zoom = dots.shape[1] // (3 * 7)
    small = dots[::zoom, ::zoom, 0]
    assert small.shape == (14, 21)
    for cut in range(3):
        along = slice(7 * cut + 1, 7 * cut + 6)
        np.testing.assert_array_equal(small[8:13, along], crop[cut])
        upper = small[1:6, along]
        np.testing.assert_array_equal(upper, 250 if cut == 2 else crop[cut] + 100)
