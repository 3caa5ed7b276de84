"""The kinds of task there are: the one list that plans, commands, settings and runs look into.

A kind is an entry here and a room of the site that implements it. Only names, defaults
and sizes live here, so that a command line can list them, and an aggregator can add up
their models, without torch and without images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from common.settings import spaces
from common.settings.spaces import Settings, Space

Defaults = Mapping[str, Mapping[str, object]]
MM: Final = "mm"
"""The unit of kinds whose errors are millimetres."""


@dataclass(frozen=True)
class KindEntry:
    """One kind of task.

    Attributes:
        room: the module of the site whose ``KIND`` implements it.
        dim: axes of its images, 2 or 3.
        networks: the architectures that fit it.
        section: the section of settings that only its family has.
        settings: the keys of ``[task]`` that only some kinds have, and it does.
        space: the sizes of its search, from the settings alone.
        defaults: by section and key, where a section's own default does not suit it.
        named: the key of ``[task]`` that a plan must fill, for no plan knows what is in
            the sites' files; "" where nothing has a name.
        unit: of its errors.
    """

    room: str
    dim: int
    networks: tuple[str, ...]
    section: str
    settings: frozenset[str]
    space: Callable[[Settings], Space]
    defaults: Defaults = field(default_factory=dict)
    named: str = "landmarks"
    unit: str = MM


_SEARCH: Final[Defaults] = {
    "network": {"architecture": "planar"},
    "learner": {"replay_capacity": 100_000},
}
_TRACE: Final[Defaults] = {
    "network": {"architecture": "planar"},
    # A trace remembers all of its points, so fewer situations are remembered.
    "learner": {"replay_capacity": 20_000},
    "evaluation": {"most_steps": 120},
}
_ROOMS: Final = "site_client.kinds."
_NAMED: Final = frozenset({"landmarks", "missing"})
_SEEING: Final = _NAMED | {"zooms", "frames"}
_CROPPED: Final = frozenset({"crops"})
_SHOWN: Final = frozenset({"shown", "contrasts"})
_FLAT: Final = frozenset({"channels"})
_IOU: Final = "1 - IoU"
_DICE: Final = "1 - Dice"

# The kinds that foreign weights are for: one agent in a cube, and several.
CUBE: Final = "landmark-3d-cube"
TEAM: Final = "multi-agent-3d"

KINDS: Final[dict[str, KindEntry]] = {
    "landmark-3d": KindEntry(
        _ROOMS + "landmarks",
        3,
        ("triplanar",),
        "ladder",
        _NAMED | _CROPPED | _SHOWN,
        spaces.three_cuts,
    ),
    CUBE: KindEntry(
        _ROOMS + "landmarks",
        3,
        ("volume-light", "network3d"),
        "ladder",
        _SEEING | _CROPPED | _SHOWN | {"interchangeable", "world"},
        spaces.cube,
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
        _SEEING | _FLAT | _CROPPED | _SHOWN | {"interchangeable"},
        spaces.picture,
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
        _SEEING | _SHOWN | {"agents_per_landmark", "team", "world"},
        spaces.team,
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
        _FLAT | _NAMED,
        partial(spaces.box, dim=2),
        {"task": {"roi": 33}, "pose": {"rotation_deg": 10.0}, **_SEARCH},
        unit=_IOU,
    ),
    "box-3d": KindEntry(
        _ROOMS + "boxes",
        3,
        ("planar",),
        "box",
        _NAMED,
        partial(spaces.box, dim=3),
        {"task": {"spacing_mm": 2.0, "roi": 33}, "pose": {"rotation_deg": 10.0}, **_SEARCH},
        unit=_IOU,
    ),
    "turned-box-2d": KindEntry(
        _ROOMS + "turned_boxes",
        2,
        ("planar",),
        "box",
        _FLAT | _NAMED,
        spaces.turned_box,
        {"task": {"roi": 33}, "pose": {"rotation_deg": 180.0}, **_SEARCH},
        unit=_IOU,
    ),
    "view-plane": KindEntry(
        _ROOMS + "plane",
        3,
        ("planar",),
        "plane",
        frozenset({"plane_landmarks", "more_planes"}),
        spaces.plane,
        {"task": {"spacing_mm": 2.0}, **_SEARCH},
        named="plane_landmarks",
    ),
    "registration-2d": KindEntry(
        _ROOMS + "registration",
        2,
        ("planar",),
        "registration",
        _FLAT | {"recontrast"},
        partial(spaces.registration, dim=2),
        {"task": {"recontrast": True}, **_SEARCH},
        named="",
    ),
    "registration-3d": KindEntry(
        _ROOMS + "registration",
        3,
        ("planar",),
        "registration",
        frozenset({"recontrast"}),
        partial(spaces.registration, dim=3),
        {"task": {"spacing_mm": 2.0, "recontrast": True}, **_SEARCH},
        named="",
    ),
    "seed-2d": KindEntry(
        _ROOMS + "seeds",
        2,
        ("planar",),
        "growing",
        _FLAT | _NAMED,
        partial(spaces.seed, dim=2),
        {"task": {"roi": 25}, **_SEARCH},
        unit=_DICE,
    ),
    "seed-3d": KindEntry(
        _ROOMS + "seeds",
        3,
        ("planar",),
        "growing",
        _NAMED,
        partial(spaces.seed, dim=3),
        {"task": {"roi": 25, "spacing_mm": 2.0}, **_SEARCH},
        unit=_DICE,
    ),
    "glimpses-2d": KindEntry(
        _ROOMS + "glimpses",
        2,
        ("planar",),
        "glimpse",
        _FLAT | _NAMED,
        spaces.glimpses,
        {"task": {"roi": 25}, **_SEARCH},
    ),
    "tracking-2d": KindEntry(
        _ROOMS + "tracking",
        2,
        ("planar",),
        "ladder",
        frozenset({"landmarks", "zooms"}) | _FLAT,
        spaces.tracking,
        {
            "task": {"roi": 25, "zooms": [1.0, 3.0]},
            "ladder": {"scales": [2.0, 1.0, 1.0], "steps_mm": [6.0, 2.0, 1.0]},
            **_SEARCH,
        },
    ),
    "centreline-2d": KindEntry(
        _ROOMS + "centreline",
        2,
        ("planar",),
        "centreline",
        _FLAT,
        partial(spaces.centreline, dim=2),
        {"task": {"spacing_mm": 0.5, "roi": 25}, **_TRACE},
        named="",
    ),
    "centreline-3d": KindEntry(
        _ROOMS + "centreline",
        3,
        ("planar",),
        "centreline",
        frozenset(),
        partial(spaces.centreline, dim=3),
        {"task": {"roi": 25}, **_TRACE},
        named="",
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
