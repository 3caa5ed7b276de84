"""The ``cairn-audit`` command: verify, ask, show and report a ledger, offline, with public keys.

It changes nothing but the files it is asked to write.
"""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import click

from common.audit.asked import what_was_asked
from common.audit.exports.command import export_command
from common.audit.held_to import HeldTo, held_to
from common.audit.left_command import left, report
from common.audit.load import Audited, detail_lines, verdict_dict, verdict_line
from common.audit.model_command import model
from common.audit.order import read_order
from common.audit.people import print_asked, print_order
from common.audit.proof_command import check_proof, proof
from common.audit.table import print_records
from common.cli import complete, echo_json, json_option, run
from common.errors import ExitCode
from common.ledger.records import EVENTS
from common.ledger.verdict import Finding

_FOLDER = click.Path(path_type=Path)


@click.group("cairn-audit")
def cli() -> None:
    """Check what left a site, from its ledger and public keys alone.

    Nothing here needs a network, a secret, or trust in either side. A ledger is
    the folder that a site keeps (log.jsonl, checkpoint, receipts, payloads) or a
    copy of it. `model` verifies where a model comes from that a run ended with, and
    `export` says the same to the hospital's log server.

    Exit codes: 0 intact, and witnessed up to its end; 2 usage; 4 a ledger is broken or
    something sent was not declared; 6 a file cannot be read; 9 intact, and nobody from
    outside vouches for its end (verify, left, report).
    """


@cli.command()
@click.argument("ledgers", type=_FOLDER, nargs=-1, required=True, metavar="LEDGER...")
@held_to
@json_option
@click.pass_context
def verify(ctx: click.Context, ledgers: tuple[Path, ...], against: HeldTo, as_json: bool) -> None:
    """Verify ledgers: unaltered, complete, and seen by a witness up to their end.

    Every record, signature and receipt is checked; every payload is opened and held
    against its record, its order, the plan and the policy. Prints one of three verdicts
    per ledger, or the first broken record and what is wrong with it. Whoever holds a
    ledger can cut off its end with the receipts for it, so without a checkpoint from
    elsewhere it is never called witnessed. With several ledgers repeat --key and
    --checkpoint in their order.

    \b
    cairn-audit verify /srv/cairn/ledger --key site-a.pub --witness witness.pub \\
        --checkpoint federation/sites/site-a/checkpoint.note \\
        --journal site-a/courier/journal.jsonl
    site-a: chain intact and witnessed, 412 records, 3 rounds, 30.1 MB out

    Exit codes: 0 intact and witnessed; 4 broken; 9 intact, its end not witnessed.
    """  # noqa: D301 - the backspace tells click to keep the lines as they are
    results = against.audit(ledgers)
    findings = {audited.verdict.finding for audited in results}
    if as_json:
        passed = findings == {Finding.WITNESSED}
        echo_json({"passed": passed, "ledgers": [verdict_dict(audited) for audited in results]})
    else:
        for audited in results:
            click.echo(verdict_line(audited))
            for line in detail_lines(audited):
                click.echo(f"  {line}")
    for finding in (Finding.BROKEN, Finding.NOT_WITNESSED):
        if finding in findings:
            ctx.exit(finding.exit_code)


@cli.command()
@click.argument("ledger", type=_FOLDER)
@held_to
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
    against: HeldTo,
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
    holds, or one that says something else than its records. Whether a witness has seen
    its end is said, and is a question for `verify`.

    \b
    cairn-audit show /srv/cairn/ledger --event send
    cairn-audit show /srv/cairn/ledger --order 3f9c2a71 --witness witness.pub
    """  # noqa: D301 - the backspace tells click to keep the lines as they are
    audited = against.audit_one(ledger)
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
    _exit_if_broken(ctx, audited)


def _show_order(ctx: click.Context, audited: Audited, prefix: str, *, as_json: bool) -> None:
    order = read_order(audited, prefix)
    if as_json:
        echo_json({"verdict": verdict_dict(audited)} | order.as_dict())
    else:
        print_order(audited, order)
        click.echo(verdict_line(audited))
    if not order.sound:
        ctx.exit(ExitCode.VERIFICATION_FAILED)
    _exit_if_broken(ctx, audited)


cli.add_command(left)
cli.add_command(report)
cli.add_command(model)
cli.add_command(export_command)
cli.add_command(proof)
cli.add_command(check_proof)
complete(cli)


def main() -> NoReturn:
    """Entry point of ``cairn-audit``."""
    run(cli)


def _exit_if_broken(ctx: click.Context, audited: Audited) -> None:
    if audited.verdict.finding is Finding.BROKEN:
        ctx.exit(ExitCode.VERIFICATION_FAILED)
