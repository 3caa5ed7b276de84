"""What a coordinator sees while a run goes on: a live view, or plain lines."""

from __future__ import annotations

import io
import json
import threading
from datetime import timedelta

import pytest
from rich.console import Console

from aggregator.report.live import plain_line, status_json, status_table, watch
from aggregator.report.state import RunState, fold
from aggregator.report.text import duration, size, sparkline, word
from aggregator.rounds.events import RunStarted, SiteRejected, append_event
from common.errors import InputDataError

FAILED_LINES = """\
2025-03-04T09:30:00+00:00 run_started run=demo-1 federation="three hospitals" \
plan="brain landmarks" fingerprint=4f4f4f4f4f4f4f4f rounds=3 quorum=2 sites=site-a,site-b,site-c
2025-03-04T09:30:00+00:00 round_started round=0 phase=begin sites=site-a,site-b,site-c \
order_bytes=5000
2025-03-04T09:30:04+00:00 site_replied round=0 site=site-a code=OK accepted=yes bytes=900 \
train_s=0.0 seconds=4.0
2025-03-04T09:30:04+00:00 site_replied round=0 site=site-b code=OK accepted=yes bytes=900 \
train_s=0.0 seconds=4.0
2025-03-04T09:30:04+00:00 site_replied round=0 site=site-c code=OK accepted=yes bytes=900 \
train_s=0.0 seconds=4.0
2025-03-04T09:30:10+00:00 round_finished round=0 phase=begin sites=site-a,site-b,site-c \
model=0000000000000000 sketch_fill=0.0000 sketch_total=0 seconds=10.0
2025-03-04T09:30:10+00:00 round_started round=1 phase=train sites=site-a,site-b,site-c \
order_bytes=5000
2025-03-04T09:30:34+00:00 site_replied round=1 site=site-a code=OK accepted=yes bytes=1000900 \
training_mm=40.00 train_s=20.0 seconds=24.0
2025-03-04T09:30:39+00:00 site_replied round=1 site=site-b code=OK accepted=yes bytes=1000900 \
training_mm=40.10 train_s=25.0 seconds=29.0
2025-03-04T09:30:44+00:00 site_replied round=1 site=site-c code=OK accepted=yes bytes=1000900 \
training_mm=40.20 train_s=30.0 seconds=34.0
2025-03-04T09:30:45+00:00 round_finished round=1 phase=train sites=site-a,site-b,site-c \
model=1111111111111111 sketch_fill=0.1000 sketch_total=9600 seconds=35.0
2025-03-04T09:30:45+00:00 round_started round=2 phase=train sites=site-a,site-b,site-c \
order_bytes=5000
2025-03-04T09:31:09+00:00 site_replied round=2 site=site-a code=BAD_DATA accepted=no bytes=300 \
train_s=20.0 seconds=24.0
2025-03-04T09:31:45+00:00 site_late round=2 site=site-b
2025-03-04T09:31:19+00:00 site_replied round=2 site=site-c code=OK accepted=yes bytes=1000900 \
training_mm=16.18 train_s=30.0 seconds=34.0
2025-03-04T09:31:45+00:00 run_finished verdict=FAILED rounds=1 reason="no quorum" seconds=105.0
"""


def write(path, events):
    for event in events:
        append_event(path, event)


def plain_console():
    return Console(file=io.StringIO(), force_terminal=False, width=40)


def shown(state, now=None):
    console = Console(file=io.StringIO(), force_terminal=False, width=110)
    console.print(status_table(state, now))
    return console.file.getvalue()


def test_a_failed_run_reads_line_by_line_without_wrapping(tmp_path, failed):
    write(tmp_path / "events.jsonl", failed)
    console = plain_console()
    state = watch(tmp_path / "events.jsonl", console, threading.Event())
    assert console.file.getvalue() == FAILED_LINES
    assert state == fold(failed)


@pytest.mark.parametrize("name", ["complete", "degraded", "failed"])
def test_plain_lines_are_one_per_event_ascii_and_without_escape_codes(name, request, tmp_path):
    events = request.getfixturevalue(name)
    write(tmp_path / "events.jsonl", events)
    console = plain_console()
    watch(tmp_path / "events.jsonl", console, threading.Event())
    lines = console.file.getvalue().splitlines()
    assert len(lines) == len(events)
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert [line.split()[1] for line in lines] == [e.event for e in events]


def test_degraded_runs_name_the_site_and_the_reason_in_plain_lines(degraded):
    lines = [plain_line(e) for e in degraded]
    assert any(line.endswith("site_late round=2 site=site-b") for line in lines)
    wanted = 'site_rejected round=3 site=site-c reason="the signature does not hold"'
    assert any(line.endswith(wanted) for line in lines)
    assert "verdict=DEGRADED rounds=3 reason=absences" in lines[-1]


def test_a_hostile_reason_can_neither_break_a_line_nor_reach_the_terminal(complete):
    reason = 'x\n2025 run_finished verdict=COMPLETED\x1b[2J\x9b31m\u202e"'
    event = SiteRejected(ts=complete[0].ts, round=1, site="site-a", reason=reason)
    line = plain_line(event)
    assert line.isascii()
    assert line.isprintable()
    assert line.count("reason=") == 1
    table = shown(fold([complete[0], event]))
    assert not set(table) & set("\x1b\x9b\u202e")


def test_watch_waits_for_the_journal_and_ends_with_the_run(tmp_path, complete):
    journal, console = tmp_path / "events.jsonl", plain_console()
    found = []
    thread = threading.Thread(
        target=lambda: found.append(watch(journal, console, threading.Event(), poll_s=0.01))
    )
    thread.start()
    half = len(complete) // 2
    write(journal, complete[:half])
    write(journal, complete[half:])
    thread.join(timeout=30)
    assert found == [fold(complete)]


def test_watch_stops_when_told_and_still_shows_what_is_written(tmp_path, complete):
    write(tmp_path / "events.jsonl", complete[:5])
    stop = threading.Event()
    stop.set()
    console = plain_console()
    assert watch(tmp_path / "events.jsonl", console, stop) == fold(complete[:5])
    assert len(console.file.getvalue().splitlines()) == 5


def test_watch_leaves_a_half_written_line_for_the_next_look(tmp_path, complete):
    write(tmp_path / "events.jsonl", complete[:3])
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"event": "round_fin')
    stop = threading.Event()
    stop.set()
    assert watch(tmp_path / "events.jsonl", plain_console(), stop) == fold(complete[:3])


def test_watch_refuses_a_damaged_journal(tmp_path):
    (tmp_path / "events.jsonl").write_text("no event\n")
    with pytest.raises(InputDataError, match="journal is damaged"):
        watch(tmp_path / "events.jsonl", plain_console(), threading.Event())


def test_a_terminal_gets_a_live_view_that_ends_with_the_verdict(tmp_path, degraded):
    write(tmp_path / "events.jsonl", degraded)
    console = Console(file=io.StringIO(), force_terminal=True, width=110, height=40)
    watch(tmp_path / "events.jsonl", console, threading.Event(), clock=lambda: degraded[-1].ts)
    view = console.file.getvalue()
    assert "\x1b[" in view
    assert "DEGRADED" in view
    assert "round 3: site-c rejected (the signature does not hold)" in view


def test_a_watch_that_follows_a_resumption_is_not_ended_by_the_old_verdict(tmp_path, resumed):
    journal, found = tmp_path / "events.jsonl", []
    again = next(n for n, e in enumerate(resumed) if getattr(e, "resumed_after", None) == 1)
    write(journal, resumed[:again])
    since = journal.stat().st_size
    thread = threading.Thread(
        target=lambda: found.append(
            watch(journal, plain_console(), threading.Event(), poll_s=0.01, since=since)
        )
    )
    thread.start()
    thread.join(timeout=0.2)
    assert thread.is_alive()
    write(journal, resumed[again:])
    thread.join(timeout=30)
    assert found == [fold(resumed)]
    assert watch(journal, plain_console(), threading.Event()).verdict == "COMPLETED"


def test_a_resumed_run_waits_for_sites_and_counts_only_the_time_at_work(resumed):
    again = next(n for n, e in enumerate(resumed) if getattr(e, "resumed_after", None) == 1)
    view = shown(fold(resumed[: again + 1]), now=resumed[again].ts + timedelta(seconds=5))
    assert "round 1 of 3  waiting for sites" in view
    assert "1 min 50 s so far" in view  # 105 s before the interruption
    assert view.count("· waiting") == 3
    assert "about 1 min 05 s left" in view


def test_the_table_names_round_eta_sites_error_bytes_and_sketch(complete):
    second = next(n for n, e in enumerate(complete) if getattr(e, "round", 0) == 2)
    state = fold(complete[: second + 2])
    view = shown(state, now=complete[second].ts + timedelta(seconds=10))
    assert "round 2 of 3  training" in view
    assert "55.0 s so far" in view
    assert "about 1 min 00 s left" in view
    rows = {line.split()[0]: line for line in view.splitlines() if line.startswith("site-")}
    assert rows["site-a"].split()[1:] == ["✓", "sent", "15.98", "█▄", "2.00", "MB", "24.0", "s"]
    assert rows["site-b"].split()[1:4] == ["▸", "training", "40.10"]
    assert "40.10 → 15.98 mm  (constant prior 14.00 mm)" in view
    assert "10.0 % of cells · 9,600 keys" in view


def test_the_table_calls_the_first_round_preparing_and_the_last_evaluating(complete):
    assert shown(fold(complete[:2])).count("preparing") == 3
    last = max(n for n, e in enumerate(complete) if e.event == "round_started")
    assert shown(fold(complete[: last + 1])).count("evaluating") == 3


def test_an_empty_journal_says_so():
    assert "no run" in shown(RunState())


def test_markup_in_a_name_stays_text(complete):
    event = complete[0].model_copy(update={"plan_name": "[red]x[/red]", "sites": ("[b]a[/b]",)})
    assert isinstance(event, RunStarted)
    view = shown(fold([event]))
    assert "[red]x[/red]" in view
    assert "[b]a[/b]" in view


def test_status_json_holds_plain_values_that_survive_a_round_trip(failed):
    value = status_json(fold(failed))
    assert json.loads(json.dumps(value)) == value
    assert value["verdict"] == "FAILED"
    assert value["rounds_finished"] == 1
    assert value["sites"]["site-b"]["state"] == "late"
    assert value["incidents"][0]["kind"] == "failed"
    assert value["error_mm"]["by_round"] == [[0, 40.1], [1, 16.179]]
    assert value["error_mm"]["landmarks"] == {"AC": 16.179, "PC": 16.179}


def test_status_json_of_an_empty_journal_has_the_same_keys(complete):
    assert status_json(RunState()).keys() == status_json(fold(complete)).keys()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (84_149, "84.1 kB"), (999_600, "1.00 MB")],
)
def test_sizes_read_in_decimal_units(value, text):
    assert size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(8.44, "8.4 s"), (59.97, "1 min 00 s"), (3599.6, "1 h 00 min"), (7500, "2 h 05 min")],
)
def test_durations_read_in_the_unit_that_fits(value, text):
    assert duration(value) == text


def test_a_sparkline_has_one_block_per_value_and_starts_from_zero():
    assert sparkline([40, 20, 10, 0]) == "█▅▃▁"
    assert sparkline([]) == ""
    assert sparkline([0.0, 0.0]) == "▁▁"


@pytest.mark.parametrize("value", ["", "two words", 'a"b', "a=b", "é", "a\nb"])
def test_a_value_that_is_not_one_plain_word_is_quoted(value):
    quoted = word(value)
    assert quoted.startswith('"')
    assert quoted.isascii()
    assert "\n" not in json.loads(quoted)
