"""``cairn-aggregator up``: Flower's two server programs, started, watched and stopped.

The SuperLink speaks TLS with the federation's certificate, asks every node for its
key, and answers other machines on the sites' paths only; the SuperExec runs the
ServerApp in processes of its own. Nothing is installed or fetched at run time.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from aggregator.admin.folder import FederationFolder, is_loopback
from aggregator.admin.relays import Member, members
from aggregator.handshake import insist_on_tls_1_3, listeners, trusting
from aggregator.rounds.server import FOLDER_VARIABLE
from aggregator.rounds.superlink import SuperLink
from aggregator.troubles import Troubles
from common.crypto.certificates import parse_node_public_key
from common.errors import InputDataError, InternalError, UnreachableError
from common.screen import OWN

Show = Callable[[str, str], None]
START_S = 180.0
"""For the SuperLink to start: a busy machine once took more than one minute."""
STOP_S = 10.0
POLL_S = 0.5
LOOK_S = 30.0
"""Between two looks at who may connect where nothing is said to have changed."""


def local_address(folder: FederationFolder) -> str:
    """host:port under which this machine itself reaches the SuperLink: always loopback."""
    settings = folder.settings()
    host = settings.bind_host if is_loopback(settings.bind_host) else "127.0.0.1"
    return f"[{host}]:{settings.port}" if ":" in host else f"{host}:{settings.port}"


def authority(folder: FederationFolder) -> bytes:
    """PEM of the federation's CA."""
    return (folder.pki / "ca.crt").read_bytes()


class Service:
    """The two programs of one federation, as children of this process.

    Args:
        folder: the federation's, or a relay's; what the programs write goes to
            ``flower/NAME.log`` in it.
        show: takes a program's name, and how it stands.
        members: tells who may connect, and who no longer may; of the folder when omitted.
    """

    def __init__(
        self,
        folder: FederationFolder,
        show: Show = lambda *_: None,
        members: Callable[[FederationFolder], Sequence[Member]] = members,
    ) -> None:
        self._folder = folder
        self._show = show
        self._members = members
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._troubles: dict[str, Troubles] = {}
        self._registered: set[str] = set()
        self._withdrawn: set[str] = set()
        self._seen, self._look_again = -1, 0.0

    def start(self) -> None:
        """Start both programs and wait until the SuperLink answers.

        Raises:
            InputDataError: the port is taken.
            InternalError: a program ended at once.
            UnreachableError: no answer within a minute.
        """
        settings = self._folder.settings()
        try:
            for listener in listeners(settings.bind_host, settings.port):
                listener.close()
        except OSError as error:
            raise InputDataError(
                "the aggregator cannot listen",
                field=f"{settings.bind_host}:{settings.port}",
                expected="a free port of this machine, and of its loopback",
                got=error.strerror or "an error",
                advice="Stop what listens there, or change federation.toml (a relay: --port)",
            ) from error
        pki, flower = self._folder.pki, self._folder.flower
        self._spawn(
            "superlink",
            [sys.executable, "-P", "-m", "aggregator.rounds.guarded_superlink"],
            {
                "--host": settings.bind_host,
                "--port": settings.port,
                "--ssl-ca-certfile": pki / "ca.crt",
                "--ssl-certfile": pki / "server.crt",
                "--ssl-keyfile": pki / "server.key",
                "--database": flower / "link.db",
                "--isolation": "process",
                "--superexec-auth-secret-file": flower / "superexec.key",
            },
            ["--enable-supernode-auth", "--disable-runtime-dependency-installation"],
        )
        self._wait_until_healthy()
        self._spawn(
            "superexec",
            ["flower-superexec"],
            {
                "--runtime-api-address": local_address(self._folder),
                "--root-certificates": pki / "ca.crt",
                "--superexec-auth-secret-file": flower / "superexec.key",
                "--parent-pid": os.getpid(),
            },
        )
        self.register_sites()

    def watch(self, stop: threading.Event, say: Show, look: Callable[[], None]) -> None:
        """Until ``stop`` is set: admit new sites' keys; end when a program does.

        Args:
            stop: ends it.
            look: called at every look, for what else is to be seen to.
            say: takes who says something, and what: this process, or a program's trouble.

        Raises:
            InternalError: one of the programs ended by itself.
        """
        while not stop.wait(POLL_S):
            for name in self.register_sites():
                say(OWN, f"{name} may connect")
            self._tell_troubles(say)
            self._check_children()
            look()
        self._tell_troubles(say)

    def _tell_troubles(self, say: Show) -> None:
        for name, troubles in self._troubles.items():
            for line in troubles.new():
                say(name, line)

    def register_sites(self) -> list[str]:
        """Tell the SuperLink the node keys of admitted sites it does not know yet.

        One that was revoked while nothing ran is disconnected before it can connect.
        """
        changed, now = self._folder.changed, time.monotonic()
        if changed == self._seen and now < self._look_again:
            return []
        everybody = self._members(self._folder)
        new = [m for m in everybody if not m.revoked and m.node_key not in self._registered]
        gone = [m for m in everybody if m.revoked and m.node_key not in self._withdrawn]
        if new or gone:
            with SuperLink(local_address(self._folder), authority(self._folder)) as link:
                for member in gone:
                    link.unregister(parse_node_public_key(member.node_key))
                    self._withdrawn.add(member.node_key)
                for member in new:
                    link.register(member.name, parse_node_public_key(member.node_key))
                    self._registered.add(member.node_key)
        self._seen, self._look_again = changed, now + LOOK_S
        return [member.name for member in new]

    def stop(self) -> None:
        """End both programs, by their process ids, the executor first."""
        for name, child in reversed(self._children.items()):
            child.terminate()
            self._show(name, "stopping")
        until = time.monotonic() + STOP_S
        for name, child in self._children.items():
            try:
                child.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            self._show(name, f"ended with exit {child.returncode}")
        self._children.clear()

    def _spawn(
        self,
        name: str,
        program: Sequence[str],
        options: Mapping[str, object],
        flags: Sequence[str] = (),
    ) -> None:
        words = [str(word) for option in options.items() for word in option]
        environment = {
            **os.environ,
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_HOME": str(self._folder.flower / "home"),
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "1.0",
            FOLDER_VARIABLE: str(self._folder.root.resolve()),
            # No file of the folder one stands in is ever taken for a module.
            "PYTHONSAFEPATH": "1",
            # Flower finds its own programs by name.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }
        path = self._folder.flower / f"{name}.log"
        self._troubles[name] = Troubles(path)
        with path.open("ab") as log:
            self._children[name] = subprocess.Popen(
                [*program, *words, *flags],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        self._show(name, f"runs (process {self._children[name].pid}); writes {name}.log")

    def _wait_until_healthy(self) -> None:
        host, port = local_address(self._folder).rsplit(":", 1)
        host = host.strip("[]")
        context = trusting(authority(self._folder))
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            self._check_children()
            try:
                with (
                    socket.create_connection((host, int(port)), timeout=2) as plain,
                    context.wrap_socket(plain, server_hostname=host),
                ):
                    break
            except OSError:
                time.sleep(0.1)
        else:
            raise UnreachableError(
                "the SuperLink does not answer", got=f"silence for {START_S:.0f} s"
            )
        advice = "Is flwr the pinned release, and uvicorn the one it came with?"
        insist_on_tls_1_3(host, int(port), "the SuperLink", advice)

    def _check_children(self) -> None:
        for name, child in self._children.items():
            if child.poll() is not None:
                raise InternalError(
                    f"the {name} ended by itself",
                    got=f"exit status {child.returncode}",
                    advice=f"See {self._folder.flower / name}.log",
                )
