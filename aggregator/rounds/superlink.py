"""Flower's control interface, for what its command line would do in two seconds a call.

Registers the admitted sites' node keys and starts runs of the constant app.
The only module here that uses internal modules of the pinned flwr release.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from aggregator.handshake import trusting
from aggregator.rounds.app_digest import app_bundle
from common.errors import CairnError, RefusedError, UnreachableError


class SuperLink:
    """A running ``flower-superlink``, over TLS with the federation's own authority.

    Args:
        address: host:port as the coordinator's machine reaches it.
        authority: PEM of the CA.
    """

    def __init__(self, address: str, authority: bytes) -> None:
        self._client = ControlHttpClient(
            f"https://{address}",
            verify=trusting(authority),
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
        )
        self._client._client.follow_redirects = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def nodes(self) -> dict[bytes, tuple[int, str]]:
        """Node id and status by public key."""
        try:
            response = self._client.ListNodes(ListNodesRequest())
        except httpx.HTTPError as error:
            raise _explain(error) from error
        return {node.public_key: (node.node_id, node.status) for node in response.nodes_info}

    def online(self, keys: Mapping[str, ec.EllipticCurvePublicKey]) -> set[str]:
        """Name the keys that belong to a courier that is connected now."""
        nodes = self.nodes()
        absent = (0, "")
        return {
            name
            for name, key in keys.items()
            if nodes.get(public_key_to_bytes(key), absent)[1] == "online"
        }

    def register(self, name: str, key: ec.EllipticCurvePublicKey) -> None:
        """Let a site's courier connect; a key that is registered already stays so."""
        data = public_key_to_bytes(key)
        if data in self.nodes():
            return
        try:
            self._client.RegisterNode(RegisterNodeRequest(public_key=data, name=name))
        except httpx.HTTPError as error:
            raise _explain(error) from error

    def unregister(self, key: ec.EllipticCurvePublicKey) -> None:
        """End a site's connection; Flower never takes the same key again."""
        node, status = self.nodes().get(public_key_to_bytes(key), (None, ""))
        # A node that was withdrawn stays in the list, and withdrawing it again is an error.
        if node is None or status == "unregistered":
            return
        try:
            self._client.UnregisterNode(UnregisterNodeRequest(node_id=node))
        except httpx.HTTPStatusError as error:
            if error.response.status_code != httpx.codes.NOT_FOUND:  # gone meanwhile
                raise _explain(error) from error
        except httpx.HTTPError as error:
            raise _explain(error) from error

    def start_run(self, config: dict[str, str]) -> int:
        """Start the constant app and return Flower's id of the run."""
        bundle, digest = app_bundle()
        request = StartRunRequest(
            fab=fab_to_proto(Fab(digest, bundle, {})),
            override_config=user_config_to_proto(dict(config)),
        )
        try:
            return int(self._client.StartRun(request).run_id)
        except httpx.HTTPError as error:
            raise _explain(error) from error

    def stop_run(self, run_id: int) -> None:
        """Have Flower end a run; one that is over stays so."""
        try:
            self._client.StopRun(StopRunRequest(run_id=run_id))
        except httpx.HTTPStatusError:
            return  # it is over, or Flower does not know it
        except httpx.HTTPError as error:
            raise _explain(error) from error

    def has_ended(self, run_id: int) -> bool:
        """Tell whether Flower holds a run to be over."""
        try:
            response = self._client.ListRuns(ListRunsRequest(run_id=run_id))
        except httpx.HTTPError as error:
            raise _explain(error) from error
        run = response.run_dict.get(run_id)
        return run is None or bool(run.status.status == "finished")


def _explain(error: httpx.HTTPError) -> CairnError:
    if isinstance(error, httpx.HTTPStatusError):
        return RefusedError(
            "the SuperLink refused a request",
            field=error.request.url.path,
            got=f"HTTP {error.response.status_code}",
            advice="See flower/superlink.log in the federation's folder",
        )
    return UnreachableError(
        "the aggregator is not running here",
        got=type(error).__name__,
        advice="Start it: cairn-aggregator up",
    )
