"""The constant app's bundle, and the digest of it that sites pin.

Flower is imported only to bundle, which takes half of its packages. The digest is
remembered beside Flower's own files of a federation, and good only for the very files
and the release of Flower that it was made from. What a run starts is always
bundled anew; were the memory wrong, every site would refuse the run.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from aggregator.admin.folder import FederationFolder
from common.ledger.durable import replace_durably
from common.wire.records import Digest

APP_FOLDER = Path(__file__).with_name("flower_app")
MEMORY = "app.json"


class _Remembered(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    made_of: Digest
    sha256: Digest


@cache
def app_bundle() -> tuple[bytes, str]:
    """Bundle the app as Flower does; with its SHA-256. Constant for a release."""
    from flwr.cli.build import build_fab_from_disk

    bundle = build_fab_from_disk(APP_FOLDER)
    return bundle, hashlib.sha256(bundle).hexdigest()


def app_digest(folder: FederationFolder) -> str:
    """SHA-256 of the constant app's bundle; constant for a release."""
    made_of, path = _made_of(APP_FOLDER), folder.flower / MEMORY
    try:
        remembered = _Remembered.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        remembered = None
    if remembered is not None and remembered.made_of == made_of:
        return remembered.sha256
    digest = app_bundle()[1]
    replace_durably(path, _Remembered(made_of=made_of, sha256=digest).model_dump_json().encode())
    return digest


def _made_of(app: Path) -> str:
    """Return a digest of everything that decides the bundle: the files, and Flower's release."""
    files = sorted(
        path for path in app.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    )
    digest = hashlib.sha256(f"flwr {version('flwr')}\n".encode())
    for path in files:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(app).as_posix()} {content}\n".encode())
    return digest.hexdigest()
