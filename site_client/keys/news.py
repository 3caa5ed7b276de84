"""The courier's news of the federation key, as one file for the worker.

Public things and ciphertext for this site, exactly as the desk said them: nothing
in here is believed before ``trust`` and ``keeper`` have verified it.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import InputDataError
from common.settings import describe_validation
from common.wire.records import KeyId, SiteName
from site_client.files import write_atomically
from site_client.spool import Spool

MAX_NEWS_BYTES = 8 * 1024 * 1024
_Generation = Annotated[int, Field(ge=0, lt=2**31)]


class _News(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Newest(_News):
    """The newest key, by the desk's word.

    Attributes:
        generation: 0: no site has sealed a key yet.
        renew: a site that may have it was revoked.
    """

    generation: _Generation = 0
    key_id: KeyId | Literal[""] = ""
    renew: bool = False


class PeerNews(_News):
    """A site that the desk says is admitted.

    Attributes:
        join_request: JSON, as that site signed it.
        generation: newest that was sealed to it.
    """

    site: SiteName
    join_request: Annotated[str, Field(max_length=16_384)]
    generation: _Generation


class SealedNews(_News):
    """A key that the desk says was sealed to us; box and signature in hex."""

    for_site: SiteName
    from_site: SiteName
    key_id: KeyId
    generation: _Generation
    box: Annotated[str, Field(pattern=r"^([0-9a-f]{2}){1,4096}$")]
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


class KeyNews(_News):
    """One look at the desk."""

    v: Literal[1] = 1
    newest: Newest
    peers: Annotated[tuple[PeerNews, ...], Field(max_length=256, strict=False)]
    sealed: SealedNews | None = None

    def put(self, spool: Spool) -> None:
        """Write it for the worker; the file is whole or absent."""
        write_atomically(spool.key_news, self.model_dump_json().encode())

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Read what ``put`` wrote.

        Raises:
            InputDataError: it is something else.
        """
        if len(data) > MAX_NEWS_BYTES:
            raise _not_news("news", f"at most {MAX_NEWS_BYTES} bytes", f"{len(data)} bytes")
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise _not_news(*describe_validation(error)) from error


def _not_news(field: str, expected: str, got: str) -> InputDataError:
    return InputDataError(
        "what the courier brought about the federation key cannot be read",
        field=field,
        expected=expected,
        got=got,
    )
