"""``cairn-aggregator up``: Flower's programs and the desk, until told to stop."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import click

from aggregator.admin.folder import FederationFolder, FederationSettings, is_loopback
from aggregator.commands.options import dir_option


@click.command()
@dir_option
def up(root: Path) -> None:
    """Run the aggregator: what sites and coordinators connect to. Ends with Ctrl-C or SIGTERM."""
    from aggregator.admin.server_certificate import (
        keep_warning,
        renew_server_certificate,
        server_certificate,
    )
    from aggregator.desk.server import DeskServer
    from aggregator.service import Service

    folder = FederationFolder(root)
    settings = folder.settings()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    service, desk = Service(folder), DeskServer(folder)
    _warn(settings)
    days = renew_server_certificate(folder)
    if days is not None:
        click.echo(f"The server certificate was renewed; good for {days} days.")
    else:
        certificate = server_certificate(folder)
        click.echo(
            certificate.warning or f"The server certificate is good for {certificate.days} days."
        )
    threading.Thread(target=keep_warning, args=(folder, stop, click.echo), daemon=True).start()
    try:
        service.start()
        desk.start()
        names = ", ".join(folder.admitted()) or "none admitted yet"
        click.echo(f"Aggregator {settings.name} ready at {settings.address}; sites: {names}")
        for what, (host, port) in settings.listeners().items():
            click.echo(f"  {what:<12} {host}:{port}")
        service.watch(stop, click.echo)
    finally:
        desk.stop()
        service.stop()


def _warn(settings: FederationSettings) -> None:
    """Say what whoever reaches the SuperLink's port could do without a proxy before it."""
    if settings.behind_proxy and not is_loopback(settings.bind_host):
        click.echo(
            f"Warning: behind_proxy is set, but bind_host {settings.bind_host} can be reached "
            "past the proxy. Set bind_host to 127.0.0.1.",
            err=True,
        )
    elif not settings.behind_proxy and not is_loopback(settings.bind_host):
        click.echo(
            f"Warning: the SuperLink listens on {settings.bind_host} without a proxy. It answers "
            "other machines under /v1/fleet/ and /health only, which it enforces itself; "
            "a reverse proxy in front (behind_proxy = true) is the stronger wall.",
            err=True,
        )
