"""The floors of a release: the stricter of the plan's and the site's own."""

from __future__ import annotations

from common.plan import FederationPlan
from common.policy.sections import Policy
from common.wire.expected import RecordFloors


def stricter_floors(plan: FederationPlan, policy: Policy) -> RecordFloors:
    """Return the least that must stand behind a record at this site."""
    planned, floors, pixels = RecordFloors.of(plan), policy.floors, policy.pixels
    return RecordFloors(
        images=max(planned.images, floors.images),
        transitions=max(planned.transitions, floors.transitions),
        sketch_fill=max(planned.sketch_fill, floors.sketch_fill),
        slides=max(planned.slides, pixels.slides if pixels else 1),
        pixels=max(planned.pixels, pixels.pixels if pixels else 1),
        group_pixels=max(planned.group_pixels, pixels.group_pixels if pixels else 1),
    )
