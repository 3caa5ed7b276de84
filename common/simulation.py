"""The lines between a simulated federation and the processes that hold its sites.

One JSON line a question, one line an answer, in pipes between a process and the children it
started. Messages themselves lie in a folder that both see: an invite, an order or a request,
a reply, each named by its site, so that nothing large goes through the pipe and each side
holds one at a time. Nothing of a real federation ever comes this way.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import ValidationError

from common.arrivals.texts import json_of
from common.errors import InternalError
from common.settings import Frozen
from common.wire.records import Count, SiteName

Learner = Literal["none", "agent"]
"""What answers for a site: nothing that learns, or the agent on images that are made up."""
Verb = Literal["join", "answer"]
MOST_LINE_BYTES: Final = 65_536


class HubRequest(Frozen):
    """What one site shall do: join by its invite, or answer its order."""

    do: Verb
    site: SiteName


class Told(Frozen):
    """What came of it.

    Attributes:
        replied: whether a request or a reply lies in the folder.
        cpu_us: processor time that it took, microseconds.
        peak_bytes: largest resident size of the process so far.
    """

    site: SiteName
    replied: bool
    cpu_us: Count
    peak_bytes: Count


@dataclass(frozen=True)
class Post:
    """The folder between both sides."""

    root: Path

    def invite(self, site: str) -> Path:
        """Return the path of a site's invite."""
        return self.root / f"{site}.invite.toml"

    def request(self, site: str) -> Path:
        """Return the path of a site's request to be admitted."""
        return self.root / f"{site}.request.json"

    def order(self, site: str) -> Path:
        """Return the path of the order that a site shall answer."""
        return self.root / f"{site}.order"

    def reply(self, site: str) -> Path:
        """Return the path of a site's reply."""
        return self.root / f"{site}.reply"


def line_of(message: Frozen) -> bytes:
    """Return a message as a line."""
    return message.model_dump_json().encode() + b"\n"


def request_in(line: bytes) -> HubRequest:
    """Read a question.

    Raises:
        InternalError: the line is none.
    """
    try:
        return HubRequest.model_validate(json_of(line, MOST_LINE_BYTES))
    except (ValueError, ValidationError) as error:
        raise _no_message("a question", error) from error


def told_in(line: bytes) -> Told:
    """Read an answer.

    Raises:
        InternalError: the line is none.
    """
    try:
        return Told.model_validate(json_of(line, MOST_LINE_BYTES))
    except (ValueError, ValidationError) as error:
        raise _no_message("an answer", error) from error


def _no_message(what: str, error: Exception) -> InternalError:
    return InternalError(
        "a line between a simulation and its sites cannot be read",
        expected=what,
        got=type(error).__name__,
        advice="Are both of the same release of Cairn?",
    )
