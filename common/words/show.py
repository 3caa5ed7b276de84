"""Printing what ``plan`` and ``bounds`` say, alike at every party; nothing is decided here."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Sequence

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.words.bounds import Bounded
from common.words.plan import Passage

_WIDTH = 96
_PLAIN_WIDTH = 200  # into a file or a pipe: do not fold what somebody wants to search


def show_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Name and value of each fact, a line each."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in facts:
        table.add_row(Text(f"{name}  "), Text(value))
    _console().print(table)


def show_words(passages: Iterable[Passage]) -> None:
    """Passages, each under its heading, folded to be read."""
    for passage in passages:
        click.echo(f"\n{passage.heading}")
        for sentence in passage.sentences:
            click.echo(
                textwrap.fill(
                    sentence,
                    _WIDTH,
                    initial_indent="  - ",
                    subsequent_indent="    ",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )


def show_bounds(title: str, bounds: Sequence[Bounded]) -> None:
    """Every field that a policy bounds, what it bounds it to, and whether the plan keeps to it."""
    click.echo(f"\n{title}")
    table = Table("of the plan", "asks", "policy.toml", "allows", "", box=box.SIMPLE_HEAD)
    for each in bounds:
        mark = "within" if each.holds else "BEYOND"
        table.add_row(
            *(Text(cell) for cell in (each.asked, each.value, each.policy, each.bound, mark))
        )
    _console().print(table)


def _console() -> Console:
    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    return Console(file=sys.stdout, width=width, highlight=False)
