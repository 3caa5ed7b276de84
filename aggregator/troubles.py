"""Troubles in the logs of Flower's programs that whoever runs the aggregator should see.

Their warnings and errors, a line each; all else stays in the files. Reads only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

MOST_BYTES = 1_000_000
"""Read at one look; the rest of a log that grows faster is read at the next."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# Flower writes `WARNING :   text`, its web server `TIME ERROR [name] text`.
_TROUBLE = re.compile(r"^(?:\S+Z )?(WARNING|ERROR|CRITICAL)\b[\s:]*(.*)$")
# Told at every start, of what we chose.
_EXPECTED = "EXPERIMENTAL: "


class Troubles:
    """One log, from where it ends now.

    Args:
        path: of the log; it may come later.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = path.stat().st_size if path.exists() else 0
        self._last = ""

    def new(self) -> Iterator[str]:
        """Yield the warnings and errors since the last look, none twice in a row."""
        if not self._path.exists():
            return
        with self._path.open("rb") as log:
            log.seek(self._read)
            data = log.read(MOST_BYTES)
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.decode("utf-8", errors="replace").splitlines():
            match = _TROUBLE.match(_COLOURS.sub("", line))
            if match is None or match[2].startswith(_EXPECTED):
                continue
            line_shown = f"{match[1]} {match[2]}"
            if line_shown != self._last:
                self._last = line_shown
                yield line_shown
