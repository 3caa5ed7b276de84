"""Making a federation, inviting sites, admitting them, withdrawing them again.

The authority's and the witness's private keys are made here and stay here.
Of a site only public keys ever arrive.
"""

from __future__ import annotations

import os
from pathlib import Path

import tomli_w

from aggregator.admin.folder import FederationFolder, FederationSettings
from common.crypto.certificates import (
    certificate_fingerprint,
    create_authority,
    issue_server_certificate,
    parse_node_public_key,
    read_certificate,
    write_certificate,
    write_tls_key,
)
from common.crypto.identity import (
    PublicKey,
    SigningKey,
    read_public_key,
    write_public_key,
    write_signing_key,
)
from common.enrolment import Invite, JoinRequest
from common.errors import InputDataError, RefusedError
from common.ledger.durable import replace_durably


def create_federation(
    folder: FederationFolder, settings: FederationSettings, host_names: list[str]
) -> None:
    """Make a new federation: authority, server certificate, witness key, settings.

    Raises:
        InputDataError: there is one in this folder already, or a host name is unusable.
    """
    if folder.settings_file.exists():
        raise InputDataError(
            "there is a federation in this folder already",
            field=str(folder.settings_file),
            expected="an empty folder",
        )
    ca_key, ca_cert = create_authority(settings.name)
    server_key, server_cert = issue_server_certificate(ca_key, ca_cert, host_names)
    for path in (folder.pki, folder.sites, folder.runs, folder.flower):
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
    write_tls_key(folder.pki / "ca.key", ca_key)
    write_certificate(folder.pki / "ca.crt", ca_cert)
    write_tls_key(folder.pki / "server.key", server_key)
    write_certificate(folder.pki / "server.crt", server_cert)
    witness = SigningKey.generate()
    write_signing_key(folder.pki / "witness.key", witness)
    write_public_key(folder.pki / "witness.pub", witness.public)
    secret = folder.flower / "superexec.key"
    secret.touch(mode=0o600)
    secret.write_bytes(os.urandom(32).hex().encode())
    text = tomli_w.dumps(settings.model_dump())
    replace_durably(folder.settings_file, text.encode())


def make_invite(folder: FederationFolder, site: str, app_sha256: str) -> Invite:
    """The file that tells one site whom to trust; holds nothing secret.

    Raises:
        InputDataError: not a federation's folder, or a site name that is not lower case.
    """
    settings = folder.settings()
    certificate = read_certificate(folder.pki / "ca.crt")
    try:
        return Invite(
            federation=settings.name,
            site=site,
            address=settings.address,
            ca_certificate=(folder.pki / "ca.crt").read_text(encoding="ascii"),
            ca_sha256=certificate_fingerprint(certificate),
            witness_key=read_public_key(folder.pki / "witness.pub").text,
            app_sha256=app_sha256,
        )
    except ValueError as error:
        raise InputDataError(
            "not a name for a site",
            field="site",
            expected="1 to 32 lower-case letters, digits and hyphens",
            got=f"{len(site)} characters",
        ) from error


def write_invite(path: Path, invite: Invite) -> None:
    """Write an invite as TOML."""
    replace_durably(path, tomli_w.dumps(invite.model_dump(), multiline_strings=True).encode())


def admit(folder: FederationFolder, request: JoinRequest) -> None:
    """Accept a site's public keys.

    Raises:
        RefusedError: another federation, a revoked name, or a name that has other keys.
        InputDataError: a key that is no key.
    """
    if request.federation != folder.settings().name:
        raise RefusedError(
            "a request for another federation",
            field="federation",
            expected=folder.settings().name,
            got=request.federation,
        )
    parse_node_public_key(request.node_key)
    ledger_key = PublicKey.parse(request.ledger_key)
    site = folder.sites / request.site
    known = site / "request.json"
    if (site / "revoked").exists():
        raise RefusedError(
            "this site was revoked",
            field="site",
            got=request.site,
            advice="Invite it under a new name; revoked keys never return",
        )
    data = request.model_dump_json().encode()
    if known.exists() and known.read_bytes() != data:
        raise RefusedError(
            "a site of this name was admitted with other keys",
            field="site",
            got=request.site,
            advice="Ask the site whether it made new keys; if so, revoke and invite anew",
        )
    site.mkdir(parents=True, exist_ok=True)
    # For auditors: the key to hold a ledger against, from another hand than the site's.
    replace_durably(site / "ledger.pub", f"{ledger_key.text}\n".encode())
    replace_durably(known, data)


def revoke(folder: FederationFolder, site: str) -> JoinRequest:
    """Withdraw a site: nothing it sends is accepted from now on.

    Returns:
        Its request, whose node key is to be unregistered.

    Raises:
        InputDataError: no such site.
    """
    admitted = folder.admitted().get(site)
    if admitted is None:
        raise InputDataError(
            "no such site",
            field="site",
            expected=", ".join(folder.admitted()) or "an admitted site; there is none",
            got=site,
        )
    replace_durably(admitted.folder / "revoked", b"")
    return admitted.request
