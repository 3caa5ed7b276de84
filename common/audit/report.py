"""The audit as one HTML file: verdict, totals, bytes per round, what was asked, every record.

The file stands alone: no script, no font, no image, no link is loaded from
anywhere. Everything that comes from a ledger is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from string import Template

from common.audit.asked import what_was_asked
from common.audit.load import Audited, detail_lines, verdict_line
from common.audit.people import asked_html
from common.audit.table import record_cells
from common.cli import megabytes
from common.ledger.records import format_timestamp

_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Ledger audit: $site</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem;
  color: #1c2733; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.verdict { padding: .8rem 1rem; border-left: .4rem solid; font-weight: 600; }
.good { border-color: #2c7a4b; background: #eef7f1; }
.bad { border-color: #b3261e; background: #fdefee; }
ul { padding-left: 1.2rem; } li { overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: .82rem; }
th, td { text-align: left; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid #dde3e8;
  vertical-align: top; white-space: nowrap; }
table.totals { width: auto; } table.totals td:nth-child(2) { text-align: right; }
.scroll td:nth-child(1), .scroll td:nth-child(6) { text-align: right; }
.scroll td:nth-child(7) { white-space: normal; overflow-wrap: anywhere; min-width: 18rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; overflow-wrap: anywhere; } h4 { margin: .6rem 0 0; }
table.facts { width: auto; } table.facts td { white-space: normal; overflow-wrap: anywhere; }
table.facts td:nth-child(1) { white-space: nowrap; color: #5a6773; }
.asked ul { margin: .2rem 0 .6rem; max-width: 100ch; } summary { cursor: pointer; margin: .4rem 0; }
.scroll { overflow-x: auto; } svg { max-width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: #1c2733; } svg rect { fill: #35658f; }
footer { margin-top: 2rem; color: #5a6773; font-size: .85rem; }
</style></head><body>
<h1>Ledger audit: $site</h1>
<p class="verdict $mood">$verdict</p>
<ul>$details</ul>
<h2>What left, by type</h2>
<table class="totals"><thead><tr><th>type</th><th>bytes</th></tr></thead>
<tbody>$types</tbody></table>
<h2>What left, by round</h2>
$chart
<h2>What was asked, and who agreed</h2>
<div class="asked">$asked</div>
<h2>Every record</h2>
<div class="scroll"><table><thead><tr>$headings</tr></thead><tbody>$records</tbody></table></div>
<footer>Made by cairn-audit on $made, offline, from the ledger and public keys alone.</footer>
</body></html>
""")
_HEADINGS = (
    "seq",
    "time",
    "event",
    "run/round",
    "type",
    "size",
    "arrays, or why not",
    "plan",
    "policy",
)


def render_report(audited: Audited, now: datetime) -> str:
    """Return the whole page as text.

    Args:
        audited: the ledger after its audit.
        now: when the report is made, aware.
    """
    totals = audited.verdict.totals
    return _PAGE.substitute(
        site=escape(audited.verdict.site or audited.folder.name),
        mood="good" if audited.verdict.passed else "bad",
        verdict=escape(verdict_line(audited)),
        details="".join(f"<li>{escape(line)}</li>" for line in detail_lines(audited)),
        types=_rows((name, megabytes(size)) for name, size in sorted(totals.bytes_by_type.items())),
        chart=_chart(
            [
                (f"{run} / {number}", size)
                for (run, number), size in sorted(totals.bytes_by_round.items())
            ]
        ),
        asked=asked_html(what_was_asked(audited)),
        headings="".join(f"<th>{heading}</th>" for heading in _HEADINGS),
        records=_rows(record_cells(record) for record in audited.records),
        made=format_timestamp(now),
    )


def _rows(rows: Iterable[Sequence[str]]) -> str:
    return "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )


def _chart(bars: Sequence[tuple[str, int]]) -> str:
    """Horizontal bars, one per round, drawn to the largest."""
    if not bars:
        return "<p>Nothing left this site.</p>"
    largest = max(size for _, size in bars) or 1
    row, label, span = 22, 260, 460
    drawn = []
    for position, (name, size) in enumerate(bars):
        y = position * row
        width = max(1, round(span * size / largest))
        drawn.append(
            f'<text x="{label - 8}" y="{y + 15}" text-anchor="end">{escape(_short(name))}</text>'
            f'<rect x="{label}" y="{y + 3}" width="{width}" height="{row - 6}"></rect>'
            f'<text x="{label + width + 6}" y="{y + 15}">{escape(megabytes(size))}</text>'
        )
    height = len(bars) * row
    return (
        f'<svg viewBox="0 0 {label + span + 90} {height}" width="{label + span + 90}" '
        f'height="{height}" role="img" aria-label="Bytes sent in each round">'
        f"{''.join(drawn)}</svg>"
    )


def _short(name: str) -> str:
    return name if len(name) <= 36 else f"...{name[-33:]}"
