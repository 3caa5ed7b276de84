"""The archive that a hospital carries in: wheels or images, locks, SBOMs, checksums, installer.

The same commit and the same wheels give the same bytes.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from common.errors import InternalError
from deploy.bundle.locks import CONSTRAINTS, ROLES, ROOT, lock_file, read_lock
from deploy.bundle.sbom import sbom_file, write_sboms
from deploy.bundle.wheels import OWN_LOCK, WHEELS, fetch, revision, sha256_of, version

CHECKSUMS = "SHA256SUMS"
SITE_FILES = ("containers", "quadlet", "systemd", "nftables", "proxy", "plans", "helm")
DOCUMENTS = ("README.md", "EGRESS.md")


def pack(
    output: Path | None,
    roles: Sequence[str] = ROLES,
    images: Sequence[str] = (),
    engine: str = "podman",
) -> Path:
    """Write the archive.

    Args:
        output: its name; ``dist/cairn-VERSION.tar.gz`` when None.
        roles: whose wheels, locks and SBOMs go in.
        images: names of local images that also go in.
        engine: what saves them.

    Raises:
        UnreachableError, VerificationError: as ``fetch``.
        InternalError: an image could not be saved.
    """
    fetch()
    write_sboms(roles)
    name = f"cairn-{version()}"
    target = output or ROOT / "dist" / f"{name}.tar.gz"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as place:
        folder = Path(place) / name
        folder.mkdir()
        gather(folder, roles)
        for image in images:
            _save(image, folder / "images", engine)
        write_checksums(folder)
        _archive(folder, target)
    return target


def gather(folder: Path, roles: Sequence[str] = ROLES) -> None:
    """Everything but images and checksums, into ``folder``."""
    wheels, locks, sboms = folder / "wheels", folder / "locks", folder / "sbom"
    for place in (wheels, locks, sboms):
        place.mkdir()
    digests = {pin.sha256 for role in roles for pin in read_lock(lock_file(role))}
    digests |= {pin.sha256 for pin in read_lock(WHEELS / OWN_LOCK)}
    for path in sorted(WHEELS.glob("*.whl")):
        if sha256_of(path) in digests:
            _link_or_copy(path, wheels / path.name)
    for role in roles:
        shutil.copy(lock_file(role), locks)
        shutil.copy(sbom_file(role), sboms)
    shutil.copy(WHEELS / OWN_LOCK, locks)
    shutil.copy(CONSTRAINTS, folder)
    shutil.copy(ROOT / "LICENSE", folder)
    for document in DOCUMENTS:
        shutil.copy(ROOT / "deploy" / document, folder)
    for part in SITE_FILES:
        shutil.copytree(ROOT / "deploy" / part, folder / "deploy" / part)
    shutil.copy(ROOT / "deploy" / "bundle" / "install.sh", folder)
    (folder / "VERSION").write_text(f"{version()} {revision()}\n", encoding="ascii")


def _link_or_copy(path: Path, target: Path) -> None:
    """Link a large file; copy it where temporary folders lie on another disk."""
    try:
        target.hardlink_to(path)
    except OSError:
        shutil.copy(path, target)


def write_checksums(folder: Path) -> None:
    """SHA-256 of every file, in the form that ``sha256sum --check`` reads."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{sha256_of(path)}  {path.relative_to(folder)}\n" for path in paths]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def _save(image: str, folder: Path, engine: str) -> None:
    folder.mkdir(exist_ok=True)
    file = folder / (image.rsplit("/", 1)[-1].replace(":", "-") + ".tar")
    done = subprocess.run([engine, "save", "--output", str(file), image], check=False)
    if done.returncode:
        raise InternalError("the image was not saved", field=image, got=f"exit {done.returncode}")


def _archive(folder: Path, target: Path) -> None:
    """Tar and gzip without times, owners or order of the disk."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.mtime = member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mode = 0o755 if member.isdir() or member.name.endswith(".sh") else 0o644
        return member

    temporary = target.with_name(f".{target.name}.part")
    try:
        # Wheels are compressed already: more effort would only cost time.
        with (
            temporary.open("wb") as raw,
            gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=1, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for path in [folder, *sorted(folder.rglob("*"))]:
                inside = path.relative_to(folder.parent)
                archive.add(path, str(inside), recursive=False, filter=plain)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
