"""The standing of the federation key at this site: what `check`, `status` and `join` show.

The worker notes it beside the keys after every look; no secret is in it, and
nothing is decided by it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.arrivals.texts import json_of
from site_client.files import write_atomically
from site_client.site import SiteFolder

_FILE = "status.json"


@dataclass(frozen=True)
class KeyState:
    """The standing of the federation key, for ``check`` and ``status``; written beside the keys.

    Attributes:
        generation: of the newest key here; 0: none, or one brought by hand.
        key_id: its public id; empty without one.
        peers: newest generation that each admitted site has, as the desk says.
        fingerprints: of the ledger keys of those sites, by site.
        unknown: of those, the ones that could give or be given the key, were they confirmed.
        changed: fingerprint shown now by a site that was known with another; loud.
        waiting: what is waited for, in our own words; empty when nothing is.
        person: whether what is waited for is a person of this site.
        trouble: what was refused last, in our own words; empty when nothing is wrong.
    """

    generation: int = 0
    key_id: str = ""
    peers: Mapping[str, int] | None = None
    fingerprints: Mapping[str, str] | None = None
    unknown: Sequence[str] = ()
    changed: Mapping[str, str] | None = None
    waiting: str = ""
    person: bool = False
    trouble: str = ""

    @property
    def says(self) -> str:
        """The key, and who has it, in a line."""
        number = f"generation {self.generation}" if self.generation else "brought by hand"
        has = [
            name
            for name, generation in (self.peers or {}).items()
            if generation and generation >= self.generation
        ]
        lacks = [name for name in self.peers or {} if name not in has]
        unknown = [name for name in lacks if name in self.unknown and self.key_id]
        lacks = [name for name in lacks if name not in unknown]
        parts = [f"id {self.key_id}, {number}"] if self.key_id else ["not here"]
        parts += [f"at {', '.join(has)}"] if has and self.generation else []
        parts += [f"not yet at {', '.join(lacks)}"] if lacks and self.generation else []
        if unknown and self.generation:
            parts.append(
                f"not given to {', '.join(unknown)}, to be confirmed: cairn-site peers confirm "
                f"{' '.join(unknown)}"
            )
        parts += [f"waits for {self.waiting}"] if self.waiting else []
        return "; ".join(parts)


def note_key_state(site: SiteFolder, state: KeyState) -> None:
    """Write it, if it differs from what was noted last."""
    site.key_ring.mkdir(mode=0o700, exist_ok=True)
    text = json.dumps(vars(state), sort_keys=True)
    path = site.key_ring / _FILE
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text.encode())


def read_key_state(site: SiteFolder) -> KeyState | None:
    """Read what the worker noted last; None when it noted nothing yet."""
    try:
        value = json_of((site.key_ring / _FILE).read_bytes())
        return KeyState(**value) if isinstance(value, dict) else None
    except (OSError, ValueError, TypeError):
        return None
