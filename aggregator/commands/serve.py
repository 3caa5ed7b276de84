"""``cairn-aggregator up``: Flower's programs and the desk, until told to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import click

from aggregator.admin.folder import FederationFolder, FederationSettings, is_loopback
from aggregator.commands.options import dir_option
from common.extras import require_extra
from common.screen import OWN, Screen
from common.waking import stop_on_signals

_PROGRAMS = ("superlink", "superexec", "desk")


@click.command()
@dir_option
def up(root: Path) -> None:
    """Run the aggregator: what sites and coordinators connect to. Ends with Ctrl-C or SIGTERM.

    A terminal shows a line for each program, and above them what happens; a file or
    systemd's journal gets plain lines: time, program, message. Of the logs of Flower's
    programs, DIR/flower/*.log, warnings and errors are shown too.
    """
    require_extra("aggregator")
    folder = FederationFolder(root)
    settings = folder.settings()
    stop = stop_on_signals()
    with Screen(_PROGRAMS) as screen:
        _serve(folder, settings, stop, screen)


def _serve(
    folder: FederationFolder, settings: FederationSettings, stop: threading.Event, screen: Screen
) -> None:
    """Everything between the first line and the last."""
    from aggregator.admin.server_certificate import (
        keep_warning,
        renew_server_certificate,
        server_certificate,
    )
    from aggregator.desk.server import DeskServer
    from aggregator.dispatch import Dispatcher
    from aggregator.service import Service

    say = partial(screen.say, OWN)
    service, desk = Service(folder, screen.state), DeskServer(folder)
    _warn(settings, say)
    days = renew_server_certificate(folder)
    if days is not None:
        say(f"The server certificate was renewed; good for {days} days.")
    else:
        certificate = server_certificate(folder)
        say(certificate.warning or f"The server certificate is good for {certificate.days} days.")
    threading.Thread(target=keep_warning, args=(folder, stop, say), daemon=True).start()
    stack = ExitStack()
    try:
        service.start()
        runs = stack.enter_context(Dispatcher(folder, say))
        desk.start()
        screen.state("desk", "answers sites that join, and coordinators")
        names = ", ".join(folder.admitted()) or "none admitted yet"
        say(f"Aggregator {settings.name} ready at {settings.address}; sites: {names}")
        for what, (host, port) in settings.listeners().items():
            say(f"listens for {what} at {host}:{port}")
        service.watch(stop, screen.say, runs.turn)
        say("stopping")
    finally:
        desk.stop()
        screen.state("desk", "ended")
        service.stop()
        stack.close()


def _warn(settings: FederationSettings, say: Callable[[str], None]) -> None:
    """Say what whoever reaches the SuperLink's port could do without a proxy before it."""
    if settings.behind_proxy and not is_loopback(settings.bind_host):
        say(
            f"Warning: behind_proxy is set, but bind_host {settings.bind_host} can be reached "
            "past the proxy. Set bind_host to 127.0.0.1."
        )
    elif not settings.behind_proxy and not is_loopback(settings.bind_host):
        say(
            f"Warning: the SuperLink listens on {settings.bind_host} without a proxy. It answers "
            "other machines under /v1/fleet/ and /health only, which it enforces itself; "
            "a reverse proxy in front (behind_proxy = true) is the stronger wall."
        )
