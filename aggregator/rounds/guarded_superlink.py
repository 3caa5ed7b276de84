"""``flower-superlink`` with one door more: other machines reach the sites' paths and no others.

Flower's open build lets whoever reaches the port start runs and take tasks. Here
everything but ``/v1/fleet/*`` and ``/health`` is answered only on this machine: to a
peer with a loopback address, or with the very address that it connected to. Behind
a reverse proxy every peer is on this machine, and the proxy's path list decides.

Uses the extension hook of the pinned flwr release: a module of a fixed name.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from types import ModuleType
from typing import Any

from starlette.middleware import Middleware

HOOK = "flwr.ee.superlink.extensions"
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def may_pass(path: str, client: str | None, server: str | None) -> bool:
    """Tell whether a request is answered.

    Args:
        path: of the request.
        client: address of the peer, or what a proxy on this machine says it is.
        server: address that was connected to.
    """
    plain = "/../" not in path and "//" not in path
    if plain and (path == "/health" or path.startswith("/v1/fleet/")):
        return True
    try:
        peer = ipaddress.ip_address(client or "")
    except ValueError:
        return False
    return peer.is_loopback or client == server


class SitesOnly:
    """ASGI middleware around the whole SuperLink.

    Args:
        app: what is guarded.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 403 with nothing in it."""
        if scope["type"] == "lifespan" or may_pass(
            str(scope.get("path", "")), _host(scope, "client"), _host(scope, "server")
        ):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b""})


def _host(scope: Scope, end: str) -> str | None:
    address = scope.get(end)
    return str(address[0]) if address else None


def install() -> None:
    """Have the SuperLink find the guard where it looks for extensions."""
    hook = ModuleType(HOOK)
    vars(hook)["get_middleware"] = lambda: (Middleware(SitesOnly),)
    sys.modules[HOOK] = hook


def main() -> None:
    """``flower-superlink``, guarded; ends if the guard is not in place."""
    install()
    from flwr.superlink import extensions
    from flwr.superlink.cli import flower_superlink

    if "SitesOnly" not in {getattr(m.cls, "__name__", "") for m in extensions.get_middleware()}:
        sys.exit("the guard before the SuperLink is not in place; is flwr the pinned release?")
    flower_superlink()


if __name__ == "__main__":
    main()
