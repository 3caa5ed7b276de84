"""The page that a coordinator keeps, and the same in a few numbers."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.report.curves import spread
from aggregator.report.extras import DrawnSearch, HeldOut, LedgerVerdict, ReportExtras
from aggregator.report.html import render, summary_json, write_report
from aggregator.report.state import RunState, fold
from aggregator.rounds.events import RoundFinished
from common.errors import InputDataError

SECTIONS = {
    "learning",
    "landmarks",
    "bytes",
    "sketch",
    "time",
    "incidents",
    "ledgers",
    "search",
    "provenance",
    "not",
}
HOSTILE = "<script>alert(1)</script> \"'&$x^2$ \u202e\x1b]]>--><!--"
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Parses a page and collects what tests ask about; refuses tags that do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.ids: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        if self._open:
            raise ValueError(f"never closed: {self._open}")

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append((tag, values))
        if values.get("id"):
            self.ids.append(str(values["id"]))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        if self._open.pop() != tag:
            raise ValueError(f"</{tag}> closes another tag")

    def handle_data(self, data):
        if "style" not in self._open:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def trajectory():
    image = (np.arange(60 * 80, dtype=np.int64) % 251).astype(np.uint8).reshape(60, 80)
    path = ((-30.0, 20.0, 0), (-21.0, 20.0, 0), (-18.0, 17.0, 1), (-17.0, 17.0, 2))
    return DrawnSearch(image, (-40, 40, -30, 30), path, (-16.5, 17.2), "AC", 0.84, "public atlas")


def held_out():
    return HeldOut(
        subjects=4,
        federated=((0, {"AC": 40.0, "PC": 42.0}), (3, {"AC": 1.5, "PC": 2.5})),
        prior_mm={"AC": 14.0, "PC": 16.0},
        local_rounds={
            "site-a": ((0, 41.0), (3, 3.5)),
            "site-b": ((0, 41.0), (3, 4.5)),
            "site-c": ((0, 41.0), (3, 5.5)),
        },
        local_final={"site-a": {"AC": 3.0, "PC": 4.0}, "site-b": {"AC": 4.25, "PC": 5.0}},
        over_10mm={"federated": 0.0, "site-a": 0.021},
    )


def extras():
    ledgers = tuple(
        LedgerVerdict(f"site-{x}", 13, "intact", 3_100_000, 5, 5, "9f3c1d22aa04be17" * 4)
        for x in "abc"
    )
    return ReportExtras(
        held_out=held_out(),
        ledgers=ledgers,
        trajectory=trajectory(),
        sketch_shape=(5, 20_000),
        overhead="Federation took 4 % of a round.",
        machine="two cores",
        seeds="plan 7",
        command="cairn-aggregator report demo-1",
        software={"cairn-fl": "0.1.0"},
    )


@pytest.fixture(scope="module")
def full_page(degraded):
    return render(fold(degraded), extras())


@pytest.mark.parametrize("name", ["complete", "degraded", "failed"])
def test_every_section_is_there_whatever_became_of_the_run(name, request):
    page = Page(render(fold(request.getfixturevalue(name)), ReportExtras()))
    assert set(page.ids) >= SECTIONS | {"verdict"}


def test_the_full_page_shows_every_figure_each_with_an_alternative_text(full_page):
    page = Page(full_page)
    drawn = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert len(drawn) == 5
    assert all(a["role"] == "img" and len(a["aria-label"]) > 40 for a in drawn)
    assert "federated from 41.00 to 2.00 mm" in drawn[0]["aria-label"]
    assert "ends 0.84 mm from the landmark" in drawn[4]["aria-label"]


def test_rounds_are_counted_in_whole_numbers_however_few_there_are(failed):
    page = render(fold(failed), ReportExtras())
    figure = page.split('id="sketch"')[1].split("</svg>")[0]
    ticks = re.findall(r">([\d.]+)</text>", figure.split('id="sketch-axes_2"')[0])
    assert "1" in ticks
    assert not [tick for tick in ticks if "." in tick]


def test_ids_are_unique_and_every_reference_inside_the_page_resolves(full_page):
    page = Page(full_page)
    assert len(page.ids) == len(set(page.ids))
    used = set(re.findall(r"(?:href=\"#|url\(#)([^\")]+)", full_page))
    assert used
    assert used <= set(page.ids)


def test_the_page_reaches_for_nothing_outside_itself(full_page):
    assert "http:" not in full_page
    assert "https:" not in full_page
    assert "@import" not in full_page
    page = Page(full_page)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed"}
    for _, attrs in page.tags:
        assert not any(name.startswith("on") for name in attrs)
        for name in ("src", "href", "xlink:href"):
            if name in attrs:
                assert attrs[name].startswith(("#", "data:image/png;base64,"))
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", full_page))


def test_hostile_names_and_reasons_stay_text(degraded):
    state = fold(degraded)
    rounds = tuple(
        replace(r, sites=tuple(replace(s, detail=HOSTILE, site=HOSTILE) for s in r.sites[:1]))
        for r in state.rounds
    )
    hostile = replace(
        state,
        run=HOSTILE,
        federation=HOSTILE,
        plan_name=HOSTILE,
        plan_fingerprint=HOSTILE,
        sites=(HOSTILE,),
        rounds=rounds,
        reason=HOSTILE,
        final_model=HOSTILE,
    )
    errors = {HOSTILE: 2.0}
    more = ReportExtras(
        held_out=HeldOut(2, ((0, errors),), errors, {HOSTILE: ((0, 3.0),)}, {HOSTILE: errors}),
        ledgers=(LedgerVerdict(HOSTILE, 1, HOSTILE, fingerprint=HOSTILE),),
        trajectory=replace(trajectory(), landmark=HOSTILE, source=HOSTILE),
        overhead=HOSTILE,
        machine=HOSTILE,
        seeds=HOSTILE,
        command=HOSTILE,
        software={HOSTILE: HOSTILE},
    )
    html = render(hostile, more)
    page = Page(html)
    assert "<script" not in html
    assert "script" not in {tag for tag, _ in page.tags}
    assert not set(html) & set("\u202e\x1b")
    assert "<script>alert(1)</script>" in page.words
    assert html.count("<!--") == 0
    assert re.findall(
        r"<text[^>]*>[^<]*\$x\^2\$[^<]*</text>", html
    )  # drawn as it is, not as a formula


def test_the_same_input_gives_the_same_bytes_whatever_matplotlib_is_set_to(
    tmp_path, degraded, full_page
):
    with mpl.rc_context({"font.size": 40, "axes.facecolor": "red", "svg.fonttype": "path"}):
        write_report(tmp_path / "report.html", fold(degraded), extras())
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == full_page
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_drawing_leaves_matplotlibs_settings_alone(complete):
    before = dict(mpl.rcParams)
    render(fold(complete), extras())
    assert dict(mpl.rcParams) == before


def test_the_banner_says_completed_only_of_a_run_that_was(complete, degraded, failed):
    words = {
        events[-1].verdict: Page(render(fold(events), ReportExtras())).words
        for events in (complete, degraded, failed)
    }
    assert "COMPLETED 3 of 3 training rounds, every site in every round." in words["COMPLETED"]
    assert "Nobody:" in words["COMPLETED"]
    assert "round 2: site-b was late (absent, or no answer by the deadline)" in words["DEGRADED"]
    assert "round 3: site-c rejected (the signature does not hold)" in words["DEGRADED"]
    ended = "FAILED 1 of 3 training rounds. The run did not reach its end."
    assert f"{ended} The aggregator says: no quorum." in words["FAILED"]
    assert "cairn-site check" in words["FAILED"]
    going = Page(render(fold(complete[:8]), ReportExtras())).words
    assert "IN PROGRESS" in going
    assert "COMPLETED" not in going


def test_completed_is_never_said_without_a_word_about_who_was_missing(resumed):
    html = render(fold(resumed), ReportExtras())
    assert 'class="verdict warn"' in html
    words = Page(html).words
    assert "COMPLETED 3 of 3 training rounds, but not every site in every round." in words
    assert "round 2: site-b was late" in words
    assert "2 (attempt 2)" in words


def test_a_site_alone_that_was_only_judged_at_the_end_is_a_point_with_a_name(complete):
    value = replace(held_out(), local_rounds={})
    drawn = Page(render(fold(complete), ReportExtras(held_out=value))).tags
    alt = next(attrs["aria-label"] for tag, attrs in drawn if tag == "svg")
    assert "site-b alone from 4.62 to 4.62 mm" in alt


def test_a_ledger_that_does_not_hold_turns_the_banner_red(complete):
    broken = LedgerVerdict("site-b", 13, "record 7 is not what was signed", 3_100_000)
    html = render(fold(complete), replace(extras(), ledgers=(broken,)))
    assert 'class="verdict bad"' in html
    words = Page(html).words
    assert "The ledger of site-b does not hold: record 7 is not what was signed" in words
    assert "0 of 1" in words


def test_a_ledger_that_knows_of_less_than_arrived_is_pointed_at(complete):
    short = LedgerVerdict("site-b", 13, "intact", bytes_out=10)
    words = Page(render(fold(complete), ReportExtras(ledgers=(short,)))).words
    assert "More arrived from site-b than its ledger says has left" in words
    assert "More arrived" not in Page(render(fold(complete), extras())).words


def test_held_out_figures_stand_beside_prior_and_local_training(full_page):
    words = Page(full_page).words
    assert "AC 40.00 1.50 3.00 4.25 14.00" in words
    assert "PC 42.00 2.50 4.00 5.00 16.00" in words
    assert "mean 41.00 2.00 3.50 5.50 15.00" in words
    assert "federated 0.0 %, site-a 2.1 %" in words


def test_without_extras_the_page_says_what_is_missing_and_why(complete):
    words = Page(render(fold(complete), ReportExtras())).words
    assert "Not shown: a search is drawn over an image" in words
    assert "No ledger was handed over" in words
    assert "training: on the cases that each site trains on, weighted by searches" in words
    assert "AC 40.10 3.99 14.00" in words
    assert "held-out subjects" not in words


def test_how_alike_the_sites_are_stands_under_the_sketch(complete):
    told = {"site-a": 912, "site-b": 340}
    last = max(e.round for e in complete if isinstance(e, RoundFinished) and e.phase == "train")
    events = [
        e.model_copy(update={"alike": told})
        if isinstance(e, RoundFinished) and e.round == last
        else e
        for e in complete
    ]
    page = render(fold(events), ReportExtras())
    assert "How alike each site" in page
    assert "<td>0.91</td>" in page
    assert "<td>0.34</td>" in page
    assert summary_json(fold(events))["sketch"]["alike"] == {"site-a": 0.912, "site-b": 0.34}
    assert "How alike each site" not in render(fold(complete), ReportExtras())


def test_the_page_always_says_that_no_pixel_of_a_site_is_in_it(complete, full_page):
    promise = "A real site’s pixels never enter a report that leaves"
    assert promise in Page(full_page).words
    assert promise in Page(render(fold(complete), ReportExtras())).words


def test_totals_of_the_byte_table_are_the_sums_of_its_rows(full_page, degraded):
    state = fold(degraded)
    total = sum(part.bytes for r in state.rounds for part in r.sites)
    assert f"{total:,}" in Page(full_page).words


@pytest.mark.parametrize("count", [0, 1, 2, 3, 6])
def test_any_prefix_of_a_journal_can_be_reported(count, complete):
    Page(render(fold(complete[:count]), ReportExtras()))


def test_a_federation_of_forty_sites_fits_on_a_page(complete):
    sites = tuple(f"site-{n}" for n in range(40))
    started = complete[0].model_copy(update={"sites": sites})
    asked = complete[6].model_copy(update={"sites": sites})
    replies = [complete[7].model_copy(update={"site": site}) for site in sites]
    page = Page(render(fold([started, asked, *replies]), ReportExtras()))
    assert "site-39" in page.words


@given(st.lists(st.floats(0, 400), max_size=12), st.floats(1, 30))
def test_labels_are_spread_in_order_no_closer_than_the_gap(positions, gap):
    positions = sorted(positions)
    moved = spread(positions, gap)
    assert len(moved) == len(positions)
    assert all(b - a >= gap - 1e-6 for a, b in pairwise(moved))
    if all(b - a >= gap for a, b in pairwise(positions)):
        assert moved == pytest.approx(positions)


def test_the_summary_has_exactly_these_keys_and_values(complete):
    assert summary_json(fold(complete), extras()) == {
        "sites": 3,
        "rounds": 3,
        "seconds": 125.0,
        "error_mm": {
            "part": "held-out",
            "start": 41.0,
            "constant_prior": 15.0,
            "local_only": {"site-a": 3.5, "site-b": 4.625, "site-c": 5.5},
            "federated": 2.0,
            "parts": {
                "training": {"start": 40.1, "constant_prior": 14.0, "federated": 3.992},
            },
        },
        "bytes_out": {f"site-{x}": [900, 1_000_900, 1_000_900, 1_000_900, 900] for x in "abc"},
        "sketch": {"rows": 5, "columns": 20_000, "total": 28_800, "alike": {}},
        "ledgers": {f"site-{x}": {"records": 13, "verdict": "intact"} for x in "abc"},
        "model_sha256": "ab" * 32,
    }


def test_the_summary_without_extras_tells_the_sites_own_errors_and_no_guess(complete):
    value = summary_json(fold(complete))
    assert json.loads(json.dumps(value)) == value
    assert value["error_mm"] == {
        "part": "training",
        "start": 40.1,
        "constant_prior": 14.0,
        "local_only": {},
        "federated": 3.992,
        "parts": {"training": {"start": 40.1, "constant_prior": 14.0, "federated": 3.992}},
    }
    assert value["sketch"] == {"rows": None, "columns": None, "total": 28_800, "alike": {}}
    assert value["ledgers"] == {}
    nothing = summary_json(RunState())
    assert nothing.keys() == value.keys()
    assert nothing["error_mm"]["federated"] is None


def test_extras_that_do_not_fit_together_are_refused():
    with pytest.raises(InputDataError, match="same landmarks"):
        replace(held_out(), local_final={"site-a": {"AC": 3.0}})
    with pytest.raises(InputDataError, match="empty"):
        HeldOut(4, (), {"AC": 1.0})
    with pytest.raises(InputDataError, match="uint8"):
        replace(trajectory(), image=np.zeros((4, 4)))
    with pytest.raises(InputDataError, match="no steps"):
        replace(trajectory(), path=())
