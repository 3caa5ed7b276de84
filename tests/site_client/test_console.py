"""Bars and logs of one command share a terminal: neither overwrites the other."""

from __future__ import annotations

import io
import logging
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common.reporter import Reporter
from common.screen import VARIABLE, Progress, read_progress
from site_client.console import log_to


@pytest.fixture(autouse=True)
def _leave_logs_as_they_were():
    yield
    logger = logging.getLogger("cairn")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def report(capsys, monkeypatch, *, shown: bool) -> str:
    monkeypatch.setenv(VARIABLE, "1" if shown else "")
    with Reporter() as progress:
        log_to(None)
        for done in range(40):
            progress("training", done + 1, 40)
        logging.getLogger("cairn.worker").info("answered")
        logging.getLogger("cairn.worker").warning("odd")
    return capsys.readouterr().err


def test_without_a_terminal_every_tenth_is_a_line(capsys, monkeypatch):
    lines = report(capsys, monkeypatch, shown=False).splitlines()
    assert lines[:-2] == [f"training: {done} of 40" for done in range(4, 41, 4)]
    assert re.fullmatch(r"\S+ \S+ cairn\.worker INFO answered", lines[-2])


def test_for_up_progress_is_passed_on_and_a_log_line_says_neither_time_nor_name(
    capsys, monkeypatch
):
    *passed, info, warning, _ = report(capsys, monkeypatch, shown=True).split("\n")
    assert read_progress(passed[0]) == Progress("training", 1, 40)
    assert read_progress(passed[-1]) == Progress("training", 40, 40)
    assert len(passed) < 10, "no more than an eye can follow"
    assert (info, warning) == ("answered", "WARNING odd")


def test_work_goes_on_when_up_reads_no_longer(monkeypatch):
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setenv(VARIABLE, "1")
    with Reporter() as progress:
        monkeypatch.setattr(sys, "stderr", Gone())
        progress("training", 1, 1)


IN_A_TERMINAL = """
import logging, time
from common.reporter import Reporter
from site_client.console import log_to
log_to(None)
with Reporter() as progress:
    for what in ("reading images", "training"):
        for done in range(20):
            progress(what, done + 1, 20)
            time.sleep(0.02)
            if done == 10:
                logging.getLogger("cairn.worker").info("a line about %s", what)
"""


def test_in_a_terminal_a_log_line_stands_whole_above_the_one_bar():
    """Judged by what stands on the screen in the end, as a person sees it."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24", VARIABLE: ""}
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", IN_A_TERMINAL], stderr=theirs, env=environment
    )
    os.close(theirs)
    written = b""
    try:
        while piece := os.read(ours, 4096):
            written += piece
    except OSError:
        pass  # the terminal's other end has closed
    os.close(ours)
    assert process.wait(60) == 0
    screen = drawn(written.decode("utf-8"))
    assert [line.partition("INFO ")[2] for line in screen] == [
        "a line about reading images",
        "a line about training",
    ]


def drawn(text: str) -> list[str]:
    """The lines that are left on a terminal; knows the few movements that rich makes."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[a-zA-Z]|\r|\n|[^\x1b\r\n]+", text):
        if part == "\r":
            column = 0
        elif part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif part.endswith("A") and part.startswith("\x1b"):
            row -= int(part[2:-1] or 1)
        elif part == "\x1b[2K":
            lines[row] = ""
        elif not part.startswith("\x1b"):
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines if line.strip()]


def test_a_log_file_holds_what_the_console_only_names(tmp_path: Path, capsys):
    log_to(tmp_path / "log" / "worker.log")
    try:
        {}["inside"]
    except KeyError:
        logging.getLogger("cairn.worker").exception("it failed")
    assert "Traceback" in (tmp_path / "log" / "worker.log").read_text()
    assert capsys.readouterr().err.count("\n") == 1
