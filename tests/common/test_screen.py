"""What `up` shows: a line per process in a terminal, plain lines everywhere else."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from common.screen import OWN, Progress, Screen, Tenths, progress_line, read_progress

NOON = datetime(2026, 3, 4, 12, 0, 5, tzinfo=UTC)
TIME = "2026-03-04 12:00:05"


def plain_screen(*names: str) -> tuple[Screen, io.StringIO]:
    out = io.StringIO()
    return Screen(names, Console(file=out, width=60), lambda: NOON), out


def terminal_screen(*names: str) -> tuple[Screen, Console]:
    console = Console(
        file=io.StringIO(), width=72, height=20, force_terminal=True, color_system=None,
        legacy_windows=False, _environ={"TERM": "xterm"},
    )  # fmt: skip
    return Screen(names, console, lambda: NOON), console


def test_without_a_terminal_a_line_is_time_process_and_message_and_is_never_wrapped():
    screen, out = plain_screen("worker", "courier")
    with screen:
        screen.say(OWN, "begins")
        screen.take("worker", "order taken in " + "x" * 80)
        screen.take("courier", "online")
        screen.state("courier", "a terminal would show this")
    assert out.getvalue() == (
        f"{TIME} up      begins\n{TIME} worker  order taken in {'x' * 80}\n{TIME} courier online\n"
    )


def test_without_a_terminal_progress_is_a_line_at_every_tenth_and_begins_anew():
    screen, out = plain_screen("worker")
    with screen:
        for _ in range(2):
            for done in range(84):
                screen.take("worker", progress_line(Progress("training", done + 1, 84)))
    told = [line.removeprefix(f"{TIME} worker ") for line in out.getvalue().splitlines()]
    assert len(told) == 20
    assert told[:2] == ["training: 9 of 84", "training: 17 of 84"]
    assert told[9] == told[19] == "training: 84 of 84"


def test_a_terminal_has_one_line_per_process_below_what_they_say():
    screen, console = terminal_screen("worker", "courier")
    with screen:
        screen.state("worker", "runs (process 7)")
        screen.state("courier", "runs (process 8)")
        for done in (10, 42):
            screen.take("worker", progress_line(Progress("training", done, 84)))
        screen.take("courier", "order answered")
        screen._live.refresh()
    assert console.file.getvalue().count(f"{TIME} courier order answered") == 1
    below = lines_of(screen, console)
    assert [line.split()[0] for line in below] == ["worker", "courier"]
    assert re.fullmatch(r"worker +runs \(process 7\) +\S+ +training 42 of 84", below[0].rstrip())
    assert below[1].rstrip() == "courier  runs (process 8)"
    said = console.file.getvalue()
    assert "training: " not in said, "progress changes its line and writes no other"
    assert all(len(line) <= 72 for line in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said).splitlines())


def lines_of(screen: Screen, console: Console) -> list[str]:
    with console.capture() as captured:
        console.print(screen._lines())
    return captured.get().splitlines()


def test_what_was_in_hand_is_gone_when_all_is_done_when_it_speaks_and_when_it_ends():
    screen, console = terminal_screen("worker")

    def in_hand() -> bool:
        return "training" in lines_of(screen, console)[0]

    half, whole = (progress_line(Progress("training", done, 4)) for done in (2, 4))
    screen.take("worker", half)
    assert in_hand()
    screen.take("worker", whole)
    assert not in_hand()
    screen.take("worker", half)
    screen.take("worker", "answered with OK")
    assert not in_hand()
    screen.take("worker", half)
    screen.state("worker", "ended with exit 7; again in 1 s")
    assert not in_hand()


def test_what_a_process_writes_steers_no_terminal():
    screen, out = plain_screen("worker")
    screen.take("worker", "a\x1b[2Jb\x9bc\u202ed [bold]e[/bold]")
    screen.take("worker", "")
    screen.take("worker", "\x1enot progress")
    assert out.getvalue() == (
        f"{TIME} worker a?[2Jb?c?d [bold]e[/bold]\n{TIME} worker ?not progress\n"
    )


@given(st.text(), st.integers(0, 10**12), st.integers(0, 10**12))
def test_progress_comes_through_a_pipe_as_one_line_and_as_it_was(what, done, total):
    line = progress_line(Progress(what, done, total))
    assert "\n" not in line
    assert read_progress(line) == Progress(what, done, total)


@given(st.text())
def test_words_are_no_progress(line):
    assert line.startswith("\x1e[") or read_progress(line) is None


@pytest.mark.parametrize("total", [0, 1, 3, 10, 999])
def test_progress_tells_ten_steps_at_most_and_always_the_last(total):
    tenths = Tenths()
    told = [done for done in range(total + 1) if tenths.passed(Progress("x", done, total))]
    assert len(told) <= 10
    assert told[-1:] == ([total] if total else [])
