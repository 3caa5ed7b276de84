"""Commands' talk to a person: progress, logs, signals. Nothing here decides anything."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self, TextIO

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from common.screen import Progress, Tenths, is_shown, progress_line

LOG_BYTES = 5_000_000
LOG_FILES = 3
_SECONDS_BETWEEN = 0.2
_SECONDS_BETWEEN_LINES = 20.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _OnTerminal:
    """Bars on standard error while a command works, where that is a terminal."""

    def __init__(self, *columns: ProgressColumn, transient: bool = False) -> None:
        self._console = Console(stderr=True)
        self._columns, self._transient = columns, transient
        self._bar: Bar | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal and not is_shown():
            how_far = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._bar = Bar(
                *how_far, *self._columns, console=self._console, transient=self._transient
            )
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


class Reporter(_OnTerminal):
    """Progress on standard error: one line that changes in a terminal, every tenth elsewhere."""

    def __init__(self) -> None:
        super().__init__(TimeElapsedColumn(), transient=True)
        self._task: TaskID | None = None
        self._what = ""
        self._tenths = Tenths()
        self._wrote = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` of ``what`` are done."""
        progress = Progress(what, done, total)
        if self._bar is not None:
            self._draw(self._bar, progress)
        elif is_shown():
            self._pass_on(progress)
        elif self._tenths.passed(progress):
            click.echo(f"{what}: {done} of {total}", err=True)

    def _draw(self, bar: Bar, progress: Progress) -> None:
        """In the one line that there is, whatever was there before."""
        if self._task is None:
            self._task = bar.add_task(progress.what, total=progress.total)
        elif progress.what != self._what:
            bar.reset(self._task, total=progress.total, description=progress.what)
        self._what = progress.what
        bar.update(self._task, completed=progress.done, total=progress.total)

    def _pass_on(self, progress: Progress) -> None:
        """To ``up``, which shows it; not more often than an eye can follow."""
        now = time.monotonic()
        if progress.done < progress.total and now - self._wrote < _SECONDS_BETWEEN:
            return
        self._wrote = now
        # Where nobody reads any longer, the work goes on all the same.
        with contextlib.suppress(OSError):
            click.echo(progress_line(progress), err=True)


class Meter(_OnTerminal):
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


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    for number in _SIGNALS:
        signal.signal(number, lambda *_: stop.set())
    return stop


@contextlib.contextmanager
def stop_politely() -> Iterator[threading.Event]:
    """An event that the first SIGTERM or Ctrl-C sets; the second one ends at once."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal's own
        stop.set()
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in _SIGNALS:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
