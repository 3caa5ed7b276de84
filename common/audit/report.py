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
from common.page import page

_BODY = Template("""\
<header>
<h1>Ledger audit: $site</h1>
<p class="lead">Made by cairn-audit on $made, offline, from the ledger and public keys alone.</p>
<div class="verdict $mood" role="status"><strong>$word</strong>
<p>$verdict</p>
<ul>$details</ul></div>
</header>
<section><h2>What left, by type</h2>
<div class="wide"><table><thead><tr><th scope="col">type</th><th scope="col">bytes</th></tr></thead>
<tbody>$types</tbody></table></div></section>
<section><h2>What left, by round</h2>
$chart</section>
<section><h2>What was asked, and who agreed</h2>
$asked</section>
<section><h2>Every record</h2>
<div class="wide"><table class="dense words"><thead><tr>$headings</tr></thead>
<tbody>$records</tbody></table></div></section>""")
# Of the records one column holds numbers, and one sentences.
_OWN = """
main { max-width: 1320px; }
.bars text { font-size: 12px; fill: var(--ink); } .bars rect { fill: var(--site-0); }
table.words td:nth-child(6) { text-align: right; }
table.words td:nth-child(7) { white-space: normal; overflow-wrap: anywhere; min-width: 14rem; }
table.facts td { white-space: normal; overflow-wrap: anywhere; text-align: left; }
table.facts td:nth-child(1) { white-space: nowrap; color: var(--muted); }
"""
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
    site = audited.verdict.site or audited.folder.name
    body = _BODY.substitute(
        site=escape(site),
        mood="good" if audited.passed else "bad",
        word="HOLDS" if audited.passed else "DOES NOT HOLD",
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
        headings="".join(f'<th scope="col">{heading}</th>' for heading in _HEADINGS),
        records=_rows(record_cells(record) for record in audited.records),
        made=format_timestamp(now),
    )
    return page(f"Ledger audit: {site}", body, _OWN)


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
        f'<div class="wide"><svg class="bars" viewBox="0 0 {label + span + 90} {height}" '
        f'style="max-width: {label + span + 90}px" role="img" '
        'aria-label="Bytes sent in each round">'
        f"{''.join(drawn)}</svg></div>"
    )


def _short(name: str) -> str:
    return name if len(name) <= 36 else f"...{name[-33:]}"
