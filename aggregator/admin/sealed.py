"""The federation key on its way from site to site, sealed: kept and handed out, never opened.

The aggregator can neither make nor open what lies here. It keeps the sites in
step: one key per generation, and generations only go forward. What is kept was
signed by the worker of the site that sealed it; a courier alone can put nothing.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from aggregator.admin.folder import AdmittedSite, FederationFolder
from common.crypto.sealing import Label, check_box
from common.errors import InputDataError, InternalError, RefusedError
from common.ledger.durable import replace_durably

MAX_SEALED_BYTES = 4096
_Kept = TypeVar("_Kept", bound=BaseModel)
_KEY_ID = re.compile(r"[0-9a-f]{16}")


class Generation(BaseModel):
    """The newest federation key; generation 0: none was sealed yet.

    Attributes:
        revoked_before: sites that were revoked when it was made. Whoever was revoked
            later may have it, so that it has to be renewed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    generation: int = 0
    key_id: str = ""
    made_by: str = ""
    revoked_before: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sealed:
    """One key, sealed by one site to another.

    Attributes:
        ciphertext: at most 4 kB.
        signature: the sender's, for the receiver.
    """

    for_site: str
    from_site: str
    key_id: str
    generation: int
    ciphertext: bytes
    signature: bytes


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    for_site: str
    from_site: str
    key_id: str
    generation: int
    ciphertext: str
    signature: str


def newest(folder: FederationFolder) -> Generation:
    """Return the generation that all sites should have."""
    path = folder.generation_file
    return _parse(path, Generation) if path.exists() else Generation()


def must_renew(folder: FederationFolder) -> bool:
    """Tell whether a site was revoked since the newest generation was made.

    Nothing is noted at the revocation itself, so that nothing can be forgotten in a crash.
    """
    current = newest(folder)
    return current.generation > 0 and not _revoked(folder) <= set(current.revoked_before)


def revoked_since(folder: FederationFolder) -> float:
    """Say when a site was last revoked that may have the newest key, Unix time; 0 if none was."""
    current = newest(folder)
    later = _revoked(folder) - set(current.revoked_before) if current.generation else set()
    return max((_written(folder.sites / name / "revoked") for name in later), default=0.0)


def made_at(folder: FederationFolder) -> float:
    """Say when the newest generation was first put here, Unix time; 0 before any was."""
    return _written(folder.generation_file)


def sealed_at(folder: FederationFolder, site: str, generation: int) -> float:
    """Say when a generation was last sealed to a site, Unix time; 0 if nobody has."""
    return _written(_file(folder, site, generation))


def _written(path: Path) -> float:
    """Say when a file was written last; 0 for none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _revoked(folder: FederationFolder) -> set[str]:
    return {name for name, site in folder.known().items() if site.revoked}


def put(folder: FederationFolder, sender: str, keys: Sequence[Sealed]) -> int:
    """Keep what an admitted site has sealed for others.

    Returns:
        How many were kept.

    Raises:
        InputDataError: nothing, or something that is no sealed key.
        RefusedError: in another site's name, for a site that is not admitted, a second
            key of the newest generation, an older generation, or one that leaves a gap.
        VerificationError: not signed by the sender's ledger key for this receiver.
    """
    if not keys:
        raise InputDataError("no sealed key", field="keys", expected="at least one", got="none")
    with folder.locked():
        current, admitted = newest(folder), folder.admitted()
        for key in keys:
            _check(key, sender, admitted)
            _check_generation(key, keys[0], current)
            _check_signature(folder, key, admitted)
        for key in keys:
            _write(folder, key)
        first = keys[0]
        if first.generation > current.generation:
            made = Generation(
                generation=first.generation,
                key_id=first.key_id,
                made_by=sender,
                revoked_before=tuple(sorted(_revoked(folder))),
            )
            replace_durably(folder.generation_file, made.model_dump_json().encode())
    return len(keys)


def fetch(folder: FederationFolder, site: str, generation: int = 0) -> Sealed | None:
    """Fetch what is sealed to a site: of one generation, or (0) of the newest it has; or None."""
    files = sorted((folder.sites / site / "sealed").glob("*.json"))
    if generation:
        files = [path for path in files if path == _file(folder, site, generation)]
    if not files:
        return None
    parcel = _parse(files[-1], _File)
    return Sealed(
        for_site=parcel.for_site,
        from_site=parcel.from_site,
        key_id=parcel.key_id,
        generation=parcel.generation,
        ciphertext=base64.b64decode(parcel.ciphertext),
        signature=base64.b64decode(parcel.signature),
    )


def _check(key: Sealed, sender: str, admitted: Container[str]) -> None:
    well_made = (
        _KEY_ID.fullmatch(key.key_id)
        and 0 < len(key.ciphertext) <= MAX_SEALED_BYTES
        and len(key.signature) <= 128
    )
    if not well_made:
        raise InputDataError(
            "not a sealed key",
            field="keys",
            expected=f"16 hex digits and 1 to {MAX_SEALED_BYTES} bytes",
            got=f"{len(key.key_id)} characters and {len(key.ciphertext)} bytes",
        )
    if key.from_site != sender:
        raise RefusedError(
            "a key sealed in another site's name",
            field="from_site",
            expected=sender,
            got=key.from_site,
        )
    if key.for_site not in admitted:
        raise RefusedError(
            "a key for a site that is not admitted",
            field="for_site",
            expected="an admitted site",
            got=key.for_site,
        )


def _check_generation(key: Sealed, first: Sealed, current: Generation) -> None:
    same = key.generation == current.generation and key.key_id == current.key_id
    following = key.generation == current.generation + 1
    if (key.generation, key.key_id) == (first.generation, first.key_id) and (same or following):
        return
    raise RefusedError(
        "not the federation key that is next",
        field="generation",
        expected=f"key {current.key_id or '(none yet)'} as generation {current.generation}, "
        f"or one new key as generation {current.generation + 1}",
        got=f"generation {key.generation}",
        advice="Fetch the newest key first; another site may have made it meanwhile",
    )


def _check_signature(
    folder: FederationFolder, key: Sealed, admitted: Mapping[str, AdmittedSite]
) -> None:
    label = Label(
        federation=folder.settings().name,
        generation=key.generation,
        key_id=key.key_id,
        from_site=key.from_site,
        for_site=key.for_site,
        for_ledger_key=admitted[key.for_site].ledger_key.fingerprint,
    )
    check_box(key.ciphertext, key.signature, label, admitted[key.from_site].ledger_key)


def _write(folder: FederationFolder, key: Sealed) -> None:
    path = _file(folder, key.for_site, key.generation)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    value = _File(
        for_site=key.for_site,
        from_site=key.from_site,
        key_id=key.key_id,
        generation=key.generation,
        ciphertext=base64.b64encode(key.ciphertext).decode("ascii"),
        signature=base64.b64encode(key.signature).decode("ascii"),
    )
    replace_durably(path, value.model_dump_json().encode())


def _file(folder: FederationFolder, site: str, generation: int) -> Path:
    return folder.sites / site / "sealed" / f"{generation:06d}.json"


def _parse(path: Path, cls: type[_Kept]) -> _Kept:
    try:
        return cls.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise InternalError(
            "a kept file cannot be read", field=path.name, got=type(error).__name__
        ) from error
