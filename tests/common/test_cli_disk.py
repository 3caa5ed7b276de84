"""A command that meets a full or forbidden disk says so, and not its traceback."""

from __future__ import annotations

import errno
import json
import os

import click
import pytest

from common.cli import run


def ends(number: int, name: str | None, *words: str) -> int:
    @click.command()
    @click.option("--json", "as_json", is_flag=True)
    def command(as_json: bool) -> None:
        raise OSError(number, os.strerror(number), name)

    with pytest.raises(SystemExit) as ended:
        run(command, words)
    return int(ended.value.code)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("name", ["/site/worker/ledger.key", None])
def test_a_full_disk_is_bad_input_in_one_line(capsys, number, name):
    assert ends(number, name) == 6
    said = capsys.readouterr().err
    assert said.startswith(f"the disk is full: {name or 'disk'} must be writable")
    assert said.count("\n") == 1
    assert said.endswith("Make room, then type the same again (exit 6)\n")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_forbidden_file_is_named(capsys, number):
    assert ends(number, "/site/site.toml", "--json") == 6
    told = json.loads(capsys.readouterr().out)
    assert told["field"] == "/site/site.toml"
    assert told["got"] == os.strerror(number)


def test_another_failure_of_the_system_stays_unexpected(capsys):
    assert ends(errno.EIO, "/site/site.toml") == 7
    assert capsys.readouterr().err.startswith("unexpected failure, got OSError")
