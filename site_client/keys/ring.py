"""The federation keys that a site holds: by generation, by hand, or proposed.

One file of mode 600 each, never overwritten. A run keeps the key that it began
with; when another run begins, what is older than the newest is removed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from common.crypto.keyed import FederationKey, read_federation_key, write_federation_key
from common.errors import InputDataError
from common.wire.records import KeyId, RunName
from site_client.files import atomically, write_atomically
from site_client.site import SiteFolder

_KEY = re.compile(r"([0-9]{6})\.key")
_PROPOSAL = re.compile(r"proposed-([0-9]{6})\.key")


@dataclass(frozen=True)
class Held:
    """A key and its generation; 0: a person brought it, and nobody has said which it is."""

    generation: int
    key: FederationKey


class _Pin(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    run: RunName
    key_id: KeyId


class KeyRing:
    """The keys in one worker's folder.

    Args:
        site: whose folder; nothing is created before a key is.
    """

    def __init__(self, site: SiteFolder) -> None:
        self._folder = site.key_ring
        self._by_hand = site.federation_key

    def newest(self) -> Held | None:
        """Return the key of the highest generation, else the one brought by hand, else None.

        Raises:
            InputDataError: a file is no key, or open to others.
        """
        generations = self._files(_KEY)
        if generations:
            number = max(generations)
            return Held(number, read_federation_key(generations[number]))
        if self._by_hand.exists():
            return Held(0, read_federation_key(self._by_hand))
        return None

    def add(self, generation: int, key: FederationKey) -> None:
        """Keep the key of a generation, durably.

        Raises:
            InputDataError: another key of this generation is here already.
        """
        path = self._folder / f"{generation:06d}.key"
        if path.exists():
            if read_federation_key(path) != key:
                raise InputDataError(
                    "a second federation key of one generation",
                    field=path.name,
                    expected="the key that is here",
                    got="another",
                )
            return
        self._write(path, key)

    def proposal(self) -> Held | None:
        """Return the key that this site has made and the desk has not settled, if any."""
        files = self._files(_PROPOSAL)
        return Held(max(files), read_federation_key(files[max(files)])) if files else None

    def propose(self, generation: int) -> FederationKey:
        """Propose the next key that this site would have; made once, kept until it is settled."""
        proposal = self.proposal()
        if proposal is not None and proposal.generation == generation:
            return proposal.key
        self.drop_proposal()
        key = FederationKey.generate()
        self._write(self._folder / f"proposed-{generation:06d}.key", key)
        return key

    def drop_proposal(self) -> None:
        """Forget what was proposed: it is settled."""
        for path in self._files(_PROPOSAL).values():
            path.unlink(missing_ok=True)

    def of_run(self, run: str) -> FederationKey | None:
        """Return the key that ``run`` began with, or for a new run the newest."""
        pin = self._pin()
        if pin is not None and pin.run == run:
            for path in [*self._files(_KEY).values(), self._by_hand]:
                if path.exists():
                    key = read_federation_key(path)
                    if key.key_id == pin.key_id:
                        return key
        newest = self.newest()
        return None if newest is None else newest.key

    def begin_run(self, run: str) -> None:
        """From now on ``run`` has the newest key; what no run needs any more is removed."""
        newest, pin = self.newest(), self._pin()
        if newest is None or (pin is not None and pin.run == run):
            return
        self._folder.mkdir(mode=0o700, exist_ok=True)
        note = _Pin(run=run, key_id=newest.key.key_id)
        write_atomically(self._pin_file, note.model_dump_json().encode())
        for generation, path in self._files(_KEY).items():
            if generation < newest.generation:
                path.unlink(missing_ok=True)
        if self._by_hand.exists() and read_federation_key(self._by_hand) != newest.key:
            self._by_hand.unlink()

    @property
    def _pin_file(self) -> Path:
        return self._folder / "run.json"

    def _pin(self) -> _Pin | None:
        try:
            return _Pin.model_validate_json(self._pin_file.read_bytes())
        except (OSError, ValidationError):
            return None

    def _files(self, pattern: re.Pattern[str]) -> dict[int, Path]:
        if not self._folder.is_dir():
            return {}
        matches = ((pattern.fullmatch(path.name), path) for path in self._folder.iterdir())
        return {int(match[1]): path for match, path in matches if match is not None}

    def _write(self, path: Path, key: FederationKey) -> None:
        """Whole or absent under its name, also after a crash."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        atomically(path, lambda temporary: write_federation_key(temporary, key))
