"""Commands' talk to a person: progress, logs, signals. Nothing here decides anything."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TextIO

import click
from rich.progress import TaskID, TextColumn, TimeRemainingColumn

from common.reporter import OnTerminal
from common.screen import is_shown
from common.waking import STOP_SIGNALS, Stop

LOG_BYTES = 5_000_000
LOG_FILES = 3
_SECONDS_BETWEEN_LINES = 20.0


class Meter(OnTerminal):
    """A long run as a person sees it: bars in a terminal, a plain line now and then elsewhere.

    Each says the time that remains. Standard output stays for what is found.
    """

    def __init__(self) -> None:
        super().__init__(TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[str, tuple[float, int]] = {}
        self._said: dict[str, float] = {}

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        """Show that ``done`` of ``total`` of ``what`` are done."""
        if self._bar is not None:
            if what not in self._tasks:
                self._tasks[what] = self._bar.add_task(what, total=total, note="")
                # What a resumed run had done before tells nothing of its pace now.
                self._bar.update(self._tasks[what], completed=done)
            self._bar.update(self._tasks[what], completed=done, total=total, note=note)
            return
        now = time.monotonic()
        since, first = self._began.setdefault(what, (now, done))
        if done < total and now - self._said.setdefault(what, now) < _SECONDS_BETWEEN_LINES:
            return
        self._said[what] = now
        remaining = ""
        if first < done < total:
            remaining = f", {duration((now - since) / (done - first) * (total - done))} left"
        click.echo(f"{what}: {done} of {total}{remaining}{', ' + note if note else ''}", err=True)

    def say(self, text: str) -> None:
        """A line of its own."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(text, err=True)


def duration(seconds: float) -> str:
    """Seconds as people say them: ``45 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class _StandardError(logging.StreamHandler[TextIO]):
    """Whatever standard error is at the moment: a line that changes in a terminal takes it over."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class _OneLine(logging.Formatter):
    """Without tracebacks: they go into the file."""

    def formatException(self, ei: object) -> str:  # noqa: ARG002, N802 - logging's own name
        return ""

    def format(self, record: logging.LogRecord) -> str:
        copy = logging.makeLogRecord(record.__dict__ | {"exc_info": None, "exc_text": None})
        text = super().format(copy)
        # Whoever shows this says when, and who.
        calm = not is_shown() or record.levelno < logging.WARNING
        return text if calm else f"{record.levelname} {text}"


def log_to(path: Path | None) -> None:
    """Send ``cairn.*`` logs to standard error, and whole into ``path`` when one is given."""
    root = logging.getLogger("cairn")
    root.setLevel(logging.INFO)
    console = _StandardError()
    plain = "%(message)s" if is_shown() else "%(asctime)s %(name)s %(levelname)s %(message)s"
    console.setFormatter(_OneLine(plain))
    handlers: list[logging.Handler] = [console]
    if path is not None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = logging.handlers.RotatingFileHandler(
            path, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8"
        )
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        handlers.append(file)
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        root.addHandler(handler)


@contextlib.contextmanager
def stop_politely() -> Iterator[Stop]:
    """A stop that the first SIGTERM or Ctrl-C sets; the second one ends at once."""
    stop = Stop()
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal's own
        stop.set()
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in STOP_SIGNALS:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
