"""Building the images: one engine call per role, from the wheels in build/wheels, no network."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from common.errors import InternalError
from deploy.bundle.locks import ROOT, read_lock
from deploy.bundle.wheels import OWN_LOCK, WHEELS, fetch, revision, version

BASE = "docker.io/library/python:3.11-slim-bookworm"
FILE = ROOT / "deploy" / "containers" / "Containerfile"
IGNORE = ROOT / ".containerignore"


def image_name(role: str, tag: str) -> str:
    """Name a role's image on this machine."""
    return f"localhost/cairn-{role}:{tag}"


def build_images(
    roles: Sequence[str], *, base: str, tag: str, engine: str, options: Sequence[str] = ()
) -> list[str]:
    """Build each role's image.

    Args:
        roles: targets of the Containerfile.
        base: an image with CPython 3.11; by digest for a release.
        tag: of the names that are given.
        engine: ``podman`` or ``docker``.
        options: further options of ``engine build``.

    Raises:
        InternalError: the engine failed; it has said why.
    """
    fetch()
    wheel_sha256 = read_lock(WHEELS / OWN_LOCK)[0].sha256
    arguments = {
        "BASE": base,
        "VERSION": version(),
        "REVISION": revision(),
        "CAIRN_SHA256": wheel_sha256,
    }
    names = []
    for role in roles:
        name = image_name(role, tag)
        command = [engine, "build", "--file", str(FILE), "--target", role, "--tag", name]
        if engine == "podman":
            # The OCI format has no place for a health check.
            command += ["--format", "docker", "--ignorefile", str(IGNORE)]
        for key, value in arguments.items():
            command += ["--build-arg", f"{key}={value}"]
        done = subprocess.run([*command, *options, str(ROOT)], check=False)
        if done.returncode:
            raise InternalError(
                "the image was not built", field=role, got=f"exit {done.returncode}"
            )
        names.append(name)
    return names
