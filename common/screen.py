"""The screen of ``up``: a line for each process that it keeps, and above them what they say.

A terminal gets one line per process that changes in place; everything else (a file, a
pipe, systemd's journal) gets plain lines ``time process message``. Only this process
writes to the terminal: the others write into pipes, so that nothing overwrites anything.
What they say is shown, never acted on.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from common.arrivals.texts import json_of
from common.cli import shown

VARIABLE = "CAIRN_SCREEN"
"""Set for a process whose output somebody shows as above: it writes progress as lines."""
OWN = "up"
"""Who says what the keeper of the processes says itself."""
_MARK = "\x1e"
_BAR = 24
_TENTHS = 10


@dataclass(frozen=True)
class Progress:
    """``done`` of ``total`` of ``what``."""

    what: str
    done: int
    total: int

    @property
    def tenth(self) -> int:
        """0 to 10; 10 when all is done."""
        return _TENTHS * self.done // max(1, self.total)


def is_shown() -> bool:
    """Tell whether somebody shows what this process writes."""
    return os.environ.get(VARIABLE, "") == "1"


def progress_line(progress: Progress) -> str:
    """Progress as one line of output, for the ``Screen`` that reads it; without its end."""
    return _MARK + json.dumps([progress.what, progress.done, progress.total])


def read_progress(line: str) -> Progress | None:
    """Read the progress that a line tells; None for a line that is words."""
    if not line.startswith(_MARK):
        return None
    try:
        told = json_of(line[1:].encode("utf-8", "replace"))
        if not isinstance(told, list) or len(told) != 3:
            return None
        what, done, total = told
        return Progress(str(what), int(done), int(total))
    except (ValueError, TypeError, OverflowError):
        return None


class Tenths:
    """The steps of progress that are worth a line of their own: every tenth."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def passed(self, progress: Progress) -> bool:
        """Tell whether another tenth of ``progress.what`` is done since the last call."""
        last = self._last.get(progress.what, 0)
        self._last[progress.what] = progress.tenth
        return progress.tenth > last


class Screen:
    """The lines of some processes.

    Args:
        names: the processes, in order of their lines.
        console: where; ``Console(stderr=True)`` unless given.
        clock: the time of day that a line begins with.
    """

    def __init__(
        self,
        names: Sequence[str],
        console: Console | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        self._console = Console(stderr=True) if console is None else console
        self._clock = clock
        self._wide = max(map(len, (OWN, *names)))
        self._states = dict.fromkeys(names, "not started")
        self._progress: dict[str, Progress] = {}
        self._tenths = {name: Tenths() for name in names}
        self._lock = threading.Lock()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(
                get_renderable=self._lines, console=self._console, refresh_per_second=4
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, who: str, text: str) -> None:
        """Show a line that a process, or ``OWN``, says."""
        moment = self._clock().isoformat(sep=" ", timespec="seconds")[:19]
        line = f"{moment} {who:<{self._wide}} {shown(text)}"
        with self._lock:
            # Wrapped by the terminal and by nobody else: a line stays a line when it is copied.
            self._console.print(Text(line), soft_wrap=True)

    def state(self, who: str, text: str) -> None:
        """Show in a process's own line how it stands; what it had in hand is over."""
        with self._lock:
            self._states[who] = shown(text)
            self._progress.pop(who, None)

    def take(self, who: str, line: str) -> None:
        """Show a line of a process's output: words, or progress."""
        progress = read_progress(line)
        if progress is None:
            if line.strip():
                self.say(who, line.rstrip())
            with self._lock:
                self._progress.pop(who, None)  # what it had in hand may be over
            return
        with self._lock:
            self._progress[who] = progress
            passed = self._tenths[who].passed(progress)
        if passed and self._live is None:
            self.say(who, f"{progress.what}: {progress.done} of {progress.total}")

    def _lines(self) -> RenderableType:
        """Draw a line per process: its name, how it stands, and what it has in hand."""
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, style="bold")
        table.add_column(no_wrap=True, overflow="ellipsis")
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        with self._lock:
            for who, state in self._states.items():
                table.add_row(who, Text(state), *_in_hand(self._progress.get(who)))
        return table


def _in_hand(progress: Progress | None) -> tuple[RenderableType, RenderableType]:
    """Draw a bar and its words; empty while nothing is in hand or all of it is done."""
    if progress is None or progress.done >= progress.total:
        return "", ""
    words = f"{shown(progress.what)} {progress.done} of {progress.total}"
    return ProgressBar(progress.total, progress.done, width=_BAR), Text(words)
