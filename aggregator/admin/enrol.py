"""Making a federation, admitting sites, withdrawing them again.

The authority's and the witness's private keys are made here and stay here.
Of a site only public keys ever arrive.
"""

from __future__ import annotations

import os
from pathlib import Path

from aggregator.admin.certificates import issue_to_site
from aggregator.admin.credentials import FIRST_COORDINATOR, issue_credential, write_credential
from aggregator.admin.folder import (
    COUNTS_AS,
    AdmittedSite,
    FederationFolder,
    FederationSettings,
    declared_samples,
)
from aggregator.admin.relays import require_no_relay
from aggregator.admin.toml import as_toml
from common.crypto.certificates import (
    create_authority,
    issue_server_certificate,
    parse_node_public_key,
    write_certificate,
    write_tls_key,
)
from common.crypto.clients import requested_key
from common.crypto.exchange import SealingKey
from common.crypto.identity import PublicKey, SigningKey, write_public_key, write_signing_key
from common.enrolment import JoinRequest, read_request
from common.errors import InputDataError, RefusedError
from common.ledger.durable import replace_durably
from common.wire.bounds import MAX_IMAGES


def create_federation(
    folder: FederationFolder, settings: FederationSettings, host_names: list[str]
) -> None:
    """Make a new federation: authority, server certificate, witness key, settings.

    The first coordinator's credential comes to lie beside the settings.

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
    for path in (folder.pki, folder.sites, folder.invites, folder.desk, folder.runs, folder.flower):
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
    replace_durably(folder.settings_file, as_toml(settings.model_dump(exclude_none=True)))
    write_credential(
        folder.root / f"{FIRST_COORDINATOR}.toml", issue_credential(folder, FIRST_COORDINATOR)
    )


def admit(folder: FederationFolder, request: JoinRequest, images: int | None = None) -> None:
    """Accept a site's public keys, and issue its certificate if it asks for one.

    Args:
        folder: the federation's.
        request: of the site.
        images: what it counts as in an average; None: as settled before, or as it declared.

    Raises:
        RefusedError: another federation, a revoked name, or a name that has other keys.
        InputDataError: a key that is no key.
        VerificationError: signed by somebody else.
    """
    if request.federation != folder.settings().name:
        raise RefusedError(
            "a request for another federation",
            field="federation",
            expected=folder.settings().name,
            got=request.federation,
        )
    check_keys(request)
    with folder.locked():
        admit_locked(folder, request, images)


def check_keys(request: JoinRequest) -> None:
    """Return only if every key of a request is one, and the signature, if any, is its own.

    Raises:
        InputDataError: a key that is no key.
        VerificationError: signed by somebody else, or keys that must be signed and are not.
    """
    parse_node_public_key(request.node_key)
    PublicKey.parse(request.ledger_key)
    if request.sealing_key is not None:
        SealingKey.parse(request.sealing_key)
    if request.tls_csr is not None:
        requested_key(request.tls_csr.encode())
    # A request of the first release has only the two keys that people compared by telephone.
    if request.signature or request.sealing_key or request.tls_csr:
        request.verify()


def admit_locked(folder: FederationFolder, request: JoinRequest, images: int | None = None) -> None:
    """``admit`` for whoever has checked the keys and holds the lock.

    Raises:
        RefusedError: a revoked name, a relay's, or a name that has other keys.
    """
    site = folder.sites / request.site
    request_file = site / "request.json"
    check_not_revoked(folder, request.site)
    require_no_relay(folder, request.site)
    if request_file.exists() and not _same_site(read_request(request_file), request):
        raise RefusedError(
            "a site of this name was admitted with other keys",
            field="site",
            got=request.site,
            advice="Ask the site whether it made new keys; if so, revoke and invite anew",
        )
    site.mkdir(parents=True, exist_ok=True)
    # For auditors: the key to hold a ledger against, from another hand than the site's.
    ledger_key = PublicKey.parse(request.ledger_key)
    replace_durably(site / "ledger.pub", f"{ledger_key.text}\n".encode())
    counts = site / COUNTS_AS
    # Settled once: what a site says of itself later raises nothing.
    if images is not None or not counts.exists():
        settle(counts, declared_samples(request) if images is None else images)
    if request.tls_csr is not None:
        issue_to_site(folder, request)
    replace_durably(request_file, request.model_dump_json().encode())
    (site / "waiting.json").unlink(missing_ok=True)


def set_samples(folder: FederationFolder, site: str, images: int) -> JoinRequest:
    """Settle anew what an admitted site counts as; runs that have begun keep what they began with.

    Returns:
        The site's request.

    Raises:
        InputDataError: no such site, or not a count of 1 or more.
    """
    with folder.locked():
        admitted = _admitted(folder, site)
        settle(admitted.samples_file, images)
    return admitted.request


def settle(file: Path, images: int) -> None:
    """Write what a site counts as; for whoever holds the lock.

    Raises:
        InputDataError: not a count of 1 or more.
    """
    if not 1 <= images <= MAX_IMAGES:
        raise InputDataError(
            "not a number of images",
            field="images",
            expected=f"1 to {MAX_IMAGES}",
            got=f"{images}",
        )
    replace_durably(file, f"{images}\n".encode())


def _same_site(earlier: JoinRequest, request: JoinRequest) -> bool:
    """Tell whether a request holds the known keys; an earlier release may have had fewer."""
    fixed = (earlier.node_key, earlier.ledger_key) == (request.node_key, request.ledger_key)
    return fixed and all(
        before in (None, after)
        for before, after in (
            (earlier.sealing_key, request.sealing_key),
            (earlier.tls_csr, request.tls_csr),
        )
    )


def admit_waiting(folder: FederationFolder, site: str, images: int | None = None) -> JoinRequest:
    """Admit a site that enrolled and waits.

    Args:
        folder: the federation's.
        site: its name.
        images: what it counts as in an average; None: as its invite promised, or as it declared.

    Raises:
        InputDataError: nobody of this name waits.
    """
    with folder.locked():
        waiting = folder.waiting()
        if site not in waiting:
            raise InputDataError(
                "no such site waits",
                field="site",
                expected=", ".join(waiting) or "a site that waits; there is none",
                got=site,
            )
        admit_locked(folder, waiting[site], images)
    return waiting[site]


def check_not_revoked(folder: FederationFolder, site: str) -> None:
    """Return only if the name was never revoked.

    Raises:
        RefusedError: it was.
    """
    if (folder.sites / site / "revoked").exists():
        raise RefusedError(
            "this site was revoked",
            field="site",
            got=site,
            advice="Invite it under a new name; revoked keys never return",
        )


def revoke(folder: FederationFolder, site: str) -> JoinRequest:
    """Withdraw a site: nothing it sends is accepted from now on.

    Returns:
        Its request, whose node key is to be unregistered.

    Raises:
        InputDataError: no such site.
    """
    with folder.locked():
        return _revoke(folder, site)


def _revoke(folder: FederationFolder, site: str) -> JoinRequest:
    admitted = _admitted(folder, site)
    replace_durably(admitted.folder / "revoked", b"")
    return admitted.request


def _admitted(folder: FederationFolder, site: str) -> AdmittedSite:
    admitted = folder.admitted().get(site)
    if admitted is None:
        raise InputDataError(
            "no such site",
            field="site",
            expected=", ".join(folder.admitted()) or "an admitted site; there is none",
            got=site,
        )
    return admitted
