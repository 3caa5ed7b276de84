"""The kinds of task that can be trained: their networks, their settings, their own figures.

Only names and defaults live here, so that a command line can list them without
torch, images or a validator.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args

Kind = Literal[
    "landmark-3d",
    "landmark-3d-cube",
    "landmark-2d",
    "multi-agent-3d",
    "box-2d",
    "box-3d",
    "view-plane",
    "registration-2d",
    "registration-3d",
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
LANDMARKS: Final[tuple[Kind, ...]] = KINDS[:4]
PLANAR: Final[tuple[Kind, ...]] = ("landmark-2d", "box-2d", "registration-2d")
BOXES: Final[tuple[Kind, ...]] = ("box-2d", "box-3d")
REGISTRATIONS: Final[tuple[Kind, ...]] = ("registration-2d", "registration-3d")

NETWORKS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "landmark-3d": ("triplanar",),
    "landmark-3d-cube": ("volume-light", "network3d"),
    "landmark-2d": ("planar", "paper2d"),
    "multi-agent-3d": ("commnet", "collab", "volume-light", "network3d"),
    "box-2d": ("planar",),
    "box-3d": ("planar",),
    "view-plane": ("planar",),
    "registration-2d": ("planar",),
    "registration-3d": ("planar",),
}
# What a task's own report says beside the error.
FIGURES: Final[Mapping[Kind, tuple[str, ...]]] = {
    **dict.fromkeys(BOXES, ("iou", "hit", "centre_mm")),
    "view-plane": ("angle_deg", "offset_mm", "landmark_to_plane_mm"),
    **dict.fromkeys(REGISTRATIONS, ("tre_mm", "rotation_deg")),
}
# The sections that only some kinds have; all others are for every kind.
SPECIAL: Final[Mapping[str, tuple[Kind, ...]]] = {
    "ladder": LANDMARKS,
    "box": BOXES,
    "plane": ("view-plane",),
    "registration": REGISTRATIONS,
}
_SEARCH: Final[Mapping[str, Mapping[str, object]]] = {
    "network": {"architecture": "planar"},
    "learner": {"replay_capacity": 100_000},
}
# Where the defaults of a section do not suit the kind of task.
DEFAULTS: Final[Mapping[object, Mapping[str, Mapping[str, object]]]] = {
    "landmark-3d": {},
    "landmark-3d-cube": {
        "network": {"architecture": "volume-light"},
        "learner": {"batch": 32, "searches": 16},
    },
    "landmark-2d": {
        "task": {"spacing_mm": 0.5, "zooms": [1.0, 3.0, 9.0]},
        "ladder": {"scales": [4.0, 2.0, 1.0], "steps_mm": [8.0, 2.0, 0.5]},
        **_SEARCH,
    },
    "multi-agent-3d": {
        "task": {"frames": 4},
        "network": {"architecture": "commnet"},
        "learner": {"batch": 16, "searches": 8, "learning_rate": 1e-4},
    },
    "box-2d": {"task": {"roi": 33}, "pose": {"rotation_deg": 10.0}, **_SEARCH},
    "box-3d": {
        "task": {"spacing_mm": 2.0, "roi": 33},
        "pose": {"rotation_deg": 10.0},
        **_SEARCH,
    },
    "view-plane": {"task": {"spacing_mm": 2.0}, **_SEARCH},
    "registration-2d": {"task": {"recontrast": True}, **_SEARCH},
    "registration-3d": {"task": {"spacing_mm": 2.0, "recontrast": True}, **_SEARCH},
}


def sections_of(kind: Kind, sections: Mapping[str, object]) -> list[str]:
    """The names of the sections that mean something for a kind."""
    return [name for name in sections if kind in SPECIAL.get(name, KINDS)]
