"""Joining a federation: an invite in, a site folder and a request out.

Every private key is made here, on the site's own disk, and stays there. The
request holds public keys only. Nothing is overwritten and no network is used;
whether the invite is the coordinator's own is for two people to compare aloud.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from common.crypto.certificates import (
    certificate_fingerprint,
    generate_node_key,
    node_public_line,
    parse_certificate,
    write_certificate,
    write_node_key,
)
from common.crypto.identity import PublicKey, SigningKey, write_public_key, write_signing_key
from common.crypto.keyed import FederationKey, read_federation_key, write_federation_key
from common.enrolment import Invite, JoinRequest
from common.errors import InputDataError, VerificationError
from site_client.egress.policy import default_policy_text
from site_client.site import SiteFolder
from site_client.spool import Spool, write_atomically


@dataclass(frozen=True)
class Joined:
    """What a person is told after joining.

    Attributes:
        request: file to send to the coordinator.
        ca_sha256: to be compared with the coordinator by telephone.
        witness: fingerprint of the key that signs orders and receipts; likewise.
        ledger: fingerprint of this site's own ledger key, for the coordinator to compare.
        has_federation_key: whether the key that all sites share is here already.
    """

    request: Path
    ca_sha256: str
    witness: str
    ledger: str
    has_federation_key: bool


def check_invite(invite: Invite) -> PublicKey:
    """The witness key of an invite that agrees with itself.

    Raises:
        VerificationError: the certificate is not the one the digest names.
        InputDataError: no certificate, or no key.
    """
    found = certificate_fingerprint(parse_certificate(invite.ca_certificate.encode("utf-8")))
    if found != invite.ca_sha256:
        raise VerificationError(
            "the invite contradicts itself",
            field="ca_certificate",
            expected=f"the certificate with SHA-256 {invite.ca_sha256[:16]}…",
            got="another certificate",
            advice="Ask the coordinator for a new invite, over another channel",
        )
    return PublicKey.parse(invite.witness_key)


def join(
    invite: Invite, site: SiteFolder, data: Path, shared: FederationKey | None = None
) -> Joined:
    """Make keys and folders, and the request for the coordinator.

    Args:
        invite: of the coordinator.
        site: where the site folder comes to lie; created.
        data: folder of images; it must exist and is not written to.
        shared: the federation key, or None to bring it later.

    Raises:
        InputDataError: no such data folder, or the folder holds a site already.
        VerificationError: the invite contradicts itself.
    """
    witness = check_invite(invite)
    if not data.is_dir():
        raise InputDataError(
            "no data folder", field=str(data), expected="a folder of images", got="nothing there"
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
    ledger_key, node_key = SigningKey.generate(), generate_node_key()
    write_signing_key(site.ledger_key, ledger_key)
    write_public_key(site.witness_key, witness)
    write_node_key(site.node_key, node_key)
    write_certificate(site.authority, parse_certificate(invite.ca_certificate.encode("utf-8")))
    if shared is not None:
        write_federation_key(site.federation_key, shared)
    write_atomically(site.policy_file, default_policy_text().encode("utf-8"))
    request = JoinRequest(
        federation=invite.federation,
        site=invite.site,
        node_key=node_public_line(node_key),
        ledger_key=ledger_key.public.text,
    )
    path = site.root / "request.json"
    text = json.dumps(request.model_dump(mode="json"), indent=2) + "\n"
    write_atomically(path, text.encode("utf-8"))
    # Last: only a complete folder is a site.
    write_atomically(site.settings_file, _settings_text(invite, site, data).encode("utf-8"))
    return Joined(
        request=path,
        ca_sha256=invite.ca_sha256,
        witness=witness.fingerprint,
        ledger=ledger_key.public.fingerprint,
        has_federation_key=shared is not None,
    )


def bring_federation_key(file: Path | None, *, new: bool) -> FederationKey | None:
    """The key named on the command line, a new one, or none yet.

    Raises:
        InputDataError: the file is no federation key, or open to others.
    """
    if file is not None:
        return read_federation_key(file)
    return FederationKey.generate() if new else None


def _settings_text(invite: Invite, site: SiteFolder, data: Path) -> str:
    """``site.toml``. JSON strings of printable text are TOML strings, too."""
    place = os.path.relpath(data.resolve(), site.root.resolve())
    if place.startswith(".."):
        place = str(data.resolve())
    values = {
        "federation": invite.federation,
        "site": invite.site,
        "address": invite.address,
        "data": place,
        "app_sha256": invite.app_sha256,
    }
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]
    return (
        "# Written by `cairn-site join`. The site's own bounds are in policy.toml.\nv = 1\n"
        + "\n".join(lines)
        + "\n"
    )
