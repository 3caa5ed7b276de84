"""Flower's Fleet API as one site speaks it: activate, pull an order, push a reply.

Flower's own SuperNode would start an uploaded app for every message, poll
every three seconds and lose a message in flight when it dies. This is the same
protocol with the same node authentication and none of that. It uses internal
modules of the pinned flwr release, as ``pieces`` does and no other module here.

Failures come out sorted: only ``UnreachableError`` is worth another try.
"""

from __future__ import annotations

import ssl
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

import httpx
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectPushError
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.interceptors.http.utils import add_headers
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient

from common.errors import (
    CairnError,
    InputDataError,
    RefusedError,
    UnreachableError,
    VerificationError,
)
from common.journal import RequestJournal
from common.wire.objects import read_content
from site_client.courier.pieces import Pieces
from site_client.courier.wire import journalled_client
from site_client.probe import LARGEST_SKEW_S

HEARTBEAT_S = 20.0
"""What Flower is told: a courier that was silent for twice this is taken for dead."""
BEAT_EVERY_S = 0.8 * HEARTBEAT_S
"""One of two may be lost, as with Flower's own node. Idle, nothing costs a core more."""
ANSWER_S, CONNECT_S = 30.0, 3.0
"""A firewall that drops what it forbids must not look like a slow aggregator."""
_ECDSA = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)

_FOREIGN = dict.fromkeys((18, 19, 20, 21), "one by another authority")
"""What OpenSSL says in words about chains that end elsewhere, by its numbers of it."""
_CLOCK = "Check this machine's clock (NTP); if it is right, call the coordinator; nothing was sent"
_ADVICE = {
    0: "Compare the CA fingerprint with the coordinator by telephone; nothing was sent",
    9: _CLOCK,  # not yet valid
    10: _CLOCK,  # expired
}
"""What to do about a certificate, by OpenSSL's number of what is wrong with it."""


class RunOverError(VerificationError):
    """The run in question is no longer running; the connection is sound."""


class UnknownKeyError(VerificationError):
    """The aggregator does not accept our node key: not admitted, or revoked."""


@dataclass(frozen=True)
class Incoming:
    """A message from the aggregator.

    Attributes:
        message: Flower's message without its content: what is replied to.
        expires: Unix time after which nobody waits for the reply.
        parcel: that it carries.
        fault: why it carries none that can be read; None where it does.
        forget: has the SuperLink forget its pieces, once the order was taken in.
    """

    message: Message
    run_id: int
    expires: float
    parcel: bytes = b""
    fault: CairnError | None = None
    forget: Callable[[], None] = lambda: None


def message_stub(message: Message) -> bytes:
    """Reduce a message to what answers it after a restart; holds no content."""
    stub: bytes = message_to_proto(remove_content_from_message(message)).SerializeToString()
    return stub


def message_from_stub(data: bytes) -> Message:
    """Return the message that ``message_stub`` kept."""
    return message_from_proto(ProtoMessage.FromString(data))


def closed_reply(content: RecordDict, reply_to: Message, now: float) -> Message:
    """Return the reply to a message, with nothing in its metadata that could be chosen.

    Run, nodes, group, type and the message answered are the order's own; the id is a digest
    of the whole; times are whole seconds; an error is never sent.

    Args:
        content: of the reply.
        reply_to: what it answers.
        now: seconds since 1970.
    """
    reply = Message(content, reply_to=reply_to)
    metadata = reply.metadata.__dict__
    order = reply_to.metadata
    second = float(int(now))  # of both: how much is left must not tell the fraction of a second
    metadata["_created_at"] = second
    metadata["_ttl"] = float(max(1, int(order.created_at + order.ttl - second)))
    metadata["_message_id"] = reply.object_id
    return reply


class _NodeAuth:
    """Flower's node authentication without freedom: whole seconds, and RFC 6979 signatures.

    Args:
        key: of the node.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self._public = b64encode(public_key_to_bytes(key.public_key())).decode("ascii")

    def intercept(self, context: Any, call_next: Any) -> httpx.Response:  # noqa: ANN401 - Flower's
        """Sign the current second, and say who we are."""
        timestamp = datetime.now(UTC).replace(microsecond=0).isoformat()
        signature = self._key.sign(timestamp.encode("ascii"), _ECDSA)
        add_headers(
            context.request,
            {
                FLEET_HTTP_PUBLIC_KEY_HEADER: self._public,
                TIMESTAMP_HEADER: timestamp,
                FLEET_HTTP_SIGNATURE_HEADER: b64encode(signature).decode("ascii"),
            },
        )
        answer: httpx.Response = call_next(context)
        return answer


class Fleet:
    """One authenticated connection to the aggregator's Fleet API.

    Args:
        address: host:port.
        authority: PEM of the federation's CA; no other is trusted.
        node_key: OpenSSH private key of this site's courier.
        journal: in which every request stands before it is sent.
    """

    def __init__(
        self, address: str, authority: bytes, node_key: bytes, journal: RequestJournal
    ) -> None:
        key = load_ssh_private_key(node_key, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise InputDataError(
                "not a node key", field="node.key", expected="an elliptic-curve key", got="another"
            )
        self._public_key = public_key_to_bytes(key.public_key())
        self._node: Node | None = None
        self._app = (0, "")
        try:
            context = _trusting(authority)
            self._client = FleetHttpClient(
                f"https://{address}",
                verify=context,
                interceptors=[
                    RuntimeVersionHttpInterceptor(component_name="SuperNode"),
                    _NodeAuth(key),
                ],
            )
        except (ssl.SSLError, UnicodeDecodeError) as error:
            raise VerificationError(
                "the authority's certificate cannot be read",
                field="ca.crt",
                expected="PEM",
                got="other bytes",
            ) from error
        self._client._client.close()
        # One connection for all: who else waits for it waits as long as it takes.
        timeout = httpx.Timeout(ANSWER_S, connect=CONNECT_S, pool=None)
        self._client._client = journalled_client(journal, "flower", context, timeout)
        self._pieces = Pieces(self._client)

    def activate(self, known_node_id: int | None) -> int:
        """Go online and return the node's id.

        The aggregator refuses to activate a node that it believes to be online, which is
        so for a few seconds after a crash. A node that still knows its id then goes on
        where it was.

        Raises:
            VerificationError: the aggregator does not know this key, or TLS does not verify.
            UnreachableError: nobody answers.
        """
        request = ActivateNodeRequest(public_key=self._public_key, heartbeat_interval=HEARTBEAT_S)
        try:
            self._node = Node(node_id=self._client.ActivateNode(request).node_id)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != httpx.codes.PRECONDITION_FAILED:
                raise explain(error) from error
            if known_node_id is None:
                raise _unknown_key() from error
            self._node = Node(node_id=known_node_id)
            if not self.heartbeat():
                raise _unknown_key() from error
        except httpx.HTTPError as error:
            raise explain(error) from error
        return self._node.node_id

    def heartbeat(self) -> bool:
        """Tell the aggregator that this site lives; False when it no longer knows us."""
        try:
            response = self._client.SendNodeHeartbeat(
                SendNodeHeartbeatRequest(node=self._online(), heartbeat_interval=HEARTBEAT_S)
            )
        except httpx.HTTPError as error:
            raise explain(error) from error
        return bool(response.success)

    def pull(self) -> Incoming | None:
        """Return the next waiting message with its content, or None."""
        node = self._online()
        try:
            response = self._client.PullMessages(PullMessagesRequest(node=node))
            if not response.messages_list:
                return None
            bare = message_from_proto(response.messages_list[0])
            tree = response.message_object_trees[0]
            run_id = bare.metadata.run_id
            bare.metadata.__dict__["_message_id"] = tree.object_id
            expires = bare.metadata.created_at + bare.metadata.ttl
            try:
                parcel = self._parcel(node, run_id, tree)
            except RefusedError as error:
                self._forget(node, run_id, tree.object_id)
                return Incoming(bare, run_id, expires, fault=error)
            except ObjectPullError:
                self._forget(node, run_id, tree.object_id)
                raise
        except httpx.HTTPError as error:
            raise explain(error) from error
        except ObjectPullError as error:
            raise UnreachableError("a message did not arrive whole") from error
        forget = partial(self._forget, node, run_id, tree.object_id)
        return Incoming(bare, run_id, expires, parcel, forget=forget)

    def _forget(self, node: Node, run_id: int, name: str) -> None:
        """Have the SuperLink forget a message's pieces."""
        try:
            self._client.ConfirmMessageReceived(
                ConfirmMessageReceivedRequest(node=node, run_id=run_id, message_object_id=name)
            )
        except httpx.HTTPError as error:
            raise explain(error) from error

    def _parcel(self, node: Node, run_id: int, tree: ObjectTree) -> bytes:
        """Fetch a message's objects, and read the parcel in them.

        Raises:
            RefusedError: too many, too large, or anything but one parcel.
        """
        content = read_content(tree.object_id, self._pieces.pull(node, run_id, tree))
        if not isinstance(content, bytes):
            raise RefusedError("not an order", expected="a parcel", got="none")
        return content

    def app_digest(self, run_id: int) -> str:
        """SHA-256 of the app that a run names; it is never downloaded, and asked for once."""
        if run_id == self._app[0]:
            return self._app[1]
        try:
            response = self._client.GetRun(GetRunRequest(node=self._online(), run_id=run_id))
        except httpx.HTTPError as error:
            raise explain(error) from error
        self._app = (run_id, str(response.run.fab_hash))
        return self._app[1]

    def push(self, content: RecordDict, reply_to: Message) -> None:
        """Send the reply to a message."""
        node = self._online()
        reply = closed_reply(content, reply_to, time.time())
        try:
            with no_object_id_recompute():
                response = self._client.PushMessages(
                    PushMessagesRequest(
                        node=node,
                        messages_list=[message_to_proto(remove_content_from_message(reply))],
                        message_object_trees=[get_object_tree(reply)],
                        clientapp_runtime_list=[0.0],
                    )
                )
                self._pieces.push(
                    node,
                    reply.metadata.run_id,
                    response.session_id,
                    get_all_nested_objects(reply),
                    response.objects_to_push,
                )
        except httpx.HTTPError as error:
            raise explain(error) from error
        except ObjectPushError as error:
            raise UnreachableError("a reply did not arrive whole") from error

    def close(self) -> None:
        """Go offline; a failure to say so changes nothing."""
        if self._node is not None:
            try:
                self._client.DeactivateNode(DeactivateNodeRequest(node_id=self._node.node_id))
            except httpx.HTTPError:
                self._node = None
        self._client.close()

    def _online(self) -> Node:
        if self._node is None:
            raise UnreachableError("the courier is not online")
        return self._node


def _trusting(authority: bytes) -> ssl.SSLContext:
    """TLS 1.3 with the federation's own authority, whatever this machine trusts otherwise."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=authority.decode("ascii"))
    return context


def explain(error: httpx.HTTPError) -> CairnError:
    """Sort a transport failure: wrong for good, or worth another try."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return VerificationError(
                "the aggregator's certificate does not verify",
                field="server certificate",
                expected="one issued by this federation's authority (courier/ca.crt)",
                got=_FOREIGN.get(cause.verify_code) or cause.verify_message or "another",
                advice=_ADVICE.get(cause.verify_code, _ADVICE[0]),
            )
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        if status == httpx.codes.UNAUTHORIZED:
            return _not_accepted(error.response)
        if status == httpx.codes.FORBIDDEN:
            return RunOverError("the run is no longer running", got=f"HTTP {status}")
        if status < httpx.codes.INTERNAL_SERVER_ERROR:
            return VerificationError(
                "the aggregator refused a request",
                expected="an answer",
                got=f"HTTP {status}",
                advice="The run may be over; otherwise compare versions with the coordinator",
            )
        return UnreachableError("the aggregator is not well", got=f"HTTP {status}")
    return UnreachableError(
        "the aggregator cannot be reached",
        got=type(error).__name__,
        advice="Check address, firewall and whether `cairn-aggregator up` runs",
    )


def _not_accepted(answer: httpx.Response) -> VerificationError:
    """Explain a refused signature that holds: by its key, or by its time; the answer tells ours."""
    try:
        # The header counts whole seconds: on average half of one has passed.
        their_time = parsedate_to_datetime(answer.headers["date"]).timestamp() + 0.5
    except (KeyError, ValueError, OverflowError, TypeError):
        return _unknown_key()
    ahead = time.time() - their_time
    if abs(ahead) <= LARGEST_SKEW_S:
        return _unknown_key()
    return VerificationError(
        "this machine's clock is wrong, and every call is signed with the time",
        field="clock",
        expected="within 5 s of the aggregator's",
        got=f"one {abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}",
        advice="Set it (NTP on this machine), then start again",
    )


def _unknown_key() -> UnknownKeyError:
    return UnknownKeyError(
        "the aggregator does not accept this site's node key",
        field="courier/node.key",
        expected="a key that the coordinator admitted and did not revoke",
        got="one that is not admitted, or was revoked",
        advice="Ask the coordinator which; a revoked site needs an invite under a new name",
    )
