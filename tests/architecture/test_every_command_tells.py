"""Every command of every program, also the hidden ones, says what it is and of which release."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator

import click
import pytest

import aggregator.cli
import common.audit.cli
import site_client.cli
from common.cli import run
from deploy.bundle.locks import ROOT

PROGRAMS = (site_client.cli.cli, aggregator.cli.cli, common.audit.cli.cli)
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def below(command: click.Command, *words: str) -> Iterator[tuple[str, ...]]:
    """The words of every command of a program, the program itself first."""
    yield words
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
