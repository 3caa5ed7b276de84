"""The page of a data folder: every scan with its landmarks, self-contained, no request to anywhere.

It shows patients and says so. Its size is bounded: the scans with faults come first,
and once the pictures fill ``MOST_BYTES`` the remaining scans are listed without.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from common.page.templates import render
from site_client.data_check.drawing import Mark, draw_cuts, marks_of
from site_client.data_check.review import Review, gravest
from site_client.imaging.judging import orientation
from site_client.imaging.opening import Fault, Scan

MOST_BYTES: Final = 16_000_000
_TONES: Final = ("bad", "warn", "good", "good")
_WORDS: Final = {"bad": "is-bad", "look": "is-warn", "note": "none"}


@dataclass(frozen=True)
class _DrawnScan:
    """A scan as the template wants it."""

    name: str
    tone: str
    faults: tuple[Fault, ...]
    facts: str
    held_out: bool
    cuts: list[Markup]
    marks: tuple[Mark, ...]


def render_page(review: Review, most_bytes: int = MOST_BYTES) -> str:
    """The page as a string; the same review gives the same page.

    Args:
        review: of the folder.
        most_bytes: that the pictures may take.
    """
    shown, drawn_bytes, without = [], 0, 0
    for scan in review.scans:
        cuts = draw_cuts(scan, review.judgement)
        size = sum(len(cut) for cut in cuts)
        if cuts and drawn_bytes + size > most_bytes:
            cuts, size = [], 0
            without += 1
        drawn_bytes += size
        marks = marks_of(scan, review.judgement)
        tone = _TONES[gravest(scan.faults)]
        held_out = scan.name in review.held_out
        facts = _facts(scan)
        shown.append(_DrawnScan(scan.name, tone, scan.faults, facts, held_out, cuts, marks))
    typical = review.judgement.typical_mm
    return render(
        "site_client.data_check",
        "data.html.j2",
        {
            "review": review,
            "fact": review.fact,
            "tone": {"ok": "good", "warning": "warn", "bad": "bad"}[review.fact.level],
            "tones": _WORDS,
            "shown": shown,
            "without": without,
            "limit_mb": most_bytes / 1e6,
            "typical": None if math.isnan(typical) else f"{typical:.1f}",
        },
    )


def _facts(scan: Scan) -> str:
    """One line: what the header says."""
    geometry = scan.geometry
    if geometry is None:
        return "not opened"
    size = " × ".join(str(n) for n in geometry.size)
    spacing = " × ".join(f"{mm:.3g}" for mm in geometry.spacing_mm)
    return f"{size} voxels of {spacing} mm, {orientation(geometry.direction)}"
