"""The sections of a configuration that are not the agent's own: data, task, searches, run.

What each setting means stands in its class and is printed as a comment beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from common.plan import Frozen, LandmarkName, Positive
from site_client.agent_app.registry import DEFAULT_KIND, KINDS, kinds_with

if TYPE_CHECKING:
    # Printing settings needs no sampler and no torch.
    from site_client.agent.tasks.box import BoxSettings
    from site_client.agent.tasks.detection import DetectionSettings
    from site_client.agent.tasks.plane import PlaneSettings
    from site_client.agent.tasks.registration import RegistrationSettings


def _known(kind: str) -> str:
    """Refuse a kind that no entry of the registry has."""
    if kind not in KINDS:
        raise ValueError(f"one of {', '.join(KINDS)}")
    return kind


Kind = Annotated[str, AfterValidator(_known)]
Text = Annotated[str, Field(max_length=4096)]
Names = Annotated[tuple[LandmarkName, ...], Field(max_length=255, strict=False)]
Couple = Annotated[tuple[LandmarkName, LandmarkName], Field(strict=False)]
Rungs = Annotated[tuple[Positive, ...], Field(min_length=1, max_length=6, strict=False)]


class DataSettings(Frozen):
    """Where images and landmarks are, and how they are told apart.

    Attributes:
        images: a BIDS or flat folder, one image, a DICOM folder, or a text file with one
            image path per line; ``--data`` takes its place.
        landmarks: "" looks beside each image (.mrk.json, .fcsv, or .txt with one ``x,y,z``
            voxel line per landmark) and under BIDS derivatives; otherwise a folder of such
            files, a list of them line by line with the images, or a .csv table of all. For
            boxes, label images: "" looks beside each image for <case>_label (_labels, -label,
            _seg, .seg, _dseg, _mask) in any format; otherwise a folder of label images, a list of
            them, or a .csv table "case,label,x0,y0[,z0],x1,y1[,z1]". Not for registration.
        moving: for registration: the moving images, already lying on those of ``images``: a list
            line by line with them, or a folder with the same names; "" moves the image itself.
        validation: images held out, as ``images``; "" splits by subject as below.
        validation_landmarks: as ``landmarks``, for ``validation``.
        validation_moving: as ``moving``, for ``validation``.
        validation_subjects: the subjects to hold out; none draws ``validation_share`` of them.
        validation_share: share of the subjects that is held out; 0 trains on all and has no best
            checkpoint.
        subject: regular expression whose first group, found in a case's name, is the subject;
            "" takes BIDS's sub-..., or else every case for a subject of its own.
        unit: of positions in a table that does not say it: "mm" or "voxel".
        coordinate_system: of positions in mm in a table that does not say it: "LPS" or "RAS".
        names: of the landmarks in files without names, in the order of their lines or columns.
        pixel_mm: size of the pixels of PNG, JPEG, TIFF and BMP files; 0 where all files say it.
    """

    images: Text = ""
    landmarks: Text = ""
    moving: Text = ""
    validation: Text = ""
    validation_landmarks: Text = ""
    validation_moving: Text = ""
    validation_subjects: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    validation_share: Annotated[float, Field(ge=0, le=0.9)] = 0.2
    subject: Text = ""
    unit: Literal["", "mm", "voxel"] = ""
    coordinate_system: Literal["", "LPS", "RAS"] = ""
    names: Names = ()
    pixel_mm: Annotated[float, Field(ge=0, le=100)] = 0.0


class TaskSettings(Frozen):
    """What is looked for, and what the agent sees of an image.

    Attributes:
        kind: ``landmark-3d`` sees three orthogonal cuts, ``landmark-3d-cube`` a cube,
            ``landmark-2d`` an image; ``multi-agent-3d`` sends several agents into a cube.
            ``box-2d`` and ``box-3d`` look for boxes around lesions or organs, ``view-plane``
            for a plane in a volume, ``registration-2d`` and ``registration-3d`` for the rigid
            motion between two images.
        landmarks: their names, one head of the network each; none takes all that are found.
            For boxes the labels: values of the label images, or names in the table.
        spacing_mm: every image is resampled to this isotropic grid.
        roi: side of what is seen, samples.
        zooms: strides seen at once, as multiples of the level's; for cubes and landmark-2d.
        frames: last positions that are seen, the present one included; for the same.
        agents_per_landmark: for multi-agent-3d: 1 sends one agent after each landmark, all
            together; more make a team of so many for each landmark, which then votes.
        interchangeable: for landmark-2d and landmark-3d-cube: couples of landmarks whose names
            are a convention of the image, such as the two ends of an axis; each is looked for on
            its side of the turned image, so that pose.rotation_deg may be large, and errors are
            counted in the better of their two orders.
        plane_landmarks: for view-plane: three or more landmarks that lie in the wanted plane;
            it is fitted to those of each case by least squares.
        recontrast: for registration without data.moving: show the moving image with another
            contrast, as a second modality might.
        world: ``rl-medical`` shows cubes as that system's agents saw them, for its weights.
    """

    kind: Kind = DEFAULT_KIND
    landmarks: Names = ()
    spacing_mm: Positive = 1.0
    roi: Annotated[int, Field(ge=9, le=129)] = 45
    zooms: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=8, strict=False)] = (1.0,)
    frames: Annotated[int, Field(ge=1, le=8)] = 1
    agents_per_landmark: Annotated[int, Field(ge=1, le=16)] = 1
    interchangeable: Annotated[tuple[Couple, ...], Field(max_length=127, strict=False)] = ()
    plane_landmarks: Names = ()
    recontrast: bool = False
    world: Literal["cairn", "rl-medical"] = "cairn"

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
        coupled = [name for couple in self.interchangeable for name in couple]
        if coupled and self.world != "cairn":
            raise ValueError(
                "interchangeable is for landmark-3d-cube and landmark-2d in world cairn; leave []"
            )
        if len(set(coupled)) != len(coupled):
            raise ValueError("interchangeable must be couples, each landmark in one at most")
        if self.landmarks and not set(coupled) <= set(self.landmarks):
            raise ValueError("interchangeable must be landmarks that are looked for")
        few_marks = len(set(self.plane_landmarks))
        if few_marks != len(self.plane_landmarks) or 0 < few_marks < 3:
            raise ValueError("plane_landmarks must be three or more that differ from each other")
        return self


class SearchSection(Frozen):
    """Settings of a search that can be inconsistent in themselves."""

    def check(self, roi: int) -> None:
        """Refuse a search that cannot be.

        Args:
            roi: samples along each side of what is seen.

        Raises:
            InputDataError: names the key.
        """
        raise NotImplementedError


class BoxSection(SearchSection):
    """How boxes are looked for; their views have task.roi samples along each side.

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

    steps: Rungs = (0.2, 0.07)
    contexts: Rungs = (1.5, 4.0)
    overlap: Annotated[float, Field(gt=0, lt=1)] = 0.5
    smallest_mm: Positive = 2.0
    least_voxels: Annotated[int, Field(ge=1)] = 1
    per_axis: Annotated[int, Field(ge=1, le=64)] = 4
    sizes_mm: Rungs = (20.0, 50.0)
    suppress_above: Annotated[float, Field(ge=0, le=1)] = 0.3
    least_score: Annotated[float, Field(ge=-10, le=10)] = 0.5

    def check(self, roi: int) -> None:
        """Refuse steps that do not fall, and starts that cannot be."""
        self.search(roi)
        self.detection()

    def search(self, roi: int) -> BoxSettings:
        """Build the agent's settings.

        Raises:
            InputDataError: steps that do not fall.
        """
        from site_client.agent.tasks.box import BoxSettings

        return BoxSettings(self.steps, self.contexts, roi, self.overlap, self.smallest_mm)

    def detection(self) -> DetectionSettings:
        """Say how a whole image is searched."""
        from site_client.agent.tasks.detection import DetectionSettings

        return DetectionSettings(
            self.per_axis, self.sizes_mm, self.suppress_above, self.least_score
        )


class PlaneSection(SearchSection):
    """How view planes are looked for; their cuts have task.roi samples along each side.

    Attributes:
        normal: reference normal along LPS axes, e.g. [1, 0, 0] for sagittal planes.
        angles_deg: steps of the two angles per level, coarse to fine.
        offsets_mm: steps of the offset per level.
        strides_mm: distance of neighbouring samples of a cut per level.
        slab: distance of the three parallel cuts, in strides.
        reach_deg: how far from the reference normal a search starts and may go, up to 80.
        reach_mm: how far from the volume's middle.
        lever_mm: a degree counts as the movement of a point of the plane at this distance.
    """

    normal: Annotated[tuple[float, float, float], Field(strict=False)] = (1.0, 0.0, 0.0)
    angles_deg: Rungs = (8.0, 3.0, 1.0)
    offsets_mm: Rungs = (6.0, 2.0, 1.0)
    strides_mm: Rungs = (4.0, 4.0, 3.0)
    slab: Positive = 3.0
    reach_deg: Positive = 40.0
    reach_mm: Positive = 40.0
    lever_mm: Positive = 50.0

    def check(self, roi: int) -> None:
        """Refuse a search that cannot be; see `search`."""
        self.search(roi)

    def search(self, roi: int) -> PlaneSettings:
        """Build the agent's settings.

        Raises:
            InputDataError: levels that differ in number, a normal of no length, too far a reach.
        """
        from site_client.agent.tasks.plane import PlaneSettings

        return PlaneSettings(roi=roi, **self.model_dump())


class RegistrationSection(SearchSection):
    """How images are registered; their views have task.roi samples along each side.

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

    translations_mm: Rungs = (8.0, 3.0, 1.0)
    rotations_deg: Rungs = (8.0, 3.0, 1.0)
    strides_mm: Rungs = (4.0, 4.0, 3.0)
    motion_mm: Positive = 20.0
    motion_deg: Positive = 20.0
    reach_mm: Positive = 40.0
    reach_deg: Positive = 40.0
    lever_mm: Positive = 50.0
    contrasts: Annotated[int, Field(ge=0, le=255)] = 0
    start: Literal["world", "middle"] = "world"

    def check(self, roi: int) -> None:
        """Refuse a search that cannot be; see `search`."""
        self.search(roi)

    def search(self, roi: int) -> RegistrationSettings:
        """Build the agent's settings.

        Raises:
            InputDataError: levels that differ in number, motions beyond the reach.
        """
        from site_client.agent.tasks.registration import RegistrationSettings

        return RegistrationSettings(roi=roi, **self.model_dump(exclude={"start"}))


class RunSettings(Frozen):
    """How a run is kept.

    Attributes:
        output: folder for checkpoints, metrics and TensorBoard; ``--output`` takes its place.
        seed: of first weights, exploration, sampling and the split.
        threads: of the network's arithmetic; another number gives other weights.
        execution: ``plain``, or ``fastest``: where the processor has 16-bit arithmetic, convolve
            in it with another memory layout; that gives slightly other weights there.
        log_every: updates between two lines of metrics.
        checkpoint_every: updates between two saves of the latest checkpoint.
        evaluate_every: updates between two evaluations on the validation cases.
        validation_starts: searches per validation case and landmark.
        validation_poses: random poses per validation case.
    """

    output: Text = ""
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    execution: Literal["plain", "fastest"] = "plain"
    log_every: Annotated[int, Field(ge=1)] = 50
    checkpoint_every: Annotated[int, Field(ge=1)] = 500
    evaluate_every: Annotated[int, Field(ge=1)] = 500
    validation_starts: Annotated[int, Field(ge=1, le=100)] = 1
    validation_poses: Annotated[int, Field(ge=1, le=100)] = 2
