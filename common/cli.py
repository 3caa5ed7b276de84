"""The end of every ``cairn-*`` command: one line, one stable exit code.

A deliberate failure is one line on standard error, or a JSON object on standard
output when ``--json`` was asked for. An unexpected one names its type only; its
text could quote anything, so it is shown, with the traceback, only when
``CAIRN_DEBUG=1`` asks for it.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click

from common.errors import CairnError, ExitCode, InputDataError, InternalError, UsageError
from common.extras import missing_extra, version

INTERRUPTED = 130  # the shells' convention for Ctrl-C
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
# C0 and C1 controls, line and paragraph ends, and the marks that reverse reading direction;
# the joiners that many scripts need are none of them.
_STEERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def run(command: click.Command, args: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and exit with its stable code.

    A command ends well by returning, and with another code through
    ``ctx.exit(code)`` or a ``CairnError``.

    Args:
        command: the click command or group.
        args: the words after the program's name; ``sys.argv`` when omitted.
    """
    words = list(sys.argv[1:] if args is None else args)
    sys.exit(_exit_code(command, words))


def complete(program: click.Group) -> None:
    """Give a program and every command below it ``--version`` and ``-h``.

    Args:
        program: with all its commands; its name is what ``--version`` prints.
    """
    complete_below(program, program.name or "cairn")


def complete_below(command: click.Command, program: str) -> None:
    """Give the same to a command of a program, and to every command below it; once each."""

    def tell(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted and not ctx.resilient_parsing:
            click.echo(f"{program} {version()}")
            ctx.exit()

    command.context_settings.setdefault("help_option_names", ["-h", "--help"])
    command.params.append(
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=tell,
            help="Show the version and exit.",
        )
    )
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        complete_below(below, program)


def echo_json(value: object) -> None:
    """Print ``value`` as indented JSON, keys in the order given."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def shown(text: str) -> str:
    """Strip a text that somebody else wrote of all that would steer a terminal or turn its line."""
    return "".join("?" if _STEERS.match(letter) else letter for letter in text)


def counted(number: int, what: str) -> str:
    """``1 case``, ``2 cases``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def megabytes(count: int) -> str:
    """Bytes as people read them: ``30.1 MB``, ``512 B`` (decimal units)."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} TB"


def _exit_code(command: click.Command, words: list[str]) -> int:
    as_json = "--json" in words[: words.index("--")] if "--" in words else "--json" in words
    try:
        outcome = command.main(args=words, standalone_mode=False)
        sys.stdout.flush()
    except CairnError as error:
        _report(error, as_json=as_json)
        return int(error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return int(ExitCode.USAGE)
    except click.ClickException as error:
        if as_json:
            _report(UsageError(error.format_message()), as_json=True)
        else:
            error.show()
        return int(ExitCode.USAGE)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted", err=True)
        return INTERRUPTED
    except SystemExit:
        # click's own end when whoever read our output has left.
        return int(ExitCode.INTERNAL)
    except BrokenPipeError:
        # The same, noticed at the last flush; do not complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.INTERNAL)
    except OSError as error:
        explained = _of_the_disk(error)
        _report(explained, as_json=as_json)
        return int(explained.exit_code)
    except ModuleNotFoundError as error:
        missing = missing_extra(error.name or "", command.name or "") or _unexpected(error)
        _report(missing, as_json=as_json)
        return int(missing.exit_code)
    except Exception as error:  # noqa: BLE001 - the outermost frame: nothing may end in a traceback
        _report(_unexpected(error), as_json=as_json)
        return int(ExitCode.INTERNAL)
    return outcome if isinstance(outcome, int) else int(ExitCode.OK)


def _unexpected(error: Exception) -> InternalError:
    if os.environ.get("CAIRN_DEBUG") == "1":
        traceback.print_exc()
    return InternalError(
        "unexpected failure",
        got=type(error).__name__,
        advice="Set CAIRN_DEBUG=1 to see where, and report it",
    )


def _of_the_disk(error: OSError) -> CairnError:
    """Explain a full or a forbidding disk to whoever typed the command."""
    place = str(error.filename or "")
    if error.errno in _FULL:
        return InputDataError(
            "the disk is full",
            field=place or "disk",
            expected="writable",
            got=error.strerror or "none",
            advice="Make room, then type the same again",
        )
    if error.errno in _FORBIDDEN and place:
        return InputDataError(
            "this may not be read or written",
            field=place,
            expected="open to this user",
            got=error.strerror or "an error",
            advice="Look at its owner and mode, and at how the volume is mounted",
        )
    return _unexpected(error)


def _report(error: CairnError, *, as_json: bool) -> None:
    if as_json:
        echo_json(error.as_dict())
    else:
        click.echo(f"{error} (exit {int(error.exit_code)})", err=True)
