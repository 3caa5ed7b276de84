"""The page of a data folder: complete, self-contained, bounded, and safe against its own names."""

from __future__ import annotations

import re

import numpy as np
import pytest

from site_client.data_check.drawing import draw_cuts, marks_of, round_length
from site_client.data_check.page import render_page
from site_client.data_check.review import Review, review_scans, thumbnail_side
from site_client.data_check.slides import review_slides
from site_client.imaging.landmarks import read_landmarks, write_landmarks
from tests.conftest import write_case


@pytest.fixture
def folder(tmp_path):
    data = tmp_path / "data"
    for number in range(4):
        write_case(data, f"case-{number}", number)
    return data


def test_every_scan_is_drawn_on_three_cuts_with_its_landmarks_and_a_scale(folder):
    page = render_page(review_scans(folder, ("A", "B")))
    assert page.count("<figure>") == 4 * 3
    assert page.count("data:image/png;base64,") == 4 * 3
    assert page.count("<title>A, ") == page.count("<title>B, ") == 4 * 3
    assert len(re.findall(r'class="bar"', page)) == 4 * 3
    assert "prefers-color-scheme: dark" in page
    assert "It stays at the site" in page


def test_the_page_asks_nothing_of_any_network_and_runs_nothing(folder):
    page = render_page(review_scans(folder))
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert "url(" not in page


def test_a_name_cannot_become_markup(folder):
    path = folder / "case-0.mrk.json"
    marks = read_landmarks(path)
    write_landmarks(path, {"<script>alert(1)</script>": marks["A"], "B": marks["B"]})
    for file in list(folder.glob("case-1.*")):
        file.rename(folder / file.name.replace("case-1", "<b>x"))
    page = render_page(review_scans(folder))
    assert "<script" not in page
    assert "<b>x" not in page
    assert "&lt;b&gt;x" in page


def test_pictures_stop_at_their_limit_and_faulty_scans_come_first(folder):
    data = (folder / "case-3.nii.gz").read_bytes()
    (folder / "case-3.nii.gz").write_bytes(data[: len(data) // 2])
    marks = read_landmarks(folder / "case-2.mrk.json")
    write_landmarks(folder / "case-2.mrk.json", {n: p + 500.0 for n, p in marks.items()})
    review = review_scans(folder)
    whole = render_page(review)
    order = [whole.index(f"<h3>case-{n}</h3>") for n in (2, 3, 0, 1)]
    assert order == sorted(order)
    one = sum(len(cut) for cut in draw_cuts(review.scans[0], review.judgement))
    bounded = render_page(review, most_bytes=one)
    assert bounded.count("<figure>") == 3
    assert bounded.count("<h3>") == 4
    assert "scans are listed without" in bounded
    assert len(bounded) < len(whole)


def test_a_scan_far_from_the_others_is_marked_so(folder):
    for number in range(4):
        marks = read_landmarks(folder / "case-0.mrk.json")
        offset = np.array([10.0 * number, 0, 0])
        write_landmarks(
            folder / f"case-{number}.mrk.json", {n: p + offset for n, p in marks.items()}
        )
    marks = read_landmarks(folder / "case-3.mrk.json")
    write_landmarks(folder / "case-3.mrk.json", {"A": marks["A"] + (8, 0, 0), "B": marks["B"]})
    review = review_scans(folder)
    scan = next(scan for scan in review.scans if scan.name == "case-3")
    tones = {mark.name: mark.tone for mark in marks_of(scan, review.judgement)}
    assert tones["A"] == "far"


@pytest.mark.parametrize("most", [0.03, 0.7, 1.0, 3.0, 66.0, 500.0])
def test_a_scale_bar_is_a_round_length_that_fits(most):
    length = round_length(most)
    assert most / 2.5 <= length <= most * (1 + 1e-9)
    assert f"{length:.0e}"[0] in "125"


def test_many_scans_get_smaller_pictures():
    assert [thumbnail_side(n) for n in (10, 100, 500)] == [160, 128, 96]


def test_slides_are_read_to_their_end(tmp_path):
    rng = np.random.default_rng(0)
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", rng.integers(0, 9, (20, 30, 3)).astype(np.uint8))
    (tmp_path / "c.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-50])
    (tmp_path / "d.npy").write_bytes((tmp_path / "a.npy").read_bytes())
    np.save(tmp_path / "e.npy", np.zeros((4, 4, 3), np.uint8))
    half = rng.integers(0, 9, (20, 30, 3)).astype(np.uint8)
    half[..., 1] = 5
    np.save(tmp_path / "f.npy", half)
    seen = []
    slides = review_slides(sorted(tmp_path.iterdir()), progress=lambda *told: seen.append(told[1]))
    told = {slide.name: [fault.kind for fault in slide.faults] for slide in slides}
    assert told == {
        "a.npy": [],
        "b.npy": [],
        "c.npy": ["cut short"],
        "d.npy": ["duplicate"],
        "e.npy": ["empty"],
        "f.npy": ["empty band"],
    }
    assert seen == [1, 2, 3, 4, 5, 6]
    page = render_page(Review(tmp_path, slides=slides))
    assert "20 × 30 pixels, 3 bands" in page
