"""The programs that go on until told to stop: worker, courier, and up, which runs both."""

from __future__ import annotations

import logging
import os
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from common.extras import require_extra
from common.reporter import Reporter
from common.screen import OWN, Screen
from common.waking import POLL_VARIABLE, stop_on_signals
from site_client.commands.options import site_option
from site_client.console import log_to
from site_client.notify import notify
from site_client.own_process import is_own
from site_client.site import SiteFolder
from site_client.spool import Spool

if TYPE_CHECKING:
    from site_client.courier import CarrierName, Ear


@click.command()
@site_option
@click.option("--once", is_flag=True, help="Answer what waits, then end: a batch job.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0, 86_400),
    default=0.0,
    metavar="SECONDS",
    help="With --once: how long to wait for a first order, and for a next one.",
)
def worker(root: Path, *, once: bool, wait_s: float) -> None:
    """Answer orders: images in, released records out; no network.

    Before it looks at anything it takes away from itself what it never needs: sockets, other
    programs, and writing outside of its own folders. `cairn-site check` tries whether it holds.
    Ends on SIGTERM; an order in hand is then worked on again after the next start.
    """
    if wait_s and not once:
        raise click.UsageError("--wait goes with --once; without it a worker waits for ever")
    require_extra("worker")
    from site_client.sandbox import confine, seal_environment

    site = SiteFolder(root)
    site.settings()
    log_to(site.worker_log)
    if is_own():
        seal_environment(site)
        confine(site)
    from site_client.worker.loop import Worker

    stop = stop_on_signals()
    with Reporter() as progress, Worker(site, stop, progress) as answering:
        notify(ready=True, status="waiting for orders")
        if not once:
            answering.run()
        else:
            answering.run(wait_s)


_carrier_option = click.option(
    "--carrier",
    type=click.Choice(["courier", "supernode"]),
    default="courier",
    show_default=True,
    help="Who holds the connection to the aggregator: the courier, or a stock flower-supernode "
    "that this network runs already. `cairn-site courier --carrier supernode` prints the line "
    "that starts it.",
)


@click.command()
@site_option
@_carrier_option
def courier(root: Path, carrier: CarrierName) -> None:
    """Carry orders in and released replies out; opens no image.

    Beside that: renews the certificate, carries the federation key as the worker sealed
    it, and takes the ledger's checkpoints to third witnesses.

    With --carrier supernode it waits for a flower-supernode, and says how to start one; that
    program runs whatever app the aggregator sends, so keep it from images and keys: the
    courier's user, never the worker's (deploy/README.md).
    """
    require_extra("courier")
    from site_client.courier import Ear, run_courier

    site = SiteFolder(root)
    enrolment = site.settings().enrolment
    log_to(None)
    stop = stop_on_signals()
    spool = Spool(site.spool)
    spool.prepare()
    ear = Ear(spool.outbox)
    if enrolment is not None:
        from site_client.enrol import keep_renewed
        from site_client.keys.carry import keep_carrying

        say = logging.getLogger("cairn.enrolment").warning
        threading.Thread(target=keep_renewed, args=(site, stop, say), daemon=True).start()
        threading.Thread(target=keep_carrying, args=(site, stop), daemon=True).start()
        if carrier == "courier":
            _listen(site, ear, stop)
    if site.settings().witness_policy is not None:
        from site_client.courier.wire import journalled_client
        from site_client.journal import open_journal
        from site_client.witnesses.carry import keep_witnessed

        connect = partial(journalled_client, open_journal(site), "witness")
        threading.Thread(target=keep_witnessed, args=(site, stop, connect), daemon=True).start()
    notify(ready=True, status="carrying")
    run_courier(site, stop, ear, carrier)


def _listen(site: SiteFolder, ear: Ear, stop: threading.Event) -> None:
    """Have the desk tell the courier when an order waits, unless everybody is to ask."""
    if os.environ.get(POLL_VARIABLE) == "1":
        return
    import numpy as np

    from site_client.listening import calls, keep_listening

    # Other sites come back at other times, and this one at the same.
    jitter = np.random.default_rng(list(site.settings().site.encode()))
    threading.Thread(
        target=keep_listening, args=(calls(site), ear, stop, jitter), daemon=True
    ).start()


@click.command()
@site_option
@_carrier_option
@click.pass_context
def up(ctx: click.Context, root: Path, carrier: CarrierName) -> None:
    """Run worker and courier as two processes, and start again the one that dies.

    A terminal shows a line for each, and above them what they say; a file or systemd's
    journal gets plain lines: time, process, message. Ends with Ctrl-C or SIGTERM.

    Exit codes: 0 stopped as asked; 2 or 4 a process found what no restart mends.
    """
    from site_client.supervise import Child, commands, keep_running

    site = SiteFolder(root)
    lines = commands(site.root, carrier)
    settings, stop = site.settings(), stop_on_signals()
    with Screen(list(lines)) as screen:
        say = partial(screen.say, OWN)
        say(f"{settings.site} of {settings.federation}; its orders come from {settings.receiver}")
        children = [
            Child(kind, line, say, partial(screen.state, kind), partial(screen.take, kind))
            for kind, line in lines.items()
        ]
        code = keep_running(children, stop, say)
    ctx.exit(code)
