"""Every command of every program, also the hidden ones, says what it is and of which release."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator

import click
import pytest

import aggregator.cli
import common.audit.cli
import site_client.cli
from common.cli import run
from common.lazy import LazyGroup
from deploy.bundle.locks import ROOT

PROGRAMS = (site_client.cli.cli, aggregator.cli.cli, common.audit.cli.cli)
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def below(command: click.Command, *words: str) -> Iterator[tuple[str, ...]]:
    """The words of every command of a program, the program itself first."""
    yield words
    if isinstance(command, LazyGroup):
        command.load()
    for name, each in command.commands.items() if isinstance(command, click.Group) else ():
        yield from below(each, *words, name)


TREE = [(program, words) for program in PROGRAMS for words in below(program)]


def said(capsys, program: click.Command, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        run(program, list(words))
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_the_tree_is_walked_to_its_leaves():
    walked = {" ".join((program.name or "", *words)) for program, words in TREE}
    assert {
        "cairn-site plans approve",
        "cairn-site held-out",
        "cairn-aggregator round start",
        "cairn-aggregator codebook label",
        "cairn-aggregator model",
        "cairn-audit model",
        "cairn-audit verify",
        "cairn-site models export",
    } <= walked


@pytest.mark.parametrize(
    ("program", "words"), TREE, ids=[f"{p.name} {' '.join(w)}".strip() for p, w in TREE]
)
def test_every_command_prints_its_help_and_its_version(capsys, program, words):
    code, short, _ = said(capsys, program, *words, "-h")
    assert code == 0
    assert short.startswith("Usage: ")
    assert "-h, --help" in short
    assert "--version" in short
    assert said(capsys, program, *words, "--help") == (0, short, "")
    assert said(capsys, program, *words, "--version") == (0, f"{program.name} {VERSION}\n", "")


def test_a_list_of_commands_says_of_each_what_its_own_help_begins_with():
    lazy = [program for program in PROGRAMS if isinstance(program, LazyGroup)]
    assert lazy
    for program in lazy:
        for name, said_of_it in program.lazily.items():
            own = said_of_it.load().get_short_help_str(1000)
            assert own == said_of_it.says, f"{program.name} {name}"


HELPS = """
import sys
from common.cli import run
from common.lazy import LazyGroup
from site_client.cli import cli
def ask(command, *words):
    try:
        run(cli, [*words, "--help"])
    except SystemExit:
        pass
    for name in getattr(command, "commands", {}):
        ask(command.commands[name], *words, name)
run_of = sys.argv[1]
if run_of == "every command":
    cli.load()
    ask(cli)
else:
    ask(None, *run_of.split())
heavy = ("torch", "SimpleITK", "matplotlib", "flwr", "numba", "grpc", "numpy", "site_client.egress")
print("HEAVY", *(name for name in heavy if name in sys.modules))
"""


@pytest.mark.parametrize(
    ("asked", "may"),
    [
        ("", set()),
        ("courier", set()),
        ("every command", {"numpy", "site_client.egress"}),
    ],
)
def test_help_is_there_without_what_the_commands_need(asked, may):
    done = subprocess.run(
        [sys.executable, "-c", HELPS, asked], capture_output=True, encoding="utf-8", check=True
    )
    heavy = set(done.stdout.splitlines()[-1].split()[1:])
    assert heavy <= may
