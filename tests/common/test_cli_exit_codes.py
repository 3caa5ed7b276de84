"""Every command ends with one line and a stable code, whatever happened."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest

from common.cli import megabytes, run
from common.errors import (
    InputDataError,
    RefusedError,
    UnreachableError,
    UsageError,
    VerificationError,
)


def outcome(action, *words):
    """A command whose only step is ``action``, run as a program would be."""

    @click.group()
    def group():
        pass

    @group.command()
    @click.option("--json", "as_json", is_flag=True)
    @click.pass_context
    def act(ctx, as_json):
        return action(ctx)

    with pytest.raises(SystemExit) as ended:
        run(group, ["act", *words])
    return ended.value.code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError, 2),
        (RefusedError, 3),
        (VerificationError, 4),
        (UnreachableError, 5),
        (InputDataError, 6),
    ],
)
def test_a_deliberate_failure_is_one_line_and_its_code(capsys, error, code):
    def fail(ctx):
        raise error("it failed", field="a field", expected="this", got="that")

    assert outcome(fail) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"it failed: a field must be this, got that (exit {code})\n"


def test_with_json_the_failure_is_an_object_on_standard_output(capsys):
    def fail(ctx):
        raise RefusedError("it failed", field="a field")

    assert outcome(fail, "--json") == 3
    captured = capsys.readouterr()
    assert captured.err == ""
    assert json.loads(captured.out)["exit_code"] == 3


def test_an_unexpected_failure_shows_its_type_and_never_its_text(capsys, monkeypatch):
    def fail(ctx):
        raise KeyError("Hans Müller 1943")

    monkeypatch.delenv("CAIRN_DEBUG", raising=False)
    assert outcome(fail) == 7
    captured = capsys.readouterr()
    assert "KeyError" in captured.err
    assert "Hans" not in captured.err + captured.out
    assert "Traceback" not in captured.err
    monkeypatch.setenv("CAIRN_DEBUG", "1")
    assert outcome(fail) == 7
    assert "Traceback" in capsys.readouterr().err


def test_a_command_may_choose_its_code_or_end_well():
    assert outcome(lambda ctx: ctx.exit(4)) == 4
    assert outcome(lambda ctx: None) == 0
    assert outcome(lambda ctx: "text") == 0


def test_an_interruption_ends_with_the_shells_code(capsys):
    def interrupt(ctx):
        raise KeyboardInterrupt

    assert outcome(interrupt) == 130
    assert "Interrupted" in capsys.readouterr().err


def test_an_unknown_word_is_a_usage_error_in_text_and_json(capsys):
    assert outcome(lambda ctx: None, "--nonsense") == 2
    assert "--nonsense" in capsys.readouterr().err
    assert outcome(lambda ctx: None, "--nonsense", "--json") == 2
    assert json.loads(capsys.readouterr().out)["exit_code"] == 2


def test_the_audit_command_is_installed_with_these_codes(tmp_path):
    program = [sys.executable, "-c", "from common.audit.cli import main; main()"]
    for words, code in ((["verify", str(tmp_path / "no")], 6), (["nonsense"], 2), ([], 2)):
        done = subprocess.run(
            [*program, *words], check=False, capture_output=True, encoding="utf-8"
        )
        assert done.returncode == code
        assert "Traceback" not in done.stderr
        assert done.stderr


def test_a_closed_pipe_ends_without_a_traceback():
    script = (
        "import click, time; from common.cli import run\n"
        "@click.command()\n"
        "def talk():\n"
        "    for _ in range(100_000): click.echo('x' * 100)\n"
        "run(talk)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        program.stdout.readline()
        program.stdout.close()
        assert program.stderr.read() == b""
    assert program.returncode == 7


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (30_100_000, "30.1 MB"), (5 * 10**12, "5.0 TB")],
)
def test_sizes_read_in_decimal_units(count, text):
    assert megabytes(count) == text
