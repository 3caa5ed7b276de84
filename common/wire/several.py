"""Several of Flower's calls for pieces in one: each a message as ever, its length before it.

An exchange of small parcels is mostly calls for pieces of a hundred bytes, each with its own
signature, its own line in a journal and its own trip through the SuperLink. Whoever knows no
such call refuses it, and is asked piece by piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from common.errors import RefusedError

PULL_PIECES: Final = "pull-objects"
PUSH_PIECES: Final = "push-objects"
MOST_PIECES: Final = 64
MOST_BYTES: Final = 2 << 20
"""Of pieces in one call; larger ones travel one by one."""
_LENGTH: Final = 4


def join(parts: Sequence[bytes]) -> bytes:
    """Return messages one after the other, each behind its length in four bytes."""
    return b"".join(len(part).to_bytes(_LENGTH, "big") + part for part in parts)


def split(data: bytes) -> list[bytes]:
    """Return the messages that ``join`` put together.

    Raises:
        RefusedError: none, too many, or bytes that belong to none.
    """
    parts: list[bytes] = []
    offset = 0
    while offset < len(data):
        begin = offset + _LENGTH
        end = begin + int.from_bytes(data[offset:begin], "big")
        if begin > len(data) or end > len(data) or len(parts) == MOST_PIECES:
            raise _refused(len(data))
        parts.append(data[begin:end])
        offset = end
    if not parts:
        raise _refused(0)
    return parts


def fits(sizes: Sequence[int]) -> bool:
    """Tell whether pieces of these sizes may travel in one call, and are worth it."""
    return 1 < len(sizes) <= MOST_PIECES and sum(sizes) <= MOST_BYTES


class Several:
    """What Flower's client takes for a message: it asks for the bytes, or gives them.

    Attributes:
        parts: the messages, each as bytes.
    """

    def __init__(self, parts: Sequence[bytes] = ()) -> None:
        self.parts = list(parts)

    def SerializeToString(self, *, deterministic: bool = True) -> bytes:  # noqa: ARG002, N802
        """Return the bytes of all."""
        return join(self.parts)

    def ParseFromString(self, data: bytes) -> None:  # noqa: N802 - as Flower calls it
        """Take the bytes of all; raises as ``split``."""
        self.parts = split(data)


def _refused(size: int) -> RefusedError:
    return RefusedError(
        "not several messages in one",
        field="pieces",
        expected=f"1 to {MOST_PIECES}, each behind its length",
        got=f"{size} bytes that are others",
    )
