"""Asking a witness, by whoever has the network: bounded, impatient, and believing nothing.

An answer is bytes and a number. What they are worth is judged elsewhere, against keys
that this room does not know. A witness may be slow, silent, endless or lying: none of it
costs more than ``ANSWER_S`` seconds and ``MAX_ANSWER_BYTES``. No redirect is followed, no
proxy or credential of the environment is used.
"""

from __future__ import annotations

import hashlib
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import httpx

from common.errors import CairnError, InputDataError, UnreachableError, VerificationError
from common.witness.policy_text import check_url
from common.witness.wire import ADD_CHECKPOINT, MAX_ANSWER_BYTES, TEXT_TYPE, Answer

ANSWER_S, CONNECT_S = 15.0, 3.0
Connect = Callable[[ssl.SSLContext, httpx.Timeout], httpx.Client]
"""Makes the client that requests go through: the courier's own writes each down before it
is sent, and counts what its sockets sent."""


def connect(trust: ssl.SSLContext, timeout: httpx.Timeout) -> httpx.Client:
    """Make a plain client, for an auditor's own questions: they carry nothing of a site's."""
    return httpx.Client(verify=trust, timeout=timeout, follow_redirects=False, trust_env=False)


class WitnessClient:
    """Asks witnesses, one question at a time.

    Args:
        authority: PEM of further authorities that are trusted for TLS, if any.
        answer_s: seconds in which an answer must be whole.
        connect: makes the client.
    """

    def __init__(
        self,
        authority: Path | None = None,
        answer_s: float = ANSWER_S,
        connect: Connect = connect,
    ) -> None:
        self._trust = _trust(authority)
        self._timeout = httpx.Timeout(answer_s, connect=min(CONNECT_S, answer_s))
        self._answer_s = answer_s
        self._connect = connect
        self._client: httpx.Client | None = None

    def add_checkpoint(self, url: str, body: bytes) -> Answer:
        """Ask the witness at ``url`` (its submission prefix) to cosign.

        Raises:
            UnreachableError: no whole answer in time; worth another try.
            VerificationError: its certificate does not verify, or the answer has no end.
            InputDataError: not an address.
        """
        return self._ask("POST", url, ADD_CHECKPOINT, body)

    def latest(self, url: str, origin: str) -> Answer:
        """Ask the witness at ``url`` for the last checkpoint of a log that it cosigned.

        Raises:
            UnreachableError, VerificationError, InputDataError: as ``add_checkpoint``.
        """
        digest = hashlib.sha256(origin.encode()).hexdigest()
        return self._ask("GET", url, f"{digest}/checkpoint", b"")

    def _ask(self, method: str, prefix: str, path: str, body: bytes) -> Answer:
        check_url(prefix, "url")
        url = f"{prefix.rstrip('/')}/{path}"
        # The next question may be hours away: no connection waits for it.
        headers = {"User-Agent": "cairn", "Accept-Encoding": "identity", "Connection": "close"}
        if body:
            headers["Content-Type"] = TEXT_TYPE
        client = self._client = self._client or self._connect(self._trust, self._timeout)
        # Reading has a limit per piece; one who sends a byte a second meets this one.
        watch = threading.Timer(self._answer_s, self._give_up, (client,))
        watch.start()
        try:
            with client.stream(method, url, content=body or None, headers=headers) as answer:
                data = _read(answer)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _explain(error) from error
        except CairnError:
            self._give_up(client)  # the rest of it is not waited for
            raise
        except (OSError, ValueError, RuntimeError) as error:
            raise _too_slow() from error  # closed under its hands
        finally:
            watch.cancel()
        return Answer(answer.status_code, data, answer.headers.get("content-type", ""))

    def _give_up(self, client: httpx.Client) -> None:
        """Close a client that takes too long, or too much; the next question makes another."""
        if self._client is client:
            self._client = None
        client.close()


def _read(answer: httpx.Response) -> bytes:
    data = b""
    for chunk in answer.iter_raw():
        data += chunk
        if len(data) > MAX_ANSWER_BYTES:
            raise VerificationError(
                "a witness's answer has no end",
                expected=f"at most {MAX_ANSWER_BYTES} bytes",
                got="more",
            )
    return data


def _trust(authority: Path | None) -> ssl.SSLContext:
    """Trust this machine's authorities and, if it is given, one more; TLS 1.3 only."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if authority is not None:
        try:
            context.load_verify_locations(cafile=authority)
        except (OSError, ssl.SSLError) as error:
            raise InputDataError(
                "the witnesses' authority cannot be read",
                field=str(authority),
                expected="certificates in PEM",
                got=type(error).__name__,
            ) from error
    return context


def _too_slow() -> UnreachableError:
    return UnreachableError("a witness did not answer in time", got="no whole answer")


def _explain(error: httpx.HTTPError | httpx.InvalidURL) -> CairnError:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return VerificationError(
                "a witness's certificate does not verify",
                expected="one by an authority that this machine trusts",
                got=cause.verify_message or "another",
                advice="Add its authority to courier/witnesses.crt, if the operator gave you it",
            )
        cause = cause.__cause__ or cause.__context__
    return UnreachableError(
        "a witness cannot be reached",
        got=type(error).__name__,
        advice="Check its address and the firewall",
    )
