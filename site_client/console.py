"""Commands' talk to a person: progress, logs, signals. Nothing here decides anything."""

from __future__ import annotations

import logging
import logging.handlers
import signal
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

LOG_BYTES = 5_000_000
LOG_FILES = 3
_QUARTERS = 4


class Reporter:
    """Progress on standard error: bars in a terminal, a few plain lines elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars: Progress | None = None
        self._tasks: dict[str, object] = {}
        self._said: dict[str, int] = {}

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
            )
            self._bars = Progress(*columns, console=self._console)
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` of ``what`` are done."""
        if self._bars is not None:
            if what not in self._tasks:
                self._tasks[what] = self._bars.add_task(what, total=total)
            self._bars.update(self._tasks[what], completed=done, total=total)  # type: ignore[arg-type]
            return
        quarter = _QUARTERS * done // max(1, total)
        if done < self._said.get(what, 0):
            self._said[what] = 0
        if quarter > self._said.get(what, 0):
            self._said[what] = quarter
            click.echo(f"{what}: {done} of {total}", err=True)


class _OneLine(logging.Formatter):
    """Without tracebacks: they go into the file."""

    def formatException(self, ei: object) -> str:  # noqa: ARG002, N802 - logging's own name
        return ""

    def format(self, record: logging.LogRecord) -> str:
        copy = logging.makeLogRecord(record.__dict__ | {"exc_info": None, "exc_text": None})
        return super().format(copy)


def log_to(path: Path | None) -> None:
    """Send ``cairn.*`` logs to standard error, and whole into ``path`` when one is given."""
    root = logging.getLogger("cairn")
    root.setLevel(logging.INFO)
    console = logging.StreamHandler()
    console.setFormatter(_OneLine("%(asctime)s %(name)s %(levelname)s %(message)s"))
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
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
