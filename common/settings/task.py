"""The task section: what is looked for, and what the agent sees of an image."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from common.settings.fields import Frozen, LandmarkName, Names, Positive
from common.settings.kinds import DEFAULT_KIND, KINDS, kinds_with


def _known(kind: str) -> str:
    """Refuse a kind that no entry of the registry has."""
    if kind not in KINDS:
        raise ValueError(f"one of {', '.join(KINDS)}")
    return kind


TaskName = Annotated[str, AfterValidator(_known)]
Couple = Annotated[tuple[LandmarkName, LandmarkName], Field(strict=False)]


class TaskSettings(Frozen):
    """The search: its goal, and the agent's view of an image.

    Attributes:
        kind: ``landmark-3d`` sees three orthogonal cuts, ``landmark-3d-cube`` a cube,
            ``landmark-2d`` an image; ``multi-agent-3d`` sends several agents into a cube.
            ``box-2d`` and ``box-3d`` look for boxes around lesions or organs, ``turned-box-2d``
            for boxes that lie any way in an image, ``view-plane``
            for a plane in a volume, ``registration-2d`` and ``registration-3d`` for the rigid
            motion between two images; ``centreline-2d`` and ``centreline-3d`` trace a vessel
            from a seed to its end; ``seed-2d`` and ``seed-3d`` place the seed from which a region
            grows to a label; ``glimpses-2d`` reads a large image, such as a slide, by choosing
            where to look at which magnification; ``tracking-2d`` follows landmarks from frame to
            frame of a sequence, from where they are in the first.
        landmarks: their names, one head of the network each; none takes all that are found.
            For boxes and seeds the labels: values of the label images, or names in the table.
        spacing_mm: every image is resampled to this isotropic grid.
        roi: side of what is seen, samples.
        zooms: strides seen at once, as multiples of the level's; for cubes and landmark-2d.
        channels: values of a pixel of an image, for kinds in 2D; 0 takes what the images have,
            which in a plan is one.
        frames: last positions that are seen, the present one included; for the same.
        agents_per_landmark: for multi-agent-3d: 1 sends one agent after each landmark, all
            together; more make a team of so many for each landmark, which then votes.
        team: for multi-agent-3d: a mixed team, the landmark of each of its agents in order, such
            as one agent for the first and two for the second, which then vote. Each of
            task.landmarks is in it; leave agents_per_landmark at 1.
        interchangeable: for landmark-2d and landmark-3d-cube: couples of landmarks whose names
            are a convention of the image, such as the two ends of an axis; each is looked for on
            its side of the turned image, so that pose.rotation_deg may be large, and errors are
            counted in the better of their two orders.
        plane_landmarks: for view-plane: three or more landmarks that lie in the wanted plane;
            it is fitted to those of each case by least squares.
        more_planes: for view-plane: further planes, each by three or more landmarks that lie in it;
            one network looks for all of them. plane.more_normals says where each begins.
        recontrast: for registration without data.moving: show the moving image with another
            contrast, as a second modality might.
        missing: for a plan: whether the cases of a site may lack some of what is looked for,
            ``allow``, and a site even all of it; what belongs to one head alone is then
            averaged over the sites that have it. ``refuse`` takes no labelled image that lacks
            a landmark; an image without a box of some label is always one without.
        crops: for the kinds of one agent that look for landmarks: cropped copies of every training
            image, in which some landmarks lie outside. The agent then says of each landmark how
            sure it is that an image shows it, and reports the others as absent; 0 takes every
            landmark to be there.
        shown: what the agent sees of an image. ``greys`` as they are; ``structure`` is how far each
            grey lies from those around it, either way, in units of how much these differ: it is
            much the same in another contrast. For the kinds that look for landmarks.
        contrasts: copies of every training image whose greys went through random curves, bright to
            dark and back, for a network that will see other contrasts than it was trained on; for
            the same kinds. Each takes the memory of the image.
        world: ``rl-medical`` shows cubes as that system's agents saw them, for its weights.
    """

    kind: TaskName = DEFAULT_KIND
    landmarks: Names = ()
    spacing_mm: Positive = 1.0
    roi: Annotated[int, Field(ge=9, le=129)] = 45
    zooms: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=8, strict=False)] = (1.0,)
    channels: Annotated[int, Field(ge=0, le=256)] = 0
    frames: Annotated[int, Field(ge=1, le=8)] = 1
    agents_per_landmark: Annotated[int, Field(ge=1, le=16)] = 1
    team: Annotated[tuple[LandmarkName, ...], Field(max_length=32, strict=False)] = ()
    interchangeable: Annotated[tuple[Couple, ...], Field(max_length=127, strict=False)] = ()
    plane_landmarks: Names = ()
    more_planes: Annotated[tuple[Names, ...], Field(max_length=15, strict=False)] = ()
    recontrast: bool = False
    missing: Literal["refuse", "allow"] = "refuse"
    crops: Annotated[int, Field(ge=0, le=8)] = 0
    shown: Literal["greys", "structure"] = "greys"
    contrasts: Annotated[int, Field(ge=0, le=16)] = 0
    world: Literal["cairn", "rl-medical"] = "cairn"

    @model_serializer(mode="wrap")
    def _without_what_only_some_plans_say(
        self, serialize: SerializerFunctionWrapHandler
    ) -> dict[str, object]:
        """Without what says nothing: plans that leave it out keep their fingerprint."""
        whole: dict[str, object] = serialize(self)
        silent: dict[str, object] = {
            "missing": "refuse", "crops": 0, "team": (), "more_planes": (), "shown": "greys",
            "contrasts": 0,
        }  # fmt: skip
        return {n: v for n, v in whole.items() if n not in silent or getattr(self, n) != silent[n]}

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        for key, setting in type(self).model_fields.items():
            kinds = kinds_with(setting=key)
            # A setting that no kind names is for every kind.
            if kinds and self.kind not in kinds and getattr(self, key) != setting.default:
                few = f"{', '.join(kinds[:-1])} and {kinds[-1]}" if kinds[1:] else kinds[0]
                raise ValueError(f"{key} is for {few}; leave it out")
        if len(set(self.landmarks)) != len(self.landmarks):
            raise ValueError("landmarks must differ from each other")
        if self.team and (set(self.team) != set(self.landmarks) or self.agents_per_landmark > 1):
            raise ValueError("team must name each of landmarks, with agents_per_landmark at 1")
        coupled = [name for couple in self.interchangeable for name in couple]
        if coupled and self.world != "cairn":
            raise ValueError(
                "interchangeable is for landmark-3d-cube and landmark-2d in world cairn; leave []"
            )
        if self.crops and (coupled or self.world != "cairn"):
            raise ValueError("crops are for landmarks that each have one name, in world cairn")
        if len(set(coupled)) != len(coupled):
            raise ValueError("interchangeable must be couples, each landmark in one at most")
        if self.landmarks and not set(coupled) <= set(self.landmarks):
            raise ValueError("interchangeable must be landmarks that are looked for")
        for key, plane in [
            ("plane_landmarks", self.plane_landmarks),
            *(("more_planes", plane) for plane in self.more_planes),
        ]:
            few_marks = len(set(plane))
            if few_marks != len(plane) or 0 < few_marks < 3 or (key == "more_planes" and not plane):
                raise ValueError(f"{key} must be three or more that differ from each other")
        return self
