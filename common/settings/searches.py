"""The sections of the searches that are no points: boxes, planes, registrations, centrelines."""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from common.settings.fields import Frozen, Positive, Rungs


def _falling(steps: tuple[float, ...]) -> tuple[float, ...]:
    """Refuse steps that do not become finer from level to level."""
    if any(fine > coarse for coarse, fine in itertools.pairwise(steps)):
        raise ValueError("falling steps: levels go from coarse to fine")
    return steps


Falling = Annotated[Rungs, AfterValidator(_falling)]


class BoxSettings(Frozen):
    """The search for boxes; its views have task.roi samples along each side.

    Attributes:
        steps: share of the box's size that one action moves it by, or (as a logarithm) resizes
            it, per level, coarse to fine.
        contexts: sides of the views, as multiples of the box's.
        overlap: intersection over union from which on stopping is rewarded.
        smallest_mm: no box becomes smaller.
        least_voxels: components of fewer voxels in a label image are taken for noise.
        per_axis: starts along each axis when a whole image is searched.
        sizes_mm: sides of the boxes that those searches start with.
        suppress_above: intersection over union above which the worse of two findings is dropped.
        least_score: score below which a box is no finding, -1 to 1.
    """

    steps: Falling = (0.2, 0.07)
    contexts: Rungs = (1.5, 4.0)
    overlap: Annotated[float, Field(gt=0, lt=1)] = 0.5
    smallest_mm: Positive = 2.0
    least_voxels: Annotated[int, Field(ge=1)] = 1
    per_axis: Annotated[int, Field(ge=1, le=64)] = 4
    sizes_mm: Rungs = (20.0, 50.0)
    suppress_above: Annotated[float, Field(ge=0, le=1)] = 0.3
    least_score: Annotated[float, Field(ge=-10, le=10)] = 0.5


Normal = Annotated[tuple[float, float, float], Field(strict=False)]


class PlaneSettings(Frozen):
    """The search for view planes; its cuts have task.roi samples along each side.

    Attributes:
        normal: reference normal along LPS axes, e.g. [1, 0, 0] for sagittal planes.
        more_normals: the reference normal of each of task.more_planes, in their order.
        angles_deg: steps of the two angles per level, coarse to fine.
        offsets_mm: steps of the offset per level.
        strides_mm: distance of neighbouring samples of a cut per level.
        slab: distance of the three parallel cuts, in strides.
        reach_deg: how far from the reference normal a search starts and may go, up to 80.
        reach_mm: how far from the volume's middle.
        lever_mm: a degree counts as the movement of a point of the plane at this distance.
    """

    normal: Normal = (1.0, 0.0, 0.0)
    more_normals: Annotated[tuple[Normal, ...], Field(max_length=15, strict=False)] = ()
    angles_deg: Falling = (8.0, 3.0, 1.0)
    offsets_mm: Falling = (6.0, 2.0, 1.0)
    strides_mm: Rungs = (4.0, 4.0, 3.0)
    slab: Positive = 3.0
    reach_deg: Positive = 40.0
    reach_mm: Positive = 40.0
    lever_mm: Positive = 50.0

    @model_validator(mode="after")
    def _levels_fit(self) -> Self:
        levels = {len(self.angles_deg), len(self.offsets_mm), len(self.strides_mm)}
        # From 90 degrees on, two pairs of angles are the same plane.
        if len(levels) != 1 or self.reach_deg > 80:
            raise ValueError(
                "one angle, offset and stride per level, a reach of at most 80 degrees"
            )
        for normal in (self.normal, *self.more_normals):
            if not any(normal) or not all(map(math.isfinite, normal)):
                raise ValueError("a normal that is not zero")
        return self

    @model_serializer(mode="wrap")
    def _without_what_only_some_plans_say(
        self, serialize: SerializerFunctionWrapHandler
    ) -> dict[str, object]:
        """Without further planes where there are none: such plans keep their fingerprint."""
        whole: dict[str, object] = serialize(self)
        return {n: v for n, v in whole.items() if n != "more_normals" or self.more_normals}


class RegistrationSettings(Frozen):
    """The registration of images; its views have task.roi samples along each side.

    Attributes:
        translations_mm: steps along the axes per level, coarse to fine.
        rotations_deg: steps about the axes per level.
        strides_mm: distance of neighbouring samples of a view per level.
        motion_mm: extent of the motions that are trained and measured, along each axis.
        motion_deg: the same, about each axis.
        reach_mm: how far a search may go.
        reach_deg: the same, about each axis, up to 80.
        lever_mm: a degree counts as the movement of a point at this distance.
        contrasts: random contrast curves through which training shows the moving image, a quarter
            of the scenes as it is, so that no one modality is learned by heart; 0 uses none.
        start: for play: "world" begins where the files say that the images lie, "middle" with
            their middles on each other.
    """

    translations_mm: Falling = (8.0, 3.0, 1.0)
    rotations_deg: Falling = (8.0, 3.0, 1.0)
    strides_mm: Rungs = (4.0, 4.0, 3.0)
    motion_mm: Positive = 20.0
    motion_deg: Positive = 20.0
    reach_mm: Positive = 40.0
    reach_deg: Positive = 40.0
    lever_mm: Positive = 50.0
    contrasts: Annotated[int, Field(ge=0, le=255)] = 0
    start: Literal["world", "middle"] = "world"

    @model_validator(mode="after")
    def _levels_fit(self) -> Self:
        levels = {len(self.translations_mm), len(self.rotations_deg), len(self.strides_mm)}
        fits = self.motion_mm <= self.reach_mm and self.motion_deg <= self.reach_deg <= 80
        if len(levels) != 1 or not fits:
            raise ValueError(
                "one translation, rotation and stride per level, motions within the reach, and "
                "that within 80 degrees"
            )
        return self


class CentrelineSettings(Frozen):
    """The tracing of a vessel's centreline; its views have task.roi samples along each side.

    Attributes:
        step_mm: length of a step.
        turn_deg: angle that a turning step turns by.
        strides_mm: distances of neighbouring samples of the views, all of them seen at once.
        tolerance_mm: within it of the true end stopping is right, and within it of the trace
            a point of the true centreline counts as traced.
        longest: points of a trace; the step after them ends it.
    """

    step_mm: Positive = 2.0
    turn_deg: Annotated[float, Field(gt=0, le=90)] = 20.0
    strides_mm: Rungs = (0.8, 2.0)
    tolerance_mm: Positive = 3.0
    longest: Annotated[int, Field(ge=32, le=128)] = 96


class GrowingSettings(Frozen):
    """The placing of a seed for a region grower; its views have task.roi samples along each side.

    Attributes:
        steps_mm: step length per level, coarse to fine.
        strides_mm: distance of neighbouring samples of the view per level.
        contexts: views seen at once, as multiples of that distance.
        tolerance: greys, of 255, around the seed's own that the region grows through.
        smooth_mm: the image is smoothed so far before it is grown in; 0 leaves it as it is.
        reward: ``dice`` is what the region gains in overlap with the label; ``approach`` is the
            way towards the innermost point of the label: the supervision of who takes that for
            the best seed.
    """

    steps_mm: Falling = (8.0, 3.0, 1.0)
    strides_mm: Rungs = (2.0, 1.0, 1.0)
    contexts: Rungs = (1.0, 3.0)
    tolerance: Annotated[float, Field(ge=1, le=255)] = 30.0
    smooth_mm: Annotated[float, Field(ge=0, le=50)] = 1.0
    reward: Literal["dice", "approach"] = "dice"

    @model_validator(mode="after")
    def _levels_fit(self) -> Self:
        if len(self.steps_mm) != len(self.strides_mm):
            raise ValueError("one step and one stride per level")
        return self


class GlimpseSettings(Frozen):
    """The reading of a large image by glimpses of task.roi samples along each side.

    Attributes:
        scales: distance of neighbouring samples per magnification, in working pixels, coarse to
            fine; a step moves by half of what is seen.
        within: a declared place is right if what is looked for lies within so many working pixels.
        cost: reward that every glimpse takes away.
        reward: ``found`` pays for a right declaration alone; ``approach`` also rewards every step
            and every change of magnification that leads to what is looked for.
    """

    scales: Falling = (16.0, 4.0, 1.0)
    within: Annotated[float, Field(ge=0, le=1000)] = 4.0
    cost: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    reward: Literal["found", "approach"] = "found"
