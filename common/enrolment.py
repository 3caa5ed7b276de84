"""The two small files by which a site joins: an invite down, a request up.

An invite holds only public things and tells a site whom to trust. A request
holds only public keys; the private halves are made at the site and stay there.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import InputDataError
from common.plan import describe_validation
from common.wire.records import Digest, SiteName


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Invite(_Document):
    """What a coordinator hands to one site.

    Attributes:
        federation: its name.
        site: the name that the site will go by.
        address: host:port of the aggregator's Fleet API.
        ca_certificate: PEM of the federation's own authority.
        ca_sha256: digest of that certificate (DER), to be compared by telephone.
        witness_key: public key with which the aggregator signs orders and receipts.
        app_sha256: digest of the only Flower app that this site's courier will serve.
    """

    v: Literal[1] = 1
    federation: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    site: SiteName
    address: Annotated[str, Field(pattern=r"^[^\s/]{1,255}:[0-9]{1,5}$")]
    ca_certificate: Annotated[str, Field(max_length=20_000)]
    ca_sha256: Digest
    witness_key: Annotated[str, Field(max_length=200)]
    app_sha256: Digest


class JoinRequest(_Document):
    """What a site sends back: public keys only.

    Attributes:
        node_key: OpenSSH line of the key that authenticates the courier.
        ledger_key: public key that signs the site's checkpoints.
    """

    v: Literal[1] = 1
    federation: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    site: SiteName
    node_key: Annotated[str, Field(max_length=2000)]
    ledger_key: Annotated[str, Field(max_length=200)]


def read_invite(path: Path) -> Invite:
    """Read an invite file (TOML).

    Raises:
        InputDataError: unreadable or not valid.
    """
    try:
        return Invite.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise _explain(error, "the invite", path) from error


def read_request(path: Path) -> JoinRequest:
    """Read a join request (JSON).

    Raises:
        InputDataError: unreadable or not valid.
    """
    try:
        return JoinRequest.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise _explain(error, "the join request", path) from error


def _explain(error: Exception, what: str, path: Path) -> InputDataError:
    if isinstance(error, ValidationError):
        field, expected, got = describe_validation(error)
        return InputDataError(f"{what} is not valid", field=field, expected=expected, got=got)
    got = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    return InputDataError(
        f"cannot read {what}", field=str(path), got=got, advice="Ask the coordinator for a new one"
    )
