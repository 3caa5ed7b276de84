"""What the documents say is true of the repository: tests exist, commands and options exist."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from aggregator.cli import cli as aggregator
from common.audit.cli import cli as audit
from common.witness.cli import cli as witness
from site_client.cli import cli as site

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "deploy").rglob("*.md"))]
PROGRAMS = {
    "cairn-aggregator": aggregator,
    "cairn-site": site,
    "cairn-audit": audit,
    "cairn-witness": witness,
}


def named_tests() -> list[tuple[str, str]]:
    found = set()
    for document in DOCUMENTS:
        for path in re.findall(r"`(tests/[\w/.*-]+)`", document.read_text(encoding="utf-8")):
            found.add((document.name, path))
    return sorted(found)


@pytest.mark.parametrize(("document", "path"), named_tests())
def test_every_test_that_a_document_names_exists(document, path):
    assert list(ROOT.glob(path)), f"{document} names {path}"


def test_every_promise_in_egress_names_a_test():
    text = (ROOT / "deploy" / "EGRESS.md").read_text(encoding="utf-8")
    section = text.split("## What does not leave")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 7
    for row in rows:
        assert "`tests/" in row, row


def typed_commands() -> list[str]:
    lines = []
    for document in DOCUMENTS:
        for block in re.findall(r"```\n(.*?)```", document.read_text(encoding="utf-8"), re.S):
            lines += [ln.split("#")[0].strip() for ln in block.splitlines()]
    return sorted({line for line in lines if line.startswith("cairn-")})


@pytest.mark.parametrize("line", typed_commands())
def test_every_command_in_a_document_exists_with_its_options(line):
    program, *words = line.split()
    command: click.Command = PROGRAMS[program]
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        found = command.get_command(click.Context(command), name)
        assert found is not None, f"{program} has no {name}"
        command = found
    known = {option for parameter in command.params for option in parameter.opts}
    for word in words:
        if word.startswith("-"):
            assert word in known, f"{line}: no option {word}"


def test_the_readme_shows_at_least_one_command_of_each_program():
    assert {line.split()[0] for line in typed_commands()} == set(PROGRAMS)
