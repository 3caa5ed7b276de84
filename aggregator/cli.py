"""The ``cairn-aggregator`` command: a coordinator's whole work, one line each.

Parses, calls and prints; what is done lives in the rooms beside it.
"""

from __future__ import annotations

import signal
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console
from rich.table import Table

from aggregator.admin.enrol import admit as admit_site
from aggregator.admin.enrol import create_federation, make_invite, write_invite
from aggregator.admin.enrol import revoke as revoke_site
from aggregator.admin.folder import FederationFolder, FederationSettings
from aggregator.embedding.cli import codebook
from aggregator.report.live import status_json, status_table, watch
from aggregator.report.state import RunState, fold
from aggregator.rounds.embedding import CODEBOOK_FILE, GROUPS_FILE
from aggregator.rounds.events import read_events
from aggregator.rounds.pixels import CODEC_FILE, KEYS_FILE
from aggregator.rounds.store import JOURNAL_FILE, RunOptions, RunStore
from common.cli import echo_json, run
from common.crypto.certificates import (
    certificate_fingerprint,
    parse_node_public_key,
    read_certificate,
)
from common.crypto.identity import PublicKey
from common.enrolment import read_request
from common.errors import InternalError, UnreachableError
from common.plan import FederationPlan, read_plan
from common.schedule import schedule
from common.wire.rules import ANSWERS

_DIR = click.option(
    "--dir",
    "root",
    envvar="CAIRN_FEDERATION",
    default=".",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The federation's folder.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_RUN = click.argument("name", required=False, metavar="[RUN]")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Coordinate a federation: invite sites, start rounds, look at what came of them.

    \b
    A first run, from a desk:
      cairn-aggregator init fed --name brains --address fed.example.org:9443
      cairn-aggregator invite site-a --dir fed          -> site-a.invite.toml, for that site
      cairn-aggregator admit site-a.request.json --dir fed
      cairn-aggregator up --dir fed                     (leave it running)
      cairn-aggregator round start plan.toml --dir fed --min-sites 3 --watch

    Exit codes: 0 fine; 2 usage; 3 refused; 4 verification failed; 5 unreachable,
    or a round without its quorum; 6 bad input; 7 internal.
    """  # noqa: D301 - \b is click's, and must not be an escape


@cli.command()
@click.argument("root", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--name", required=True, help="The federation's name, lower case.")
@click.option(
    "--address", required=True, metavar="HOST:PORT", help="Where the sites will reach it."
)
@click.option("--bind", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--host", "hosts", multiple=True, help="A further name or address for the certificate."
)
def init(root: Path, name: str, address: str, bind: str, hosts: tuple[str, ...]) -> None:
    """Make a federation in DIR: authority, server certificate, witness key, settings."""
    folder = FederationFolder(root)
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise click.BadParameter(
            "must be HOST:PORT, e.g. fed.example.org:9443", param_hint="ADDRESS"
        )
    try:
        settings = FederationSettings(name=name, address=address, bind_host=bind, port=int(port))
    except ValueError as error:
        raise click.BadParameter(
            "a name is lower-case letters, digits and hyphens; a port is 1 to 65535"
        ) from error
    names = list(dict.fromkeys([host, "127.0.0.1", "localhost", *hosts]))
    create_federation(folder, settings, names)
    fingerprint = certificate_fingerprint(read_certificate(folder.pki / "ca.crt"))
    click.echo(f"Federation {name} made in {root}.")
    click.echo(f"CA fingerprint (read it to each site by telephone): {fingerprint}")
    click.echo(f"Next: cairn-aggregator invite SITE --dir {root}")


@cli.command()
@click.argument("site")
@_DIR
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: SITE.invite.toml.")
def invite(site: str, root: Path, output: Path | None) -> None:
    """Write the small file with which SITE joins. It holds nothing secret."""
    from aggregator.rounds.superlink import app_bundle

    path = output or Path(f"{site}.invite.toml")
    write_invite(path, make_invite(FederationFolder(root), site, app_bundle()[1]))
    click.echo(f"Wrote {path}. Send it to the site; there: cairn-site join {path.name} --data DIR")


@cli.command()
@click.argument("requests", nargs=-1, required=True, type=click.Path(path_type=Path))
@_DIR
def admit(requests: tuple[Path, ...], root: Path) -> None:
    """Accept the public keys that sites sent back (request.json)."""
    for path in requests:
        request = read_request(path)
        admit_site(FederationFolder(root), request)
        print_of_key = PublicKey.parse(request.ledger_key).fingerprint
        click.echo(f"Admitted {request.site}; fingerprint of its ledger key: {print_of_key}")


@cli.command()
@click.argument("site")
@_DIR
def revoke(site: str, root: Path) -> None:
    """Withdraw SITE: nothing it sends is accepted, and its key never returns."""
    from aggregator.start import connect

    folder = FederationFolder(root)
    request = revoke_site(folder, site)
    try:
        with connect(folder) as link:
            link.unregister(parse_node_public_key(request.node_key))
    except UnreachableError:
        click.echo("The aggregator does not run now; the site is refused when it does.")
    click.echo(f"Revoked {site}.")


@cli.command()
@_DIR
def up(root: Path) -> None:
    """Run the aggregator: the server that sites connect to. Ends with Ctrl-C or SIGTERM."""
    from aggregator.service import Service

    folder = FederationFolder(root)
    settings = folder.settings()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    service = Service(folder)
    try:
        service.start()
        names = ", ".join(service.register_sites() or folder.admitted()) or "none admitted yet"
        click.echo(f"Aggregator {settings.name} ready at {settings.address}; sites: {names}")
        service.watch(stop, click.echo)
    finally:
        service.stop()


@cli.group("round")
def round_() -> None:
    """Start a run from a plan, or go on with one."""


@round_.command("start")
@click.argument("plan_file", metavar="PLAN", type=click.Path(path_type=Path))
@_DIR
@click.option("--min-sites", type=click.IntRange(min=1), help="Wait for so many; default: all.")
@click.option("--wait", "wait_s", default=60.0, show_default=True, help="Seconds to wait for them.")
@click.option("--codec", type=_FILE, help="codec.json of a pixels run, for an embed plan.")
@click.option("--codebook", "book", type=_FILE, help="Labelled codebook, for an embed plan.")
@click.option("--watch", "follow", is_flag=True, help="Show the run until it ends.")
@_JSON
@click.pass_context
def start(
    context: click.Context,
    plan_file: Path,
    root: Path,
    min_sites: int | None,
    wait_s: float,
    codec: Path | None,
    book: Path | None,
    follow: bool,
    as_json: bool,
) -> None:
    """Validate PLAN, show what it will do, and start it."""
    from aggregator.start import start_run

    folder = FederationFolder(root)
    plan = read_plan(plan_file)
    files = {CODEC_FILE: codec, CODEBOOK_FILE: book}
    attached = {name: path.read_bytes() for name, path in files.items() if path is not None}
    wanted = min_sites or len(folder.admitted()) or 1
    if not as_json:
        _show_plan(plan, folder)
    options = RunOptions(min_sites=wanted, wait_s=wait_s)
    store, run_id = start_run(folder, plan, options, attached)
    _after_start(context, folder, store, run_id, follow=follow, as_json=as_json)


@round_.command("resume")
@_RUN
@_DIR
@click.option("--watch", "follow", is_flag=True, help="Show the run until it ends.")
@_JSON
@click.pass_context
def resume(
    context: click.Context,
    name: str | None,
    root: Path,
    follow: bool,
    as_json: bool,
) -> None:
    """Go on with an interrupted RUN (default: the newest) after its last finished round."""
    from aggregator.start import resume_run

    folder = FederationFolder(root)
    chosen = name or folder.latest_run()
    # What the journal says so far, its end included, is not the resumed run's.
    since = (folder.run(chosen) / JOURNAL_FILE).stat().st_size
    store, run_id = resume_run(folder, chosen)
    _after_start(context, folder, store, run_id, follow=follow, as_json=as_json, since=since)


@cli.command("watch")
@_RUN
@_DIR
@click.pass_context
def watch_(context: click.Context, name: str | None, root: Path) -> None:
    """Show RUN (default: the newest) as it goes on; a line per event when not a terminal."""
    folder = FederationFolder(root)
    journal = folder.run(name or folder.latest_run()) / JOURNAL_FILE
    watch(journal, Console(), threading.Event())
    context.exit(_exit_code(journal))


@cli.command()
@_RUN
@_DIR
@_JSON
def status(name: str | None, root: Path, as_json: bool) -> None:
    """The sites of RUN (default: the newest), what they sent, and how it stands."""
    folder = FederationFolder(root)
    state = _state(folder.run(name or folder.latest_run()))
    if as_json:
        echo_json(status_json(state))
    else:
        Console().print(status_table(state, now=datetime.now(UTC)))


@cli.command()
@_RUN
@_DIR
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
def report(name: str | None, root: Path, output: Path) -> None:
    """Write RUN (default: the newest) as one self-contained HTML file."""
    from aggregator.report.html import write_report

    folder = FederationFolder(root)
    write_report(output, _state(folder.run(name or folder.latest_run())))
    click.echo(f"Wrote {output}")


cli.add_command(codebook)


def _state(folder: Path) -> RunState:
    return fold(event for _, event in read_events(folder / JOURNAL_FILE))


def _exit_code(journal: Path) -> int:
    codes = [event.exit_code for _, event in read_events(journal) if event.event == "run_finished"]
    return codes[-1] if codes else 0


def _show_plan(plan: FederationPlan, folder: FederationFolder) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    limits = plan.limits
    most = max(len(ANSWERS[phase]) for phase in schedule(plan))
    for name, value in (
        ("plan", f"{plan.name} ({plan.kind}), fingerprint {plan.fingerprint[:16]}"),
        *_about_kind(plan),
        ("quorum", f"{plan.rounds.quorum} of {len(folder.admitted())} admitted sites"),
        ("deadline", f"{plan.rounds.deadline_s:g} s a round"),
        ("a site sends", f"at most {most * limits.max_envelope_bytes / 1e6:.1f} MB a round"),
    ):
        table.add_row(f"{name}  ", value)
    Console().print(table)


def _few(names: tuple[str, ...], shown: int = 8) -> str:
    """All names, or the first few and how many there are: a plan may have 256."""
    if len(names) <= shown:
        return ", ".join(names)
    return f"{', '.join(names[: shown - 2])}, … ({len(names)} in all)"


def _about_kind(plan: FederationPlan) -> list[tuple[str, str]]:
    """What the plan's own sections say, one line each."""
    limits, tier = plan.limits, f"privacy tier {plan.limits.privacy_tier}"
    if plan.kind == "pixels":
        asked = plan.pixels
        return [
            ("bands", _few(asked.bands)),
            ("codec", f"{asked.components} components of {asked.bins} bins"),
            ("rounds", ", ".join(schedule(plan)[1:])),
            ("sketches", f"3 of {asked.rows} x {asked.columns} cells, {tier}"),
            ("named", f"keys of {asked.key_pixels} pixels or more at {asked.key_sites} sites"),
        ]
    if plan.kind == "embed":
        return [
            ("codebook", plan.embed.codebook[:16]),
            ("groups", ", ".join(plan.embed.groups)),
            ("told", f"groups of {plan.embed.group_pixels} pixels or more"),
        ]
    sketch = plan.experience
    return [
        ("landmarks", ", ".join(plan.task.landmarks)),
        ("rounds", f"{plan.rounds.training} of {plan.agent.updates} updates, then an evaluation"),
        ("sketch", f"{sketch.rows} x {sketch.columns} cells, {tier}"),
        ("update norm", f"at most {limits.update_l2:g}"),
    ]


def _after_start(
    context: click.Context,
    folder: FederationFolder,
    store: RunStore,
    run_id: int,
    *,
    follow: bool,
    as_json: bool,
    since: int = 0,
) -> None:
    """Name the run, or follow it to its end and exit with its verdict's code."""
    from aggregator.start import guard

    if not follow:
        if as_json:
            echo_json({"run": store.name, "folder": str(store.folder)})
        else:
            click.echo(
                f"Started {store.name}. Follow it: cairn-aggregator watch --dir {folder.root}"
            )
        return
    stop, over = threading.Event(), threading.Event()
    arguments = (folder, store, run_id, stop, over)
    threading.Thread(target=guard, args=arguments, daemon=True).start()
    state = watch(store.journal, Console(stderr=as_json), over, since=since)
    stop.set()
    if not state.verdict:
        raise InternalError(
            "the run can no longer be watched",
            field=store.name,
            advice="See `cairn-aggregator status`, and superexec.log in the flower folder",
        )
    if as_json:
        echo_json(status_json(state))
    else:
        _say_what_was_kept(store)
    context.exit(_exit_code(store.journal))


def _say_what_was_kept(store: RunStore) -> None:
    """Where the documents of the last finished round lie, and what to do with them."""
    finished = store.finished_rounds()
    kept = store.round_folder(finished[-1]) if finished else store.folder
    if (kept / KEYS_FILE).exists():
        click.echo(f"Codec {kept / CODEC_FILE}; released keys {kept / KEYS_FILE}. Next:")
        click.echo(f"cairn-aggregator codebook build {kept / KEYS_FILE} -o codebook.json")
    if (kept / GROUPS_FILE).exists():
        click.echo(f"Pixels per group and site: {kept / GROUPS_FILE}")


def main() -> NoReturn:
    """Entry point."""
    run(cli)
