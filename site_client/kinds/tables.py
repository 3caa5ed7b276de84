"""Tables of errors and of what was found, as a terminal and as a page show them.

An error that is not known is a word, never a zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup
from PIL import Image
from rich.console import Console
from rich.table import Table as Drawn
from rich.text import Text

from site_client.agent.task import MM

Value = float | int | None | tuple[float, ...]
UNKNOWN: Final = "unknown"


@dataclass(frozen=True)
class Column:
    """One column of numbers.

    Attributes:
        head, title: its name on a terminal ("" leaves it out) and on a page.
        digits, fine: how its numbers are written there, as Python formats them.
        mark: on a page, "prior" for a figure to compare with, "worse" for one that may be.
    """

    head: str
    title: str
    digits: str
    fine: str
    mark: str = ""


@dataclass(frozen=True)
class TableRow:
    """One row of a table.

    Attributes:
        label: what it is about.
        values: one per column; several numbers are a mean and its deviation.
        worse: whether it is no better than an answer that never looks.
    """

    label: str
    values: tuple[Value, ...]
    worse: bool = False


@dataclass(frozen=True)
class Table:
    """Numbers in rows.

    Attributes:
        what: names the first column.
        columns: of numbers.
        rows: of the table.
        summed: whether the last row sums up the others.
    """

    what: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    summed: bool = False

    def print(self, title: str) -> None:
        """Print it on a terminal."""
        shown = [(k, column) for k, column in enumerate(self.columns) if column.head]
        cells = [
            [row.label, *(written(row.values[k], column.digits) for k, column in shown)]
            for row in self.rows
        ]
        print_texts(title, (self.what, *(column.head for _, column in shown)), cells)

    def fine(self, row: TableRow) -> list[str]:
        """Write the numbers of a row as a page shows them."""
        return [
            written(value, column.fine)
            for value, column in zip(row.values, self.columns, strict=True)
        ]


@dataclass(frozen=True)
class Section:
    """One part of a page.

    Attributes:
        name: of the part, for links.
        title: over it.
        note: below the title.
        table: of numbers.
        drawing: inline SVG, and what it shows.
        pictures: of cases, and what they show.
        legend: of the pictures, with colours.
    """

    name: str
    title: str
    note: str
    table: Table | None = None
    drawing: tuple[Markup, str] | None = None
    pictures: tuple[tuple[Image.Image, str], ...] = ()
    legend: tuple[tuple[str, tuple[int, int, int]], ...] = ()


def errors_table(
    what: str,
    unit: str,
    rows: Sequence[tuple[str, Sequence[float | None], tuple[Value, ...]]],
    further: Sequence[Column],
) -> Table:
    """Lay out errors beside those of an answer that never looks.

    Args:
        what: names the first column.
        unit: of the errors.
        rows: label; prior, mean, standard deviation and median; then the further values.
        further: columns after the median.
    """
    digits = error_digits(unit)
    columns = (
        Column("prior", "prior", digits, digits, "prior"),
        Column("mean ± std", "mean ± std", digits, digits, "worse"),
        Column("median", "median", digits, digits),
        *further,
    )
    laid = []
    for label, (prior, mean, std, median), values in rows:
        worse = prior is not None and mean is not None and mean >= prior
        laid.append(TableRow(label, (prior, (mean or 0.0, std or 0.0), median, *values), worse))
    return Table(what, columns, tuple(laid))


def error_digits(unit: str) -> str:
    """Say how errors of a unit are written."""
    return ".2f" if unit == MM else ".3f"


def written(value: Value, digits: str) -> str:
    """Write a number as a person reads it."""
    if isinstance(value, tuple):
        return " ± ".join(format(each, digits) for each in value)
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return format(value, digits)


def print_texts(
    title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], *, names: int = 1
) -> None:
    """Print texts in columns; the first ones hold names, the others numbers."""
    table = Drawn(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
    for k, head in enumerate(heads):
        if k < names:
            table.add_column(head, overflow="fold")
        else:
            table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
