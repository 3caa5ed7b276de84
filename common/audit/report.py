"""The audit as one HTML file: verdict, what left, what was asked, every record, a glossary.

The file stands alone: no script, no font, no image, no link is loaded from
anywhere. Everything that comes from a ledger is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from string import Template

from common.audit.asked import what_was_asked
from common.audit.glossary import glossary_html
from common.audit.left import Left, ReleaseGroup
from common.audit.load import Audited, detail_lines, verdict_line
from common.audit.people import asked_html
from common.audit.table import record_cells
from common.cli import megabytes
from common.journal.balance import Balance
from common.ledger.records import format_timestamp
from common.ledger.verdict import Finding
from common.page import page

_BODY = Template("""\
<header>
<h1>Ledger audit: $site</h1>
<p class="lead">$period. Made by cairn-audit on $made, offline, from the ledger and public
keys alone.</p>
<div class="verdict $mood" role="status"><strong>$word</strong>
<p>$verdict</p>$mark
<ul>$details</ul></div>
<dl class="numbers">$numbers</dl>
</header>
<section><h2>What left, by type and receiver</h2>
$types</section>
<section><h2>Under which plan and policy, approved by whom</h2>
$plans</section>
<section><h2>What left, by round</h2>
$chart</section>
$balance
<section><h2>What was asked, and who agreed</h2>
$asked</section>
<section><h2>Every record</h2>
<div class="wide"><table class="dense words"><thead><tr>$headings</tr></thead>
<tbody>$records</tbody></table></div></section>
<section><h2>Words on this page</h2>
<dl class="glossary">$glossary</dl></section>""")
# Of the records one column holds numbers, and one sentences.
_OWN = """
main { max-width: 1320px; }
.bars text { font-size: 12px; fill: var(--ink); } .bars rect { fill: var(--site-0); }
table.words td:nth-child(6) { text-align: right; }
table.words td:nth-child(7) { white-space: normal; overflow-wrap: anywhere; min-width: 14rem; }
table.facts td { white-space: normal; overflow-wrap: anywhere; text-align: left; }
dl.glossary { display: grid; grid-template-columns: max-content 1fr; gap: 4px 24px; }
dl.glossary dt { font-weight: 600; } dl.glossary dd { margin: 0; color: var(--muted); }
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


_MOODS = {
    Finding.WITNESSED: ("good", "INTACT AND WITNESSED"),
    Finding.NOT_WITNESSED: ("warn", "INTACT, ITS END NOT WITNESSED"),
    Finding.BROKEN: ("bad", "BROKEN"),
}


def render_report(audited: Audited, answer: Left, now: datetime, mark: str = "") -> str:
    """Return the whole page as text.

    Args:
        audited: the ledger after its audit.
        answer: what left in the period that the page is about.
        now: when the report is made, aware.
        mark: what every reader must know of these answers; empty for nothing.
    """
    site = audited.verdict.site or audited.folder.name
    mood, word = _MOODS[audited.verdict.finding]
    chosen = [record for record in audited.records if answer.period.holds(record)]
    body = _BODY.substitute(
        site=escape(site),
        period=escape(f"What left {answer.period.says}"),
        mood=mood,
        word=word,
        verdict=escape(verdict_line(audited)),
        mark=f'<p class="strong">{escape(mark)}</p>' if mark else "",
        details="".join(f"<li>{escape(line)}</li>" for line in _details(audited)),
        numbers=_numbers(answer),
        types=_groups(("type", "to"), answer.by_type),
        plans=_groups(("plan", "fingerprint", "policy", "approved by"), answer.by_plan),
        chart=_chart(_by_round(answer)),
        balance="" if audited.balance is None else _balance(audited.balance),
        asked=asked_html(what_was_asked(audited, chosen)),
        headings="".join(f'<th scope="col">{heading}</th>' for heading in _HEADINGS),
        records=_rows(record_cells(record) for record in chosen),
        glossary=glossary_html(),
        made=format_timestamp(now),
    )
    return page(f"Ledger audit: {site}", body, _OWN)


def _details(audited: Audited) -> list[str]:
    """Everything under the verdict but the rows of the balance, which have a table."""
    remarks = [] if audited.balance is None else audited.balance.remarks()
    return [*detail_lines(audited, balance=False), *remarks]


def _balance(balance: Balance) -> str:
    """Every byte of the wire by its cause."""
    whole = max(balance.wire, 1)
    rows = "".join(
        f'<tr><td class="text">{escape(name)}</td><td>{size:,}</td>'
        f"<td>{100 * size / whole:.2f}</td></tr>"
        for name, size in balance.causes.items()
    )
    return (
        '<section><h2>Balance of the wire</h2><div class="wide"><table><thead><tr>'
        '<th scope="col" class="text">cause</th><th scope="col">bytes</th>'
        f'<th scope="col">%</th></tr></thead><tbody>{rows}</tbody><tfoot><tr><th scope="row">'
        f"left, by {escape(balance.counted_by)}; {balance.lines} lines of the courier's journal"
        f"</th><td>{balance.wire:,}</td><td>100.00</td></tr></tfoot></table></div></section>"
    )


def _numbers(answer: Left) -> str:
    receivers = {release.to for release in answer.releases}
    facts = (
        ("releases", str(len(answer.releases))),
        ("bytes that left", megabytes(answer.bytes)),
        ("receivers", str(len(receivers))),
        ("refusals", str(answer.refused)),
    )
    return "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)


def _groups(columns: Sequence[str], groups: Sequence[ReleaseGroup]) -> str:
    if not groups:
        return "<p>Nothing left this site.</p>"
    words = "".join(f'<th scope="col" class="text">{column}</th>' for column in columns)
    rows = "".join(
        "<tr>"
        + "".join(f'<td class="text">{escape(name)}</td>' for name in group.names[:-1])
        + f'<td class="text long">{escape(group.names[-1])}</td>'
        + f"<td>{group.releases}</td><td>{group.bytes:,}</td></tr>"
        for group in groups
    )
    total = sum(group.releases for group in groups), sum(group.bytes for group in groups)
    return (
        f'<div class="wide"><table><thead><tr>{words}<th scope="col">releases</th>'
        f'<th scope="col">bytes</th></tr></thead><tbody>{rows}</tbody>'
        f'<tfoot><tr><th scope="row" colspan="{len(columns)}">together</th>'
        f"<td>{total[0]}</td><td>{total[1]:,}</td></tr></tfoot></table></div>"
    )


def _by_round(answer: Left) -> list[tuple[str, int]]:
    sizes: dict[tuple[str, int], int] = {}
    for release in answer.releases:
        record = release.record
        if record.run is not None and record.round is not None:
            place = (record.run, record.round)
            sizes[place] = sizes.get(place, 0) + (record.bytes or 0)
    return [(f"{run} / {number}", size) for (run, number), size in sorted(sizes.items())]


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
