"""A witness's own folder: its name, its keys by generation, the logs it serves, its memory.

Keys are pairs: Ed25519, which every log can verify today, and ML-DSA-44. A generation is
followed by the next one through a rotation note that the old keys sign; nobody has to
take the operator's word for new keys. Old keys go on signing beside the new ones until
they are retired, so that no policy file has to change in the same minute.

::

    witness.toml         its name
    keys/1/ed25519.key   secret, mode 600; and mldsa44.key; keys/2/... after a rotation
    rotations/2.note     how generation 2 follows generation 1, signed by the latter
    logs                 lines of a policy file: log <vkey>
    state/               see store
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from common.crypto.files import write_public
from common.crypto.identity import SigningKey, read_signing_key, write_signing_key
from common.crypto.postquantum import (
    PostQuantumSigningKey,
    read_postquantum_key,
    write_postquantum_key,
)
from common.errors import InputDataError
from common.ledger.durable import replace_durably, storage_error
from common.ledger.notes import Algorithm, NoteKey
from common.settings import Frozen, describe_validation
from common.witness.policy_text import read_text
from common.witness.rotation import rotation_note
from common.witness.vkeys import parse_log_key, vkey_text

NAME_PATTERN = r"^[a-z0-9]([a-z0-9./-]{0,126}[a-z0-9])?$"
Signer = SigningKey | PostQuantumSigningKey


class WitnessSettings(Frozen):
    """``witness.toml``."""

    v: int = 1
    name: Annotated[str, Field(pattern=NAME_PATTERN)]


@dataclass(frozen=True)
class Generation:
    """One pair of keys.

    Attributes:
        number: from 1.
    """

    number: int
    classical: SigningKey
    postquantum: PostQuantumSigningKey

    @property
    def signers(self) -> tuple[Signer, ...]:
        """Both."""
        return (self.classical, self.postquantum)

    def public(self, name: str) -> tuple[NoteKey, ...]:
        """Return both public halves, as a policy file names them."""
        return (
            NoteKey(name, self.classical.public, Algorithm.COSIGNATURE),
            NoteKey(name, self.postquantum.public, Algorithm.POSTQUANTUM),
        )


@dataclass(frozen=True)
class WitnessFolder:
    """Paths below one witness's folder, and what lies there."""

    root: Path

    @property
    def state(self) -> Path:
        """The folder of its memory."""
        return self.root / "state"

    @property
    def logs_file(self) -> Path:
        """The logs that it serves."""
        return self.root / "logs"

    @classmethod
    def create(cls, root: Path, name: str) -> WitnessFolder:
        """Make a new witness with its first keys.

        Raises:
            InputDataError: not a name, or there is one already.
        """
        try:
            WitnessSettings(name=name)
        except ValidationError as error:
            raise InputDataError(
                "not a witness's name",
                field="name",
                expected="lower-case letters, digits, dots, hyphens and slashes, "
                "as in witness.example.org/w1",
                got=f"{len(name)} other characters",
            ) from error
        folder = cls(root)
        root.mkdir(mode=0o750, parents=True, exist_ok=True)
        write_public(root / "witness.toml", f'v = 1\nname = "{name}"\n'.encode("ascii"))
        folder._make_keys(1)
        return folder

    @property
    def name(self) -> str:
        """Under which it cosigns.

        Raises:
            InputDataError: not a witness's folder.
        """
        path = self.root / "witness.toml"
        try:
            text = path.read_text(encoding="utf-8")
            return WitnessSettings.model_validate(tomllib.loads(text)).name
        except ValidationError as error:
            field, expected, got = describe_validation(error)
            raise InputDataError(
                "witness.toml is not valid", field=field, expected=expected, got=got
            ) from error
        except (OSError, ValueError) as error:
            raise InputDataError(
                "this is not a witness's folder",
                field=str(path),
                got=type(error).__name__,
                advice="Make one: cairn-witness keygen NAME --dir DIR",
            ) from error

    def generations(self) -> list[Generation]:
        """Return the keys that sign, oldest first.

        Raises:
            InputDataError: none, or one cannot be read.
        """
        folders = [path for path in (self.root / "keys").glob("*") if path.name.isdecimal()]
        found = [
            Generation(
                int(path.name),
                read_signing_key(path / "ed25519.key"),
                read_postquantum_key(path / "mldsa44.key"),
            )
            for path in sorted(folders, key=lambda path: int(path.name))
        ]
        if not found:
            raise InputDataError("this witness has no keys", field=str(self.root / "keys"))
        return found

    def logs(self) -> dict[str, tuple[NoteKey, ...]]:
        """Return the keys of the logs that it serves, by origin; none before one was added.

        Raises:
            InputDataError: a line that is no log's.
        """
        if not self.logs_file.exists():
            return {}
        logs: dict[str, tuple[NoteKey, ...]] = {}
        for line in read_text(self.logs_file).split("\n"):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) not in (2, 3) or words[0] != "log":
                raise InputDataError(
                    "not a list of logs",
                    field=str(self.logs_file),
                    expected="lines of the form: log <vkey>",
                    got="another line",
                )
            key = parse_log_key(words[1])
            logs[key.name] = (*logs.get(key.name, ()), key)
        return logs

    def add_log(self, key: NoteKey) -> bool:
        """Serve one more log; False if it was served already.

        Raises:
            InputDataError: the list cannot be read, or names another key for this log.
            StorageError: the disk refused.
        """
        known = self.logs().get(key.name, ())
        if key in known:
            return False
        if known:
            raise InputDataError(
                "this log has another key here",
                field=key.name,
                expected=vkey_text(known[0]),
                got="another key",
                advice="A ledger keeps its key for life. Telephone the site; if a new ledger "
                f"began there under the same name, edit {self.logs_file}",
            )
        before = self.logs_file.read_bytes() if self.logs_file.exists() else b""
        try:
            replace_durably(self.logs_file, before + f"log {vkey_text(key)}\n".encode("ascii"))
        except OSError as error:
            raise storage_error(error, self.logs_file) from error
        return True

    def rotate(self) -> tuple[Generation, bytes]:
        """Make the next generation of keys; the present one signs for it, and stays.

        Returns:
            The new keys, and the rotation note.
        """
        present = self.generations()[-1]
        number = present.number + 1
        new = self._make_keys(number)
        note = rotation_note(
            self.name, number, new.public(self.name), present.signers, present.public(self.name)
        )
        folder = self.root / "rotations"
        folder.mkdir(mode=0o755, exist_ok=True)
        write_public(folder / f"{number}.note", note)
        return new, note

    def retire(self) -> Sequence[int]:
        """Remove the secret keys of all generations but the newest; returns their numbers."""
        *old, _ = self.generations()
        for generation in old:
            folder = self.root / "keys" / str(generation.number)
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
        return [generation.number for generation in old]

    def _make_keys(self, number: int) -> Generation:
        folder = self.root / "keys" / str(number)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        keys = Generation(number, SigningKey.generate(), PostQuantumSigningKey.generate())
        write_signing_key(folder / "ed25519.key", keys.classical)
        write_postquantum_key(folder / "mldsa44.key", keys.postquantum)
        return keys
