"""The kinds of task there are: the one list that commands, settings and runs look into.

A kind is an entry here and a room in ``kinds/`` that implements it. Only names and
defaults live here, so that a command line can list them without torch, images or a
validator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

Defaults = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True)
class KindEntry:
    """One kind of task.

    Attributes:
        room: the module whose ``KIND`` implements it.
        dim: axes of its images, 2 or 3.
        networks: the architectures that fit it.
        section: the section of settings that only its family has.
        settings: the keys of ``[task]`` that only some kinds have, and it does.
        defaults: by section and key, where a section's own default does not suit it.
    """

    room: str
    dim: int
    networks: tuple[str, ...]
    section: str
    settings: frozenset[str]
    defaults: Defaults = field(default_factory=dict)


_SEARCH: Final[Defaults] = {
    "network": {"architecture": "planar"},
    "learner": {"replay_capacity": 100_000},
}
_ROOMS: Final = "site_client.agent_app.kinds."
_SEEING: Final = frozenset({"landmarks", "zooms", "frames"})

# The kinds that foreign weights are for: one agent in a cube, and several.
CUBE: Final = "landmark-3d-cube"
TEAM: Final = "multi-agent-3d"

KINDS: Final[dict[str, KindEntry]] = {
    "landmark-3d": KindEntry(
        _ROOMS + "landmarks", 3, ("triplanar",), "ladder", frozenset({"landmarks"})
    ),
    CUBE: KindEntry(
        _ROOMS + "landmarks",
        3,
        ("volume-light", "network3d"),
        "ladder",
        _SEEING | {"interchangeable", "world"},
        {
            "network": {"architecture": "volume-light"},
            "learner": {"batch": 32, "searches": 16},
        },
    ),
    "landmark-2d": KindEntry(
        _ROOMS + "landmarks",
        2,
        ("planar", "paper2d"),
        "ladder",
        _SEEING | {"interchangeable"},
        {
            "task": {"spacing_mm": 0.5, "zooms": [1.0, 3.0, 9.0]},
            "ladder": {"scales": [4.0, 2.0, 1.0], "steps_mm": [8.0, 2.0, 0.5]},
            **_SEARCH,
        },
    ),
    TEAM: KindEntry(
        _ROOMS + "landmarks",
        3,
        ("commnet", "collab", "volume-light", "network3d"),
        "ladder",
        _SEEING | {"agents_per_landmark", "world"},
        {
            "task": {"frames": 4},
            "network": {"architecture": "commnet"},
            "learner": {"batch": 16, "searches": 8, "learning_rate": 1e-4},
        },
    ),
    "box-2d": KindEntry(
        _ROOMS + "boxes",
        2,
        ("planar",),
        "box",
        frozenset({"landmarks"}),
        {"task": {"roi": 33}, "pose": {"rotation_deg": 10.0}, **_SEARCH},
    ),
    "box-3d": KindEntry(
        _ROOMS + "boxes",
        3,
        ("planar",),
        "box",
        frozenset({"landmarks"}),
        {"task": {"spacing_mm": 2.0, "roi": 33}, "pose": {"rotation_deg": 10.0}, **_SEARCH},
    ),
    "view-plane": KindEntry(
        _ROOMS + "plane",
        3,
        ("planar",),
        "plane",
        frozenset({"plane_landmarks"}),
        {"task": {"spacing_mm": 2.0}, **_SEARCH},
    ),
    "registration-2d": KindEntry(
        _ROOMS + "registration",
        2,
        ("planar",),
        "registration",
        frozenset({"recontrast"}),
        {"task": {"recontrast": True}, **_SEARCH},
    ),
    "registration-3d": KindEntry(
        _ROOMS + "registration",
        3,
        ("planar",),
        "registration",
        frozenset({"recontrast"}),
        {"task": {"spacing_mm": 2.0, "recontrast": True}, **_SEARCH},
    ),
}


DEFAULT_KIND: Final = next(iter(KINDS))


def kinds_with(*, section: str = "", setting: str = "") -> list[str]:
    """List the kinds that have a section of their own, or a setting that not all have."""
    return [
        name
        for name, entry in KINDS.items()
        if section in ("", entry.section) and (not setting or setting in entry.settings)
    ]


def sections_of(kind: str, sections: Mapping[str, object]) -> list[str]:
    """List the names of the sections that mean something for a kind."""
    special = {entry.section for entry in KINDS.values()}
    return [name for name in sections if name not in special or name == KINDS[kind].section]
