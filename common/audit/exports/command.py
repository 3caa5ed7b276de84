"""``cairn-audit export``: a verified ledger, in the form that the hospital's log server takes."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import click

from common.audit.exports import fhir
from common.audit.exports.dicom import message
from common.audit.exports.event import ALARMS, AuditEvent, json_line
from common.audit.exports.exporting import ExportResult, Wish, export
from common.audit.exports.outlets import GrowingFile, LogServer, Outlet, Stream, WholeFile
from common.audit.exports.syslog import PORT, Server, parse_address
from common.audit.load import Audited, audit, verdict_dict, verdict_line
from common.audit.period import Period, in_period
from common.cli import counted, echo_json, json_option
from common.errors import ExitCode, InputDataError, UnreachableError, UsageError
from common.ledger.layout import Layout
from common.waking import stop_on_signals

Form = Literal["fhir", "dicom", "jsonl"]
_PATH: Final = click.Path(path_type=Path)
_LONGEST_WAIT_S: Final = 300.0


@click.command("export")
@click.argument("ledger", type=_PATH)
@click.option(
    "--format",
    "form",
    type=click.Choice(["fhir", "dicom", "jsonl"]),
    required=True,
    help="fhir: AuditEvents (R4) after IHE BALP, a line each. dicom: PS3.15 audit messages "
    "(XML). jsonl: one JSON object a line; its fields are those of the ledger.",
)
@click.option("-o", "--output", type=_PATH, metavar="FILE", help="Instead of standard output.")
@click.option("--bundle", is_flag=True, help="With fhir: one Bundle instead of lines.")
@click.option(
    "--to",
    metavar="HOST[:PORT]",
    help=f"Instead: a syslog server over TLS (RFC 5425), for dicom. Port {PORT} if none is named.",
)
@click.option("--ca", type=_PATH, metavar="FILE", help="Who must have signed its certificate.")
@click.option("--cert", type=_PATH, metavar="FILE", help="Our certificate for it (PEM).")
@click.option("--cert-key", type=_PATH, metavar="FILE", help="The key of that (PEM).")
@click.option("--tls-name", metavar="NAME", help="Name in its certificate, if not HOST.")
@click.option(
    "--state",
    type=_PATH,
    metavar="FILE",
    help="Remember how far this export came: the next one with the same file goes on there.",
)
@click.option("--follow", is_flag=True, help="Go on as the ledger grows, until stopped.")
@click.option(
    "--every",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="With --follow: how often to look.",
)
@click.option("--witnessed", is_flag=True, help="Only what the witness has cosigned so far.")
@in_period
@click.option("--key", type=_PATH, metavar="FILE", help="The site's public key.")
@click.option("--witness", type=_PATH, metavar="FILE", help="The aggregator's witness key.")
@json_option
@click.pass_context
def export_command(ctx: click.Context, /, **typed: object) -> None:
    """Export what a ledger says, for a hospital's log server or audit repository.

    The ledger is verified first. A broken one is not exported: one alert goes out
    instead, and the exit code is 4. Nothing of a patient can be in any of it: only
    digests, counts, codes, times, and names of runs, sites and staff.

    With --state nothing is lost and nothing is sent twice unless a connection broke
    before the server had answered; every event has an id that stays the same, so that
    a server can drop what it has. A ledger that was rewritten since it was exported is
    an alert, too.

    \b
    cairn-audit export /srv/cairn/ledger --format fhir --month 2026-11 -o november.ndjson
    cairn-audit export /srv/cairn/ledger --format jsonl -o ledger.jsonl --state jsonl.state
    cairn-audit export /srv/cairn/ledger --format dicom --to arr.hospital.example \\
        --ca arr-ca.pem --cert site.pem --cert-key site.key --state arr.state --follow

    Exit codes: 0 exported; 2 usage; 4 the ledger is broken or was rewritten, or the
    server is not who it should be; 5 the server did not take everything; 6 a file
    cannot be read.
    """  # noqa: D301 - the backspace tells click to keep the lines as they are
    ask = _Asked.of(typed)
    last = _Follower(ask).run() if ask.follow else _look(ask)[1]
    if last.alarm is not None:
        ctx.exit(ExitCode.VERIFICATION_FAILED)


@dataclass(frozen=True)
class _Asked:
    """The command line, checked."""

    ledger: Path
    outlet: Outlet
    wish: Wish
    state: Path | None
    follow: bool
    every: float
    key: Path | None
    witness: Path | None
    as_json: bool
    told: bool

    @classmethod
    def of(cls, typed: dict[str, object]) -> _Asked:
        """Check what belongs together.

        Raises:
            UsageError: something that does not.
        """
        period = typed["period"]
        if not isinstance(period, Period):
            raise TypeError(period)
        state, follow = _file(typed["state"]), bool(typed["follow"])
        output, to = _file(typed["output"]), _text(typed["to"])
        _require_sense(typed, period)
        return cls(
            ledger=Path(str(typed["ledger"])),
            outlet=_outlet(typed, grows=state is not None),
            wish=Wish(period, only_witnessed=bool(typed["witnessed"])),
            state=state,
            follow=follow,
            every=float(str(typed["every"])),
            key=_file(typed["key"]),
            witness=_file(typed["witness"]),
            as_json=bool(typed["as_json"]),
            told=output is not None or to is not None,
        )


def _require_sense(typed: dict[str, object], period: Period) -> None:
    somewhere = typed["output"] is not None or typed["to"] is not None
    state = typed["state"] is not None
    for wrong, words in (
        (typed["output"] and typed["to"], "-o and --to are two destinations: give one"),
        (typed["to"] and typed["form"] != "dicom", "--to goes with --format dicom"),
        (typed["bundle"] and typed["form"] != "fhir", "--bundle goes with --format fhir"),
        (typed["bundle"] and state, "a Bundle is written at once: --state does not go with it"),
        (typed["form"] == "dicom" and typed["output"] and state, "a file of XML cannot be resumed"),
        (state and not somewhere, "--state goes with -o or --to"),
        (typed["follow"] and not state, "--follow goes with --state"),
        (state and period != Period(), "--state passes over nothing: give no period with it"),
        (typed["as_json"] and not somewhere, "--json goes with -o or --to"),
    ):
        if wrong:
            raise UsageError(words)


def _outlet(typed: dict[str, object], *, grows: bool) -> Outlet:
    form, output, to = str(typed["form"]), _file(typed["output"]), _text(typed["to"])
    if to is not None:
        host, port = parse_address(to)
        authority, certificate, key = (_file(typed[n]) for n in ("ca", "cert", "cert_key"))
        if authority is None or certificate is None or key is None:
            raise UsageError("a log server is given --ca, --cert and --cert-key", got="fewer")
        server = Server(host, port, authority, certificate, key, _text(typed["tls_name"]))
        return LogServer(server, platform.node())
    render: Callable[[AuditEvent], bytes] = {
        "fhir": fhir.ndjson_line,
        "jsonl": json_line,
        "dicom": lambda event: message(event) + b"\n",
    }[form]

    def whole(events: Sequence[AuditEvent]) -> bytes:
        return fhir.bundle(events) if typed["bundle"] else b"".join(map(render, events))

    if output is None:
        return Stream(sys.stdout.buffer, form, whole)
    return GrowingFile(output, form, render) if grows else WholeFile(output, form, whole)


def _look(ask: _Asked) -> tuple[Audited, ExportResult]:
    """Audit the ledger once, export what is due, and say so."""
    audited = audit(ask.ledger, key_file=ask.key, witness_file=ask.witness)
    try:
        done = export(audited, ask.outlet, ask.wish, datetime.now(UTC), ask.state)
    except OSError as error:
        raise InputDataError(
            "the export cannot be written", field=ask.outlet.name, got=error.strerror or "an error"
        ) from error
    if ask.as_json:
        echo_json(
            {
                "exported": done.events,
                "waiting": done.waiting,
                "alarm": done.alarm,
                "into": ask.outlet.name,
                "verdict": verdict_dict(audited),
            }
        )
    elif ask.told and not (ask.follow and done.events == 0):
        waiting = f", {done.waiting} wait for the witness" if done.waiting else ""
        click.echo(f"{counted(done.events, 'event')}{waiting}: {ask.outlet.name}")
    if done.alarm is not None and not ask.as_json:
        click.echo(f"{ALARMS[done.alarm]}. {verdict_line(audited)}", err=True)
    return audited, done


class _Follower:
    """Looks again and again; a server that is away is tried again, ever less often."""

    def __init__(self, ask: _Asked) -> None:
        self._ask = ask
        self._stop = stop_on_signals()

    def run(self) -> ExportResult:
        """Export until stopped, or until the ledger cannot be believed."""
        done, seen, wait = ExportResult(0), b"", self._ask.every
        while not self._stop.is_set():
            now = _checkpoint(self._ask.ledger)
            try:
                if now != seen or not now:
                    done = _look(self._ask)[1]
                    if done.alarm is not None:
                        return done
                seen, wait = now, self._ask.every
            except UnreachableError as error:
                wait = min(2 * wait, max(_LONGEST_WAIT_S, self._ask.every))
                click.echo(f"{error.diagnosis}; again in {wait:.0f} s", err=True)
            self._stop.wait(wait)
        return done


def _checkpoint(ledger: Path) -> bytes:
    """Return what changes with every record; empty where it cannot be read."""
    try:
        return Layout(ledger).checkpoint.read_bytes()
    except OSError:
        return b""


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _file(value: object) -> Path | None:
    return None if value is None else Path(str(value))
