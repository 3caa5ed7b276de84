"""The sections of a plan that trains: task, model, agent, and the sketch of experience."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from common.plan.fields import Frozen, Positive

LandmarkName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.+-]{0,63}$")]


class Task(Frozen):
    """The landmarks that the agents look for.

    Attributes:
        kind: the parametric task; a point in a volume.
        landmarks: names as they stand in the sites' landmark files; their order
            is the order of the network's heads.
        working_spacing_mm: every image is resampled to this isotropic grid.
    """

    kind: Literal["landmark-3d"] = "landmark-3d"
    landmarks: Annotated[tuple[LandmarkName, ...], Field(min_length=1, max_length=64, strict=False)]
    working_spacing_mm: Positive = 1.0

    @model_validator(mode="after")
    def _landmarks_differ(self) -> Self:
        if len(set(self.landmarks)) != len(self.landmarks):
            raise ValueError("landmarks must differ from each other")
        return self


class Model(Frozen):
    """The Q-network.

    Attributes:
        architecture: ``triplanar`` sees three orthogonal cuts through its position.
        roi: side of each cut in samples.
        width: channels of the first convolution; the others are multiples of it.
        start: digest of the weights that the run starts from, which every site must know;
            none: weights drawn from the plan's seed.
    """

    architecture: Literal["triplanar"] = "triplanar"
    roi: Annotated[int, Field(ge=9, le=129)] = 45
    width: Annotated[int, Field(ge=4, le=64)] = 16
    start: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> dict[str, object]:
        """TOML has no null: a plan that starts from its seed does not speak of a start."""
        whole: dict[str, object] = serialize(self)
        return {name: value for name, value in whole.items() if value is not None}


class Agent(Frozen):
    """A site's way of training; every default is visible here.

    Attributes:
        scales: sampling stride of the ROI per level, coarse to fine, in working voxels.
        steps_mm: step length per level, coarse to fine.
        searches: searches stepped in lockstep.
        episode_steps: steps after which a search is cut off (truncated, not terminal).
        updates: gradient steps per round.
        batch: transitions per gradient step.
        learning_rate: Adam's, falling linearly to a tenth over the planned rounds.
        gamma: discount.
        target_decay: share of the online network that moves into the target per update.
        double: Double DQN targets.
        warm_start: share of the planned updates that, before DQN begins, regress the
            immediate rewards of all actions (path supervision, no bootstrap).
        warmup: transitions gathered at random before the first update.
        replay_capacity: transitions kept, oldest overwritten.
        rare_first: exponent of the inverse frequency with which transitions are
            drawn; 0 draws uniformly, which no other way beat at equal effort
            (deploy/results/RESULTS.md).
        importance: exponent of the importance-weight correction, 0 to 1.
        epsilon_end: exploration after the first half of the planned updates.
        gradient_clip: largest L2 norm of a gradient.
        rotation_deg, scale_fraction, shift_mm, gamma_contrast: extent of the random pose
            and contrast drawn for every episode.
        evaluation_starts: searches per subject and landmark in an evaluation.
    """

    scales: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=6, strict=False)] = (
        3.0,
        2.0,
        1.0,
    )
    steps_mm: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=6, strict=False)] = (
        9.0,
        3.0,
        1.0,
    )
    searches: Annotated[int, Field(ge=1, le=1024)] = 32
    episode_steps: Annotated[int, Field(ge=2, le=1000)] = 20
    updates: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    batch: Annotated[int, Field(ge=1, le=4096)] = 64
    learning_rate: Positive = 1e-3
    gamma: Annotated[float, Field(ge=0, lt=1)] = 0.9
    target_decay: Annotated[float, Field(gt=0, le=1)] = 0.01
    double: bool = True
    warm_start: Annotated[float, Field(ge=0, le=1)] = 0.0
    warmup: Annotated[int, Field(ge=1, le=10_000_000)] = 1000
    replay_capacity: Annotated[int, Field(ge=100, le=10_000_000)] = 60_000
    rare_first: Annotated[float, Field(ge=0, le=2)] = 0.0
    importance: Annotated[float, Field(ge=0, le=1)] = 0.5
    epsilon_end: Annotated[float, Field(ge=0, le=1)] = 0.1
    gradient_clip: Positive = 10.0
    rotation_deg: Annotated[float, Field(ge=0, le=180)] = 15.0
    scale_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    shift_mm: Annotated[float, Field(ge=0, le=500)] = 15.0
    gamma_contrast: Annotated[float, Field(ge=0, lt=1)] = 0.2
    evaluation_starts: Annotated[int, Field(ge=1, le=100)] = 5

    @model_validator(mode="after")
    def _one_step_per_scale(self) -> Self:
        if len(self.scales) != len(self.steps_mm):
            raise ValueError("scales and steps_mm must have the same length")
        return self


class Experience(Frozen):
    """The count sketch of experience tuples; equal everywhere or tables cannot be added."""

    rows: Annotated[int, Field(ge=1, le=64)] = 5
    columns: Annotated[int, Field(ge=16, le=2_000_000)] = 20_000
    position_bins: Annotated[int, Field(ge=2, le=64)] = 24
    reward_bins: Annotated[int, Field(ge=2, le=16)] = 5
