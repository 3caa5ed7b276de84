"""Invites, and what their tokens let in: one set of keys, under one name, in time.

Only a token's SHA-256 is kept (it is 256 random bits, so there is nothing to
guess). The same keys with the same token get the same answer again, so that a
lost answer costs nothing; other keys with a used token get nothing.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aggregator.admin.certificates import certificate_of, issue_to_site
from aggregator.admin.enrol import admit_locked, check_keys, check_not_revoked, settle
from aggregator.admin.folder import COUNTS_AS, AdmittedSite, FederationFolder
from aggregator.admin.relays import DIRECT, forget_relay, put_behind, relay_of, standing_relay
from aggregator.admin.toml import as_toml
from common.canonical import sha256_hex
from common.crypto.certificates import certificate_fingerprint, certificate_to_pem, read_certificate
from common.crypto.identity import read_public_key
from common.enrolment import Invite, JoinRequest, parse_time
from common.errors import InputDataError, InternalError, RefusedError
from common.ledger.durable import replace_durably
from common.wire.bounds import MAX_IMAGES
from common.wire.records import Digest, SiteName

DAYS = 7
_NEW_INVITE = "Ask the coordinator for a new invite"


class Promise(BaseModel):
    """The aggregator's half of an invite.

    Attributes:
        site: the name that the token is for.
        expires: ISO 8601.
        auto_admit: whether the keys are admitted at once, or wait for the coordinator.
        images: what the site will count as; None: as it declares.
        used_by: digest of the join request that the token was spent on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: SiteName
    expires: str
    auto_admit: bool
    images: Annotated[int, Field(ge=1, le=MAX_IMAGES)] | None = None
    used_by: Digest | None = None


@dataclass(frozen=True)
class Enrolled:
    """A site's standing at enrolment.

    Attributes:
        state: admitted, or waiting for the coordinator.
        certificate: PEM; empty while waiting, or when the site never asked for one.
    """

    state: Literal["waiting", "admitted"]
    certificate: bytes = b""


def make_invite(
    folder: FederationFolder,
    site: str,
    app_sha256: str,
    *,
    days: int = DAYS,
    auto_admit: bool = True,
    by_mail: bool = False,
    images: int | None = None,
    relay: str = "",
    now: datetime | None = None,
) -> Invite:
    """Return the file that tells one site whom to trust, and lets its keys in once.

    Args:
        folder: the federation's.
        site: the name that the site will go by.
        app_sha256: of the only Flower app that its courier will serve.
        days: how long the token is good.
        auto_admit: admit the first keys that come with the token; otherwise they wait.
        by_mail: without a token: the request comes by another way, to `admit`.
        images: what the site will count as in an average; None: as it declares. Not by
            mail: then `admit` says it.
        relay: that the site will be behind; empty: as before; ``DIRECT``: none.
        now: the current time when omitted.

    Raises:
        InputDataError: not a federation's folder, or a site name that is not lower case.
        RefusedError: the name was revoked, or there is no such relay.
    """
    settings = folder.settings()
    relay = "" if relay == DIRECT else relay or relay_of(folder, site)
    address = standing_relay(folder, relay).address if relay else settings.address
    certificate = read_certificate(folder.pki / "ca.crt")
    token = secrets.token_urlsafe(32)
    expires = ((now or datetime.now(UTC)) + timedelta(days=days)).replace(microsecond=0)
    values = {
        "federation": settings.name,
        "site": site,
        "address": address,
        "ca_certificate": (folder.pki / "ca.crt").read_text(encoding="ascii"),
        "ca_sha256": certificate_fingerprint(certificate),
        "witness_key": read_public_key(folder.pki / "witness.pub").text,
        "app_sha256": app_sha256,
        "relay": relay or None,
    }
    if not by_mail:
        values["enrolment"] = settings.public_enrolment
        values |= {"token": token, "expires": expires.isoformat()}
    try:
        invite = Invite.model_validate(values)
    except ValueError as error:
        raise InputDataError(
            "not a name for a site",
            field="site",
            expected="1 to 32 lower-case letters, digits and hyphens",
            got=f"{len(site)} characters",
        ) from error
    check_not_revoked(folder, site)
    put_behind(folder, site, relay)
    if not by_mail:
        folder.invites.mkdir(mode=0o700, exist_ok=True)
        promise = Promise(
            site=site, expires=expires.isoformat(), auto_admit=auto_admit, images=images
        )
        _keep(_file(folder, token), promise)
    return invite


def invite_toml(invite: Invite) -> bytes:
    """Return an invite as a file."""
    return as_toml(invite.model_dump(), multiline=True)


def open_invites(folder: FederationFolder, now: datetime | None = None) -> dict[str, str]:
    """Say when the last unused token of each invited site ends (ISO 8601), by site."""
    moment = now or datetime.now(UTC)
    ends: dict[str, str] = {}
    for path in folder.invites.glob("*.json"):
        promise = _read(path)
        if promise.used_by is None and parse_time(promise.expires) > moment:
            ends[promise.site] = max(ends.get(promise.site, ""), promise.expires)
    return ends


def withdraw_invites(folder: FederationFolder, site: str) -> bool:
    """End every token for a name, and a request that waits under it.

    Returns:
        Whether there was anything to end.
    """
    with folder.locked():
        ended = [p for p in folder.invites.glob("*.json") if _read(p).site == site]
        ended += [p for p in folder.sites.glob("*/waiting.json") if p.parent.name == site]
        for path in ended:
            path.unlink()
        if site not in folder.known():
            (folder.sites / site / COUNTS_AS).unlink(missing_ok=True)
            forget_relay(folder, site)
    return bool(ended)


def enrol(
    folder: FederationFolder, token: str, request: JoinRequest, now: datetime | None = None
) -> Enrolled:
    """Let a site's keys in with a token.

    Raises:
        RefusedError: an unknown, used or expired token, one for another name, a request
            for another federation, a revoked name, or a name with other keys.
        VerificationError: the request is not signed by its own ledger key.
        InputDataError: a key that is no key, or keys that are missing.
    """
    _check_request(folder, request)
    path = _file(folder, token)
    with folder.locked():
        check_not_revoked(folder, request.site)
        promise = _promised(folder, token, request)
        if promise.used_by is None:
            _check_time(promise, now or datetime.now(UTC))
            _use(folder, path, promise, request)
        elif promise.used_by != request.digest:
            raise RefusedError(
                "this invite was used already",
                field="token",
                expected="one that no keys were enrolled with",
                got="one that other keys were enrolled with",
                advice=f"{_NEW_INVITE}, and tell them if it was not you who used this one",
            )
        return standing(folder, request)


def standing(folder: FederationFolder, request: JoinRequest) -> Enrolled:
    """Say how the site of a request stands.

    Raises:
        RefusedError: neither admitted nor waiting with these keys, or revoked.
    """
    check_not_revoked(folder, request.site)
    admitted = folder.admitted().get(request.site)
    if admitted is not None and admitted.request == request:
        certificate = certificate_of(admitted)
        return Enrolled("admitted", b"" if certificate is None else certificate_to_pem(certificate))
    if folder.waiting().get(request.site) == request:
        return Enrolled("waiting")
    raise RefusedError(
        "these keys are not known here",
        field="site",
        expected="keys that were enrolled or admitted",
        got="others",
        advice=_NEW_INVITE,
    )


def site_that_asks(folder: FederationFolder, name: str) -> JoinRequest:
    """Return the keys that a site is known by, whether admitted or waiting.

    Raises:
        RefusedError: not known, or revoked.
    """
    sites, waiting = folder.known(), folder.waiting()
    if name not in sites and name not in waiting:
        raise RefusedError(
            "no such site is known here",
            field="site",
            expected="one that was enrolled or admitted",
            got="another name",
            advice=_NEW_INVITE,
        )
    check_not_revoked(folder, name)
    return sites[name].request if name in sites else waiting[name]


def admitted_site(folder: FederationFolder, name: str) -> AdmittedSite:
    """Return a site that is admitted.

    Raises:
        RefusedError: it waits, is not known, or was revoked.
    """
    site_that_asks(folder, name)
    site = folder.admitted().get(name)
    if site is None:
        raise RefusedError(
            "this site is not admitted yet",
            field="site",
            got=name,
            advice=f"The coordinator has to: cairn-aggregator admit {name}",
        )
    return site


def _check_request(folder: FederationFolder, request: JoinRequest) -> None:
    if request.federation != folder.settings().name:
        raise RefusedError(
            "a request for another federation",
            field="federation",
            expected=folder.settings().name,
            got=request.federation,
        )
    for name in ("sealing_key", "tls_csr"):
        if getattr(request, name) is None:
            raise InputDataError(
                "the join request is not complete", field=name, expected="present", got="nothing"
            )
    request.verify()
    check_keys(request)


def _promised(folder: FederationFolder, token: str, request: JoinRequest) -> Promise:
    if not _is_known(folder, token):
        raise RefusedError(
            "this invite is not known here",
            field="token",
            expected="one of this federation",
            got="another token",
            advice=_NEW_INVITE,
        )
    promise = _read(_file(folder, token))
    if promise.site != request.site:
        raise RefusedError(
            "this invite is for another site",
            field="site",
            expected=promise.site,
            got=request.site,
            advice=_NEW_INVITE,
        )
    return promise


def _check_time(promise: Promise, now: datetime) -> None:
    if parse_time(promise.expires) <= now:
        raise RefusedError(
            "this invite has expired",
            field="expires",
            expected="a time to come",
            got=promise.expires,
            advice=_NEW_INVITE,
        )


def _use(folder: FederationFolder, path: Path, promise: Promise, request: JoinRequest) -> None:
    known_site = folder.known().get(request.site)
    if known_site is not None and known_site.request == request:
        # Seen again by a person who made a new invite: the same keys get a fresh certificate.
        issue_to_site(folder, request)
        if promise.images is not None:
            settle(known_site.samples_file, promise.images)
    elif promise.auto_admit or known_site is not None:
        admit_locked(
            folder, request, promise.images
        )  # refuses other keys under a name that has some
    else:
        site = folder.sites / request.site
        site.mkdir(parents=True, exist_ok=True)
        if promise.images is not None:
            settle(site / COUNTS_AS, promise.images)
        replace_durably(site / "waiting.json", request.to_json())
    # Last: whoever is interrupted before this may try again with the same keys.
    _keep(path, promise.model_copy(update={"used_by": request.digest}))


def _is_known(folder: FederationFolder, token: str) -> bool:
    """Compare a token's digest with every one that is kept, in the same time whichever it is."""
    name, matches = _file(folder, token).name, False
    for path in folder.invites.glob("*.json"):
        matches |= secrets.compare_digest(path.name.encode(), name.encode())
    return matches


def _file(folder: FederationFolder, token: str) -> Path:
    return folder.invites / f"{sha256_hex(token.encode('utf-8', 'replace'))}.json"


def _keep(path: Path, promise: Promise) -> None:
    replace_durably(path, promise.model_dump_json().encode())


def _read(path: Path) -> Promise:
    try:
        return Promise.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise InternalError(
            "a kept invite cannot be read", field=path.name, got=type(error).__name__
        ) from error
