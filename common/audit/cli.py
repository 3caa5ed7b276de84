"""The ``cairn-audit`` command: verify, show and report a ledger, offline, with public keys.

It changes nothing but the report it is asked to write.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import click

from common.audit.asked import what_was_asked
from common.audit.load import Audited, audit, detail_lines, verdict_dict, verdict_line
from common.audit.model_command import model
from common.audit.order import read_order
from common.audit.people import print_asked, print_order
from common.audit.proof_command import check_proof, proof
from common.audit.report import render_report
from common.audit.table import print_records
from common.audit.witnessing import witness_options, witnessed_by
from common.cli import complete, echo_json, json_option, run
from common.errors import ExitCode, InputDataError, UsageError
from common.ledger.records import EVENTS

_FOLDER = click.Path(path_type=Path)
_FILE = click.Path(path_type=Path)
_KEY = click.option(
    "--key",
    "keys",
    type=_FILE,
    multiple=True,
    metavar="FILE",
    help="The site's public key. Without it LEDGER/ledger.pub is used, which proves only that "
    "the ledger agrees with itself.",
)
_WITNESS = click.option(
    "--witness",
    type=_FILE,
    metavar="FILE",
    help="The aggregator's witness key. Without it LEDGER/witness.pub is used if present.",
)
_SENT = click.option(
    "--sent",
    "journals",
    type=_FILE,
    multiple=True,
    metavar="FILE",
    help="The courier's journal of what its socket sent; anything in it that the ledger does "
    "not declare fails. With several ledgers one for each, in their order.",
)
_CHECKPOINT = click.option(
    "--checkpoint",
    "checkpoints",
    type=_FILE,
    multiple=True,
    metavar="FILE",
    help="A cosigned checkpoint kept elsewhere, e.g. by the aggregator; shows a rewritten "
    "history. For one ledger; may be repeated.",
)


@click.group("cairn-audit")
def cli() -> None:
    """Check what left a site, from its ledger and public keys alone.

    Nothing here needs a network, a secret, or trust in either side. A ledger is
    the folder that a site keeps (log.jsonl, checkpoint, receipts, payloads) or a
    copy of it. `model` verifies where a model comes from that a run ended with.

    Exit codes: 0 everything holds; 2 usage; 4 a ledger is broken or something
    sent was not declared; 6 a file cannot be read.
    """


@cli.command()
@click.argument("ledgers", type=_FOLDER, nargs=-1, required=True, metavar="LEDGER...")
@_KEY
@_WITNESS
@_SENT
@_CHECKPOINT
@witness_options
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    ledgers: tuple[Path, ...],
    keys: tuple[Path, ...],
    witness: Path | None,
    journals: tuple[Path, ...],
    checkpoints: tuple[Path, ...],
    witness_policy: Path | None,
    within_days: int | None,
    as_json: bool,
) -> None:
    """Verify ledgers: unaltered, complete, and as the witness saw them.

    Prints one verdict per ledger, or the first broken record and what is wrong
    with it. With several ledgers repeat --key in their order.

    \b
    cairn-audit verify /srv/cairn/ledger --key site-a.pub --witness witness.pub
    site-a: 412 records, chain intact, 3 rounds, 30.1 MB out, 0 undeclared
    """  # noqa: D301 - the backspace tells click to keep the lines as they are
    if checkpoints and len(ledgers) != 1:
        raise UsageError("--checkpoint goes with exactly one ledger", got=f"{len(ledgers)}")
    key_files = _one_each(keys, len(ledgers), "--key")
    journal_files = _one_each(journals, len(ledgers), "--sent")
    tails = [
        witnessed_by(folder, witness_policy, key_file, checkpoints, within_days)
        for folder, key_file in zip(ledgers, key_files, strict=True)
    ]
    results = [
        audit(
            folder,
            key_file=key_file,
            witness_file=witness,
            sent_journal=journal,
            known_checkpoints=(*checkpoints, *tail.notes),
            judge=tail.judge,
            not_before=tail.not_before,
        )
        for folder, key_file, journal, tail in zip(
            ledgers, key_files, journal_files, tails, strict=True
        )
    ]
    passed = all(audited.verdict.passed for audited in results)
    if as_json:
        echo_json({"passed": passed, "ledgers": [verdict_dict(audited) for audited in results]})
    else:
        for audited in results:
            click.echo(verdict_line(audited))
            for line in detail_lines(audited):
                click.echo(f"  {line}")
    if not passed:
        ctx.exit(ExitCode.VERIFICATION_FAILED)


@cli.command()
@click.argument("ledger", type=_FOLDER)
@_KEY
@_WITNESS
@click.option(
    "--event", type=click.Choice(EVENTS, case_sensitive=False), help="Only this kind of record."
)
@click.option("--round", "round_number", type=click.IntRange(min=0), help="Only this round.")
@click.option(
    "--order",
    "order_prefix",
    metavar="DIGEST",
    help="Instead: the one order whose digest begins like that, and its signature.",
)
@json_option
@click.pass_context
def show(
    ctx: click.Context,
    ledger: Path,
    keys: tuple[Path, ...],
    witness: Path | None,
    event: str | None,
    round_number: int | None,
    order_prefix: str | None,
    as_json: bool,
) -> None:
    """Show the records of a ledger: what left, when, how big, and what was asked for it.

    Then every plan that those records name, in words, with the person who approved or
    declined it, and the other sites that people of the site have confirmed. --order
    prints one order as the site kept it, and whether the aggregator signed it.

    The ledger is verified first; records at and after a broken one are not
    shown, and the exit code is 4. So it is for an order without a signature that
    holds, or one that says something else than its records.

    \b
    cairn-audit show /srv/cairn/ledger --event send
    cairn-audit show /srv/cairn/ledger --order 3f9c2a71 --witness witness.pub
    """  # noqa: D301 - the backspace tells click to keep the lines as they are
    audited = audit(ledger, key_file=_single(keys), witness_file=witness)
    if order_prefix is not None:
        _show_order(ctx, audited, order_prefix, as_json=as_json)
        return
    chosen = [
        record
        for record in audited.records
        if (event is None or record.event == event)
        and (round_number is None or record.round == round_number)
    ]
    if as_json:
        records = [record.model_dump(mode="json", exclude_none=True) for record in chosen]
        agreed = what_was_asked(audited, chosen).as_dict()
        echo_json({"verdict": verdict_dict(audited), "records": records} | agreed)
    else:
        print_records(audited.verdict.site or ledger.name, chosen)
        print_asked(what_was_asked(audited, chosen))
        click.echo(verdict_line(audited))
    _exit_unless_passed(ctx, audited)


@cli.command()
@click.argument("ledger", type=_FOLDER)
@click.option(
    "-o", "--output", type=_FILE, required=True, metavar="FILE", help="The HTML file to write."
)
@_KEY
@_WITNESS
@_SENT
@_CHECKPOINT
@json_option
@click.pass_context
def report(
    ctx: click.Context,
    ledger: Path,
    output: Path,
    keys: tuple[Path, ...],
    witness: Path | None,
    journals: tuple[Path, ...],
    checkpoints: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Write the audit of a ledger as one self-contained HTML file.

    A broken ledger is reported too, with what is wrong at the top, and the exit
    code is 4.
    """
    (journal,) = _one_each(journals, 1, "--sent")
    audited = audit(
        ledger,
        key_file=_single(keys),
        witness_file=witness,
        sent_journal=journal,
        known_checkpoints=checkpoints,
    )
    try:
        output.write_text(render_report(audited, datetime.now(UTC)), encoding="utf-8")
    except OSError as error:
        raise InputDataError(
            "cannot write the report", field=str(output), got=error.strerror or "an error"
        ) from error
    if as_json:
        echo_json({"report": str(output), "verdict": verdict_dict(audited)})
    else:
        click.echo(verdict_line(audited))
        click.echo(f"  written to {output}")
    _exit_unless_passed(ctx, audited)


def _show_order(ctx: click.Context, audited: Audited, prefix: str, *, as_json: bool) -> None:
    order = read_order(audited, prefix)
    if as_json:
        echo_json({"verdict": verdict_dict(audited)} | order.as_dict())
    else:
        print_order(audited, order)
        click.echo(verdict_line(audited))
    if not order.sound:
        ctx.exit(ExitCode.VERIFICATION_FAILED)
    _exit_unless_passed(ctx, audited)


cli.add_command(model)
cli.add_command(proof)
cli.add_command(check_proof)
complete(cli)


def main() -> NoReturn:
    """Entry point of ``cairn-audit``."""
    run(cli)


def _one_each(paths: tuple[Path, ...], ledgers: int, option: str) -> list[Path | None]:
    if paths and len(paths) != ledgers:
        raise UsageError(
            f"{option} is given once for each ledger, in their order",
            expected=f"{ledgers}",
            got=f"{len(paths)}",
        )
    return list(paths) if paths else [None] * ledgers


def _single(keys: tuple[Path, ...]) -> Path | None:
    return _one_each(keys, 1, "--key")[0]


def _exit_unless_passed(ctx: click.Context, audited: Audited) -> None:
    if not audited.verdict.passed:
        ctx.exit(ExitCode.VERIFICATION_FAILED)
