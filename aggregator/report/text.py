"""Numbers and names as people read them, with their units. The only place that formats."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

_BARS = "▁▂▃▄▅▆▇█"


def size(count: int) -> str:
    """Bytes in decimal units: 812 B, 84.1 kB, 2.31 MB."""
    value = float(count)
    if value < 1000:
        return f"{count} B"
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.5 or unit == "TB":
            break
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {unit}"


def duration(seconds: float) -> str:
    """Seconds as 8.4 s, 1 min 23 s, or 2 h 05 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def mm(value: float | None) -> str:
    """Return a distance without its unit, two decimals; an en dash when there is none."""
    return "–" if value is None else f"{value:.2f}"


def count(value: int) -> str:
    """12,345."""
    return f"{value:,}"


def percent(share: float | None) -> str:
    """Return a share of 1 as 12.3 %."""
    return "–" if share is None else f"{100 * share:.1f} %"


def moment(value: datetime | None) -> str:
    """To the second, in UTC when the value says so."""
    return "–" if value is None else value.strftime("%Y-%m-%d %H:%M:%S %Z").strip()


def printable(text: str) -> str:
    """Strip a text of all that moves a cursor, breaks a line or turns the reading order."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def word(value: str) -> str:
    """Return a value for ``key=value`` lines: quoted when it is not one plain word, ASCII only."""
    clean = printable(value)
    plain = clean.isascii() and clean and not set(clean) & set(" \"'=\\")
    return clean if plain else json.dumps(clean)


def sparkline(values: Sequence[float]) -> str:
    """One block character per value, from 0 to the largest."""
    top = max(values, default=0.0)
    if top <= 0:
        return _BARS[0] * len(values)
    return "".join(_BARS[min(7, max(0, round(7 * v / top)))] for v in values)
