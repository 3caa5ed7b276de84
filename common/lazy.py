"""A program whose commands are imported when they are typed, and listed without.

A process then holds what its own command needs and nothing of the others: the courier's
loads neither the door nor the ledger, and ``--help`` is there at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import click

from common.cli import complete_below


@dataclass(frozen=True)
class Lazily:
    """The place of a command, and what the list of commands says of it.

    Attributes:
        place: ``module:name``.
        says: the first sentence of its own help.
    """

    place: str
    says: str

    def load(self) -> click.Command:
        """Import the command."""
        module, _, name = self.place.partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command


class LazyGroup(click.Group):
    """A group of commands that are imported one by one, each when it is asked for.

    Args:
        lazily: the commands by name, in any order.
    """

    def __init__(self, *words: Any, lazily: Mapping[str, Lazily], **more: Any) -> None:  # noqa: ANN401 - click's own
        super().__init__(*words, **more)
        self.lazily = lazily
        self._imported: set[str] = set()
        for name, each in lazily.items():  # their names and first sentences, for lists
            self.add_command(click.Command(name, help=each.says))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command, with ``--version`` and ``-h`` like every other; None for no such."""
        if cmd_name in self.lazily and cmd_name not in self._imported:
            command = self.lazily[cmd_name].load()
            complete_below(command, self.name or "cairn")
            self.add_command(command, cmd_name)
            self._imported.add(cmd_name)
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by their first sentences; none is imported for it."""
        click.Group(self.name, commands=self.commands).format_commands(ctx, formatter)

    def load(self) -> None:
        """Import all of them."""
        for name in self.lazily:
            self.get_command(click.Context(self), name)
