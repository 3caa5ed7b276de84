"""Progress of a long work as a person sees it: a line that changes in a terminal, or plain lines.

Standard output stays for what is found. Nothing here decides anything.
"""

from __future__ import annotations

import contextlib
import time
from types import TracebackType
from typing import Self

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bar

from common.screen import Progress, Tenths, is_shown, progress_line

_SECONDS_BETWEEN = 0.2


class OnTerminal:
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


class Reporter(OnTerminal):
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
