"""Joining a federation: an invite in, a site folder and a request out.

Every private key is made here, on the site's own disk, and stays there. The
request holds public keys and a count of images, signed by the ledger key; no image is
opened. Keys are never made anew: whoever joins again, interrupted or with another
invite, keeps them. No network is used here; ``site_client.enrol`` sends the request.
Whether the invite is the coordinator's own is for two people to compare aloud.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from common.crypto.certificates import (
    certificate_fingerprint,
    generate_node_key,
    node_public_line,
    parse_certificate,
    read_certificate,
    read_node_key,
    read_tls_key,
    write_certificate,
    write_node_key,
    write_tls_key,
)
from common.crypto.clients import create_signing_request, generate_client_key
from common.crypto.exchange import OpeningKey, read_opening_key, write_opening_key
from common.crypto.identity import (
    PublicKey,
    SigningKey,
    read_public_key,
    read_signing_key,
    write_public_key,
    write_signing_key,
)
from common.crypto.keyed import FederationKey, read_federation_key, write_federation_key
from common.enrolment import Invite, JoinRequest, read_request
from common.errors import InputDataError, RefusedError, VerificationError
from common.wire.bounds import MAX_IMAGES
from site_client.egress.policy import default_policy_text
from site_client.files import write_atomically
from site_client.heldout.memory import begin_memory
from site_client.site import SiteFolder, SiteSettings
from site_client.spool import Spool

_Key = TypeVar("_Key")


@dataclass(frozen=True)
class Joined:
    """The result of joining, as a person is told.

    Attributes:
        request: file to send to the coordinator.
        ca_sha256: to be compared with the coordinator by telephone.
        witness: fingerprint of the key that signs orders and receipts; likewise.
        ledger: fingerprint of this site's own ledger key, for the coordinator to compare.
        has_federation_key: whether the key that all sites share is here already.
        images: how many the request says there are; None if it says nothing.
    """

    request: Path
    ca_sha256: str
    witness: str
    ledger: str
    has_federation_key: bool
    images: int | None = None


def check_invite(invite: Invite) -> PublicKey:
    """The witness key of an invite that agrees with itself.

    Raises:
        VerificationError: the certificate is not the one the digest names.
        InputDataError: no certificate, or no key.
    """
    digest = certificate_fingerprint(parse_certificate(invite.ca_certificate.encode("utf-8")))
    if digest != invite.ca_sha256:
        raise VerificationError(
            "the invite contradicts itself",
            field="ca_certificate",
            expected=f"the certificate with SHA-256 {invite.ca_sha256[:16]}…",
            got="another certificate",
            advice="Ask the coordinator for a new invite, over another channel",
        )
    return PublicKey.parse(invite.witness_key)


def join(
    invite: Invite,
    site: SiteFolder,
    data: Path,
    shared: FederationKey | None = None,
    images: int | None = None,
) -> Joined:
    """Make keys and folders, and the request for the coordinator.

    Args:
        invite: of the coordinator.
        site: where the site folder comes to lie; created.
        data: folder of images; it must exist and is not written to.
        shared: the federation key, or None to bring it later.
        images: how many to say there are; None: as many as can be counted.

    Raises:
        InputDataError: no such data folder, or the folder holds a site already.
        VerificationError: the invite contradicts itself.
    """
    witness = check_invite(invite)
    if not data.is_dir():
        raise InputDataError(
            "no data folder",
            field=str(data),
            expected="a folder of images",
            got="nothing there",
            advice="Check the path, and that its volume is mounted",
        )
    if site.settings_file.exists():
        raise InputDataError(
            "this folder holds a site already",
            field=str(site.settings_file),
            expected="absent",
            got="a file",
            advice="Choose another --site-dir, or move the old site away",
        )
    for folder in (site.root, site.worker, site.courier):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    Spool(site.spool).prepare()
    _trust(site, invite, witness)
    if shared is not None and not site.federation_key.exists():
        write_federation_key(site.federation_key, shared)
    if not site.policy_file.exists():
        write_atomically(site.policy_file, default_policy_text().encode("utf-8"))
    if not site.held_out.exists():
        begin_memory(site.held_out)
    ledger_key = _make_keys_and_request(site, invite, data, images)
    # Last: only a complete folder is a site.
    write_atomically(site.settings_file, settings_text(_settings(invite, site, data)))
    return _joined(site, invite, witness, ledger_key)


def join_again(invite: Invite, site: SiteFolder, data: Path, images: int | None = None) -> Joined:
    """Make ready to send the request of a site that joined before; its keys stay.

    What the invite says about addresses and the app replaces what was known. A site of
    an earlier release gets the keys that it lacks.

    Args:
        invite: of the same federation, for the same name.
        site: a complete site folder.
        data: as it was when the site joined.
        images: how many to say there are; None: as many as were said then.

    Raises:
        RefusedError: the folder is another federation's, or another site's.
        InputDataError: another folder of images than before.
        VerificationError: the invite contradicts itself, or names another authority.
    """
    witness, settings = check_invite(invite), site.settings()
    if (settings.federation, settings.site) != (invite.federation, invite.site):
        raise RefusedError(
            "this folder is another site's",
            field=str(site.settings_file),
            expected=f"{invite.site} of {invite.federation}",
            got=f"{settings.site} of {settings.federation}",
            advice="Choose another --site-dir",
        )
    if site.data() != data.resolve():
        raise InputDataError(
            "this site has other images",
            field="--data",
            expected=str(site.data()),
            got="another folder",
            advice=f"Name the same folder, or change `data` in {site.settings_file}",
        )
    _trust(site, invite, witness)
    ledger_key = _make_keys_and_request(site, invite, data, images)
    known = {"witness_policy": settings.witness_policy}
    now = _settings(invite, site, data).model_copy(update=known)
    if settings.model_copy(update={"data": now.data}) != now:
        write_atomically(site.settings_file, settings_text(now))
    return _joined(site, invite, witness, ledger_key)


def _joined(site: SiteFolder, invite: Invite, witness: PublicKey, key: SigningKey) -> Joined:
    return Joined(
        request=site.request_file,
        ca_sha256=invite.ca_sha256,
        witness=witness.fingerprint,
        ledger=key.public.fingerprint,
        has_federation_key=site.federation_key.exists(),
        images=read_request(site.request_file).images,
    )


def _trust(site: SiteFolder, invite: Invite, witness: PublicKey) -> None:
    """Write whom the site trusts, once; another authority later is another federation."""
    if not site.witness_key.exists():
        write_public_key(site.witness_key, witness)
    if not site.authority.exists():
        write_certificate(site.authority, parse_certificate(invite.ca_certificate.encode()))
    trusted = certificate_fingerprint(read_certificate(site.authority))
    if trusted != invite.ca_sha256 or read_public_key(site.witness_key) != witness:
        raise VerificationError(
            "the invite names another authority than the one this site joined",
            field="ca_sha256, witness_key",
            expected=f"CA {trusted[:16]}…",
            got=f"CA {invite.ca_sha256[:16]}…",
            advice="Ask the coordinator by telephone whether the federation was made anew",
        )


def count_images(data: Path) -> int:
    """Count the cases, or else slides, of a data folder; opens none.

    0 of an empty folder, and of one that cannot be counted: `cairn-site check` says why.
    """
    try:
        from site_client.imaging.folders import find_cases
        from site_client.worker.slide_folder import find_slides
    except ImportError:
        return 0  # installed for the courier alone, where no image can be read
    for find in (find_cases, find_slides):
        try:
            return min(len(find(data)), MAX_IMAGES)
        except (InputDataError, OSError):
            continue
    return 0


def _make_keys_and_request(
    site: SiteFolder, invite: Invite, data: Path, images: int | None = None
) -> SigningKey:
    """The keys that are there, or new ones; and a request that says all of them, signed."""
    ledger_key = _key(site.ledger_key, read_signing_key, SigningKey.generate, write_signing_key)
    node_key = _key(site.node_key, read_node_key, generate_node_key, write_node_key)
    opening = _key(site.sealing_key, read_opening_key, OpeningKey.generate, write_opening_key)
    tls_key = _key(site.tls_key, read_tls_key, generate_client_key, write_tls_key)
    _tell_courier(site, ledger_key.public)
    path = site.request_file
    before = read_request(path) if path.exists() else None
    if images is None:
        # Said once: with another count it would not be the request that was sent before.
        images = count_images(data) if before is None else before.images
    request = JoinRequest(
        federation=invite.federation,
        site=invite.site,
        node_key=node_public_line(node_key),
        ledger_key=ledger_key.public.text,
        sealing_key=opening.public.text,
        # A signing request is never the same twice; the one that was sent stays.
        tls_csr=(before and before.tls_csr)
        or create_signing_request(tls_key, invite.site).decode(),
        images=images,
    ).signed(ledger_key)
    if request != before:
        write_atomically(path, request.to_json())
    return ledger_key


def _tell_courier(site: SiteFolder, public: PublicKey) -> None:
    """Give the courier the ledger's public key; its own door holds every release to it."""
    if not site.courier_ledger_key.exists():
        write_public_key(site.courier_ledger_key, public)
    elif read_public_key(site.courier_ledger_key) != public:
        raise VerificationError(
            "the courier knows another ledger key than the worker has",
            field=str(site.courier_ledger_key),
            expected=f"the key {public.fingerprint[:16]}",
            got="another",
            advice="Find out who exchanged one of them before you go on",
        )


def _key(
    path: Path,
    read: Callable[[Path], _Key],
    make: Callable[[], _Key],
    write: Callable[[Path, _Key], None],
) -> _Key:
    if path.exists():
        return read(path)
    key = make()
    write(path, key)
    return key


def bring_federation_key(file: Path | None, *, new: bool) -> FederationKey | None:
    """The key named on the command line, a new one, or none yet.

    Raises:
        InputDataError: the file is no federation key, or open to others.
    """
    if file is not None:
        return read_federation_key(file)
    return FederationKey.generate() if new else None


def _settings(invite: Invite, site: SiteFolder, data: Path) -> SiteSettings:
    place = os.path.relpath(data.resolve(), site.root.resolve())
    if place.startswith(".."):
        place = str(data.resolve())
    return SiteSettings(
        federation=invite.federation,
        site=invite.site,
        address=invite.address,
        data=place,
        app_sha256=invite.app_sha256,
        enrolment=invite.enrolment,
        relay=invite.relay,
    )


def settings_text(settings: SiteSettings) -> bytes:
    """``site.toml``. JSON strings of printable text are TOML strings, too."""
    values = settings.model_dump(exclude={"v"}, exclude_none=True)
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]
    return (
        "# Written by `cairn-site join`. The site's own bounds are in policy.toml.\nv = 1\n"
        + "\n".join(lines)
        + "\n"
    ).encode()
