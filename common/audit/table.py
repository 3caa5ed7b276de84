"""A table for the terminal of what left a site. Only records that verified come here."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.audit.left import ReleaseGroup
from common.cli import megabytes, shown
from common.ledger.records import LedgerRecord

_PLAIN_WIDTH = 260  # into a file or a pipe: do not fold what somebody wants to search


def print_records(site: str, records: Iterable[LedgerRecord]) -> None:
    """Print a table of ``records`` to standard output."""
    table = Table(title=f"Ledger of {site}", box=box.SIMPLE_HEAD, title_justify="left")
    for heading, justify in (("seq", "right"), ("time", "left"), ("event", "left")):
        table.add_column(heading, justify="right" if justify == "right" else "left", no_wrap=True)
    table.add_column("run/round", no_wrap=True)
    table.add_column("type", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("arrays, or why not", overflow="fold")
    table.add_column("plan", no_wrap=True)
    table.add_column("policy", no_wrap=True)
    for record in records:
        # Text, not str: rich would read the brackets of a shape as markup.
        table.add_row(*(Text(cell) for cell in record_cells(record)))
    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    Console(file=sys.stdout, width=width, highlight=False).print(table)


def print_groups(title: str, columns: Sequence[str], groups: Sequence[ReleaseGroup]) -> None:
    """Print a table of groups of releases to standard output, if there are any."""
    if not groups:
        return
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    table.add_column("releases", justify="right", no_wrap=True)
    table.add_column("bytes", justify="right", no_wrap=True)
    for group in groups:
        names = (Text(shown(name)) for name in group.names)
        table.add_row(*names, Text(str(group.releases)), Text(f"{group.bytes:,}"))
    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    Console(file=sys.stdout, width=width, highlight=False).print(table)


def record_cells(record: LedgerRecord) -> tuple[str, ...]:
    """Return the nine cells of a record: the same in the terminal and in the report."""
    return (
        str(record.seq),
        record.ts,
        record.event,
        "" if record.round is None else f"{record.run or ''}/{record.round}",
        record.record_type or "",
        "" if record.bytes is None else megabytes(record.bytes),
        describe(record),
        (record.plan_fingerprint or "")[:12],
        (record.policy_sha256 or "")[:12],
    )


def describe(record: LedgerRecord) -> str:
    """Describe a record in a few words: asked, decided, sent or refused."""
    parts: list[str] = []
    if record.phase is not None:
        parts.append(record.phase)
    if record.order_sha256 is not None:
        parts.append(f"order {record.order_sha256[:12]}")
    if record.peer is not None:
        key = "" if record.peer_key is None else f", ledger key {record.peer_key[:16]}"
        parts.append(f"{record.peer}{key}")
    if record.lost_size is not None:
        parts.append(f"restored; lost up to record {record.lost_size - 1}")
    if record.person is not None:
        parts.append(f"by {shown(record.person)}")
    if record.key_id is not None:
        parts.append(f"federation key {record.key_id}, generation {record.generation}")
    if record.arrays is not None:
        shapes = (
            f"{array.name} {array.dtype}[{', '.join(map(str, array.shape))}]"
            for array in record.arrays
        )
        parts.append("; ".join(shapes) or "no arrays")
    if record.code is not None:
        parts.append(f"code {record.code}")
    if record.detail is not None:
        detail = record.detail
        parts.append(f"{detail.field} must be {detail.expected}, got {detail.got}")
    if record.dp is not None:
        epsilon = record.dp.epsilon_total_milli / 1000
        parts.append(f"{record.dp.mechanism}, total epsilon {epsilon:g}, delta {record.dp.delta}")
    if record.masked:
        parts.append("masked")
    if record.payload_sha256 is not None:
        parts.append(f"sha256 {record.payload_sha256[:12]}")
    return " | ".join(parts)
