"""Counters that the courier itself does not keep: the firewall's, or the kernel's.

Two forms of file are read, each made by one command on the machine that counts:

- what ``nft --json list counter inet cairn_courier sent`` prints, the counter of
  ``deploy/nftables/cairn-courier.nft``: bytes with the headers of IP and TCP;
- one JSON object ``{"v": 1, "layer": "ip" | "ethernet", "sent_bytes": n, "sent_packets": n}``,
  for every other firewall or switch: ``ethernet`` where 14 bytes more are counted per packet.

Counters start when they are made or reset. A file that began before the journal counts more
than the journal can explain; so does one of a network in which something else speaks.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from common.errors import InputDataError, VerificationError
from common.ledger.reading import read_regular
from common.settings import Frozen

MAX_COUNTERS_BYTES = 1 << 20
IP_AND_TCP = 20 + 20 + 12
"""Headers of a packet of IPv4 and TCP with timestamps, as Linux sends them."""
ETHERNET = 14


class _CountersForm(Frozen):
    v: Literal[1]
    layer: Literal["ip", "ethernet"]
    sent_bytes: Annotated[int, Field(ge=0, lt=2**53)]
    sent_packets: Annotated[int, Field(ge=0, lt=2**53)]


@dataclass(frozen=True)
class Counters:
    """Bytes that left, as somebody else counted them.

    Attributes:
        sent_bytes: with headers.
        sent_packets: their number, those that only acknowledge included.
        header: bytes of headers per packet.
    """

    sent_bytes: int
    sent_packets: int
    header: int

    @property
    def headers(self) -> int:
        """Bytes of headers altogether."""
        return self.sent_packets * self.header

    @property
    def content(self) -> int:
        """Bytes without headers, repeats included."""
        return max(0, self.sent_bytes - self.headers)


def read_counters(path: Path) -> Counters:
    """Read a file of counters, of either form.

    Raises:
        InputDataError: it cannot be read, or has neither form.
    """
    try:
        value = json.loads(read_regular(path, "counters", MAX_COUNTERS_BYTES))
    except (VerificationError, ValueError, RecursionError) as error:
        raise _not_counters(path) from error
    listed = _of_nft(value)
    if listed is not None:
        return listed
    try:
        form = _CountersForm.model_validate(value)
    except ValidationError as error:
        raise _not_counters(path) from error
    header = IP_AND_TCP + (ETHERNET if form.layer == "ethernet" else 0)
    return Counters(form.sent_bytes, form.sent_packets, header)


def _of_nft(value: Any) -> Counters | None:  # noqa: ANN401 - decoded JSON of anything
    """Return the sum of nft's counters named ``sent``; None if there are none."""
    entries = value.get("nftables") if isinstance(value, dict) else None
    if not isinstance(entries, list):
        return None
    counters = [
        entry["counter"]
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("counter"), dict)
    ]
    named = [counter for counter in counters if counter.get("name") == "sent"]
    if not all(type(c.get("bytes")) is int and type(c.get("packets")) is int for c in named):
        return None
    if not named:
        return None
    return Counters(sum(c["bytes"] for c in named), sum(c["packets"] for c in named), IP_AND_TCP)


def _not_counters(path: Path) -> InputDataError:
    return InputDataError(
        "not a file of counters",
        field=str(path),
        expected="what `nft --json list counter inet cairn_courier sent` prints, or "
        '{"v": 1, "layer": "ip", "sent_bytes": n, "sent_packets": n}',
        got="another file",
    )
