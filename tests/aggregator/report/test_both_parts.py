"""Errors on held-out cases and on training cases are never mixed; held out comes first."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from aggregator.report.extras import ReportExtras
from aggregator.report.html import render, summary_json
from aggregator.report.live import plain_line, status_json, status_table
from aggregator.report.state import RunState, fold
from aggregator.rounds.events import append_event, read_events
from tests.aggregator.report.test_report_html import Page, extras

HELD_OUT, TRAINING = 5.942, 3.992
"""Last mean errors: of sites a and b held out, and of all three on their training cases."""


def shown(state):
    console = Console(file=io.StringIO(), force_terminal=False, width=130)
    console.print(status_table(state, None))
    return console.file.getvalue()


def test_the_headline_of_a_run_is_held_out_where_any_site_told_it(both_parts, complete):
    assert fold(both_parts).parts == ("held-out", "training")
    assert fold(complete).parts == ("training",)
    assert RunState().parts == ()


def test_a_site_that_holds_nobody_out_is_not_in_the_held_out_mean(both_parts):
    state = fold(both_parts)
    assert state.curve("held-out")[-1][1] == pytest.approx(HELD_OUT, abs=1e-3)
    assert state.curve("training")[-1][1] == pytest.approx(TRAINING, abs=1e-3)
    assert state.curve("held-out", "site-c") == ()
    assert (state.site("site-a").part, state.site("site-c").part) == ("held-out", "training")


def test_the_live_view_has_a_column_and_a_line_for_each_part(both_parts):
    view = shown(fold(both_parts))
    header = next(line for line in view.splitlines() if line.startswith("site "))
    assert header.index("held out (mm)") < header.index("training (mm)")
    assert "held out, all sites" in view
    assert "→ 5.94 mm  (constant prior 15.00 mm)" in view
    assert "training, all sites" in view
    assert "→ 3.99 mm  (constant prior 14.00 mm)" in view
    row = next(line for line in view.splitlines() if line.startswith("site-c"))
    assert row.split()[3:5] == ["–", "4.09"]


def test_the_live_view_without_held_out_cases_says_training(complete):
    view = shown(fold(complete))
    assert "training (mm)" in view
    assert "held out" not in view


def test_a_plain_line_names_both_parts(both_parts):
    lines = [plain_line(event) for event in both_parts]
    assert any("held_out_mm=42.00 training_mm=40.00" in line for line in lines)
    assert not any(" error_mm=" in line for line in lines)


def test_status_for_scripts_leads_with_held_out_and_has_both(both_parts):
    told = status_json(fold(both_parts))
    errors = told["error_mm"]
    assert errors["part"] == "held-out"
    assert errors["by_round"] == errors["parts"]["held-out"]["by_round"]
    assert errors["landmarks"] == {"AC": HELD_OUT, "PC": HELD_OUT}
    assert errors["parts"]["training"]["landmarks"] == {"AC": TRAINING, "PC": TRAINING}
    assert told["sites"]["site-a"]["part"] == "held-out"
    assert set(told["sites"]["site-a"]["errors_mm"]) == {"held-out", "training"}
    assert set(told["sites"]["site-c"]["errors_mm"]) == {"training"}


def test_the_report_has_both_held_out_first_and_says_which_each_figure_is(both_parts):
    page = render(fold(both_parts), ReportExtras())
    words = Page(page).words
    assert "federated, mean error, held out 5.94 mm" in words
    held_out = "held out: on the cases that each site keeps out of training"
    training = "training: on the cases that each site trains on"
    assert words.index(held_out) < words.index(training)
    assert "AC 42.05 5.94 15.00" in words
    assert "AC 40.10 3.99 14.00" in words
    assert "Held out at each site" in page
    assert "Training cases of each site" in page


def test_what_was_evaluated_apart_stands_before_both(both_parts):
    words = Page(render(fold(both_parts), extras())).words
    texts = (
        "held out: on 4 subjects that no site trained on",
        "held out: on the cases that each site keeps",
        "training: on the cases",
    )
    places = [words.index(text) for text in texts]
    assert places == sorted(places)


def test_the_summary_leads_with_held_out_and_has_both(both_parts):
    errors = summary_json(fold(both_parts))["error_mm"]
    assert (errors["part"], errors["federated"]) == ("held-out", HELD_OUT)
    assert errors["parts"]["held-out"]["federated"] == HELD_OUT
    assert errors["parts"]["training"]["federated"] == TRAINING


def test_the_journal_keeps_the_parts(both_parts, tmp_path):
    for event in both_parts:
        append_event(tmp_path / "events.jsonl", event)
    again = [event for _, event in read_events(tmp_path / "events.jsonl")]
    assert fold(again) == fold(both_parts)
