"""``flower-superlink`` with one door more: other machines reach the sites' calls and no others.

Flower's open build lets whoever reaches the port start runs and take tasks. Here a closed
list decides. The calls that a courier makes are answered to everybody; Flower's own
programs come over this machine's loopback and to its loopback address, both ends of it.
That a peer has the address it connected to proves nothing: behind the user-mode networks
of rootless containers every stranger has. So the SuperLink listens on loopback too,
wherever else it listens, and speaks TLS 1.3 only.

It also sees when the last piece of a reply has come, and rings for the ServerApp, which
then need not ask every second (``completed``); and it holds the SuperExec's question whether
a run is to begin until one was started (``held``).

Behind a reverse proxy of this machine the proxy says who asks, and its path list decides
before this one. Uses the extension hook of the pinned flwr release, a module of a fixed
name, and stands in for the one call with which it starts its server.
"""

from __future__ import annotations

import os
import re
import signal
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any, Final

import httpx
import uvicorn
from starlette.middleware import Middleware

from aggregator.admin.folder import FederationFolder, is_loopback
from aggregator.bells import ring
from aggregator.handshake import listeners
from aggregator.rounds.completed import FOLLOWED, MOST_BODY, PUSH_MESSAGES, Completed
from aggregator.rounds.held import ACQUIRE, START, Held, rest
from aggregator.rounds.server import FOLDER_VARIABLE, REPLY_BELL
from aggregator.rounds.short_road import is_short, remember_signatures, sweep_seldom, travel
from common.wire.several import PULL_PIECES, PUSH_PIECES

TICKS: Final = 5
"""Of uvicorn's tenths of a second between two looks whether to stop; divides ten."""
PARENT_S, GRACE_S = 1.0, 5.0
"""Between two looks for the process that started this one; for an orderly end after it."""
HOOK = "flwr.ee.superlink.extensions"
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

FOR_SITES: Final = frozenset(
    {
        "/health",
        *(
            f"/v1/fleet/{call}"
            for call in (
                "activate-node",
                "confirm-message-received",
                "deactivate-node",
                "get-fab",  # asked by a stock SuperNode: the app, which is constant and no secret
                "get-run",
                "pull-messages",
                "pull-object",
                "push-messages",
                "push-object",
                PULL_PIECES,
                PUSH_PIECES,
                "send-node-heartbeat",
            )
        ),
    }
)
"""Every call of ``site_client.courier.fleet`` or of a stock SuperNode, and whether we live."""
_FOR_OURSELVES: Final = re.compile(r"/v1/(control|runtime)/[a-z]+(-[a-z]+)*")


def may_pass(path: str, client: str | None, server: str | None) -> bool:
    """Tell whether a request is answered.

    Args:
        path: of the request, decoded.
        client: address of the peer, or what a proxy on this machine says it is.
        server: address that was connected to.
    """
    if path in FOR_SITES:
        return True
    ours = _FOR_OURSELVES.fullmatch(path) is not None
    return ours and all(end != "localhost" and is_loopback(end or "") for end in (client, server))


class SitesOnly:
    """ASGI middleware around the whole SuperLink.

    Args:
        app: what is guarded.
        completed: follows replies until they are complete; nobody does when omitted.
        held: holds the SuperExec's questions.
    """

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        completed: Completed | None = None,
        held: Held | None = None,
    ) -> None:
        self._app = app
        self._held = held or Held()
        self._completed = completed or Completed(lambda: None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 403 with nothing in it."""
        path = str(scope.get("path", ""))
        if scope["type"] == "lifespan" or may_pass(
            path, _host(scope, "client"), _host(scope, "server")
        ):
            if path in FOLLOWED:
                await self._follow(path, scope, receive, send)
            elif path == ACQUIRE:
                await self._pass_on(scope, await self._held.hold(receive), send)
            elif path == START:
                await self._pass_on(scope, receive, send)
                self._held.started()
            else:
                await self._pass_on(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have it answered, by the shorter of the two roads."""
        if scope["type"] == "http" and is_short(scope):
            await travel(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _follow(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a push on, and take it up when it was answered well."""
        answer, status = bytearray(), 0

        async def overhear(message: Message) -> None:
            nonlocal status
            status = int(message.get("status", status))
            if path == PUSH_MESSAGES and len(answer) <= MOST_BODY:
                answer.extend(message.get("body", b""))
            await send(message)

        # Flower keeps what it has read of a request here, for its own parts.
        state = scope.setdefault("state", {})
        await self._pass_on(scope, receive, overhear)
        if status == httpx.codes.OK:
            for request in state.get("pieces") or [state.get("protobuf_request")]:
                self._completed.note(request, bytes(answer))


def _host(scope: Scope, end: str) -> str | None:
    address = scope.get(end)
    return str(address[0]) if address else None


def install() -> None:
    """Have the SuperLink find the guard where it looks for extensions."""
    hook = ModuleType(HOOK)
    completed = Completed(_bell())
    vars(hook)["get_middleware"] = lambda: (Middleware(SitesOnly, completed=completed),)
    sys.modules[HOOK] = hook
    remember_signatures()
    sweep_seldom()


def _bell() -> Callable[[], None]:
    """Return what rings for the ServerApp of the federation that the environment names."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return lambda: None
    return partial(ring, FederationFolder(Path(folder)).reply_bells, (REPLY_BELL,))


def tls_1_3(_: uvicorn.Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """Return the server's context, which takes no older TLS."""
    context = default()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


class Server(uvicorn.Server):
    """Uvicorn's, whose clock ticks twice a second in place of ten times, day and night."""

    async def main_loop(self) -> None:
        """Tick until it is to stop; the answers' date is still renewed every second."""
        ticks = 0
        while not await self.on_tick(ticks):
            await rest(TICKS / 10)
            ticks = (ticks + TICKS) % 864_000


def serve(*, host: str, port: int, **options: Any) -> None:  # noqa: ANN401 - uvicorn's own
    """Stand in for ``uvicorn.run``: our sockets, and TLS 1.3."""
    config = uvicorn.Config(host=host, port=port, ssl_context_factory=tls_1_3, **options)
    server = Server(config)
    server.run(sockets=listeners(host, port))
    if not server.started:
        sys.exit(1)


def end_with(parent: int, every_s: float = PARENT_S) -> None:
    """End this process once its parent has: whoever is started next needs the port.

    Args:
        parent: process id.
        every_s: between two looks.
    """
    while os.getppid() == parent:
        time.sleep(every_s)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """``flower-superlink``, guarded; ends if the guard is not in place, and with its parent."""
    Thread(target=end_with, args=(os.getppid(),), name="parent", daemon=True).start()
    install()
    from flwr.superlink import extensions
    from flwr.superlink.cli import flower_superlink as program

    if "SitesOnly" not in {getattr(m.cls, "__name__", "") for m in extensions.get_middleware()}:
        sys.exit("the guard before the SuperLink is not in place; is flwr the pinned release?")
    uvicorn.run = serve  # type: ignore[assignment]  # by keywords only, as flwr calls it
    program()


if __name__ == "__main__":
    main()
