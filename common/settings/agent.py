"""The sections of every agent: network, ladder, poses, learning, evaluation."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from common.settings.fields import Frozen, Positive, Rungs, Share
from common.settings.misfit import MisfitError

Width = Annotated[int, Field(ge=1, le=8192)]
Architecture = Literal[
    "triplanar", "planar", "volume-light", "paper2d", "network3d", "commnet", "collab"
]


_ENTROPY: Final = 0.01


class NetworkSettings(Frozen):
    """The choice of a Q-network.

    Attributes:
        architecture: ``triplanar`` (three cuts), ``planar`` (images) and ``volume-light``
            (true 3D) are light strided networks; ``paper2d``, ``network3d``, ``commnet``
            and ``collab`` are the field's published ones.
        width: channels of the first convolution of a light network; the others are
            multiples of it. The published networks have their published widths.
        dueling: separate streams for the value of a state and the advantage of its actions.
        attention: weigh what the agents of ``commnet`` tell each other.
        hidden: sizes of the dense layers before the heads.
        private_heads: for a plan: what belongs to one head alone, the heads and the private
            layers of the published networks, stays at each site; the rest is averaged.
    """

    architecture: Architecture = "triplanar"
    width: Annotated[int, Field(ge=4, le=64)] = 16
    dueling: bool = False
    attention: bool = False
    hidden: Annotated[tuple[Width, ...], Field(min_length=1, max_length=6, strict=False)] = (
        256,
        128,
    )
    private_heads: bool = False

    @model_serializer(mode="wrap")
    def _without_what_only_some_plans_say(
        self, serialize: SerializerFunctionWrapHandler
    ) -> dict[str, object]:
        """Without heads that are not private: plans that say nothing keep their fingerprint."""
        whole: dict[str, object] = serialize(self)
        return {n: v for n, v in whole.items() if n != "private_heads" or v}


class LadderSettings(Frozen):
    """The rungs that a search descends, coarse to fine.

    Attributes:
        scales: sampling stride of the observation per level, in working voxels.
        steps_mm: step length per level. One rung makes a search of a fixed scale.
    """

    scales: Rungs = (3.0, 2.0, 1.0)
    steps_mm: Rungs = (9.0, 3.0, 1.0)

    @model_validator(mode="after")
    def _one_step_per_scale(self) -> Self:
        if len(self.scales) != len(self.steps_mm):
            raise ValueError("scales and steps_mm must have the same length")
        return self


class PoseSettings(Frozen):
    """Extent of the random pose and contrast that are drawn for every episode.

    Attributes:
        rotation_deg: largest turn about each axis, degrees.
        scale_fraction: largest relative change of size.
        shift_mm: largest shift along each axis, mm.
        gamma_contrast: the contrast's exponent lies between 1 / (1 + this) and 1 + this.
    """

    rotation_deg: Annotated[float, Field(ge=0, le=180)] = 15.0
    scale_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    shift_mm: Annotated[float, Field(ge=0, le=500)] = 15.0
    gamma_contrast: Annotated[float, Field(ge=0, lt=1)] = 0.2


class LearnerSettings(Frozen):
    """An agent's way of learning.

    Attributes:
        method: ``dqn`` learns what each step of the ladder is worth, and searches by steps.
            ``displacement`` regresses the way to each landmark, and goes as far as it says: for
            landmarks alone; it keeps no replay, explores nothing and counts no experience, so
            that what is said below of these means nothing to it. ``partial-policy`` is an
            actor-critic with a policy for every axis: searches move along all axes at once, as
            their policies say, and end at the mean of their last places; what it remembers is
            drawn uniformly, and no experience is counted.
        updates: gradient steps that are planned; every schedule runs over them.
        batch: transitions per gradient step.
        searches: searches stepped in lockstep, once per gradient step.
        episode_steps: steps after which a search is cut off (truncated, not terminal).
        warmup: transitions gathered at random before the first update.
        gamma: discount.
        double: Double DQN: the online network chooses, the target network values.
        loss: ``huber`` (threshold 1) or ``squared``.
        warm_start: share of the planned updates that, before DQN begins, regress the
            immediate rewards of all actions (path supervision, no bootstrap). Of partial
            policies: that teach each axis its better step, before they act by themselves.
        path_supervision_only: all updates do so: the baseline without reinforcement.
        entropy: weight of the policies' entropy, for ``partial-policy``.
        target: ``ema`` follows the online network slowly, ``hard`` copies it at times.
        target_decay: share of the online network that moves into an ``ema`` per update.
        target_period: updates between the copies of a ``hard`` target.
        replay: how transitions are drawn: ``uniform``; ``prioritised`` by their last
            temporal-difference error; ``rare-first`` by how seldom their experience
            was counted; ``wrong-first`` by the mean error of their experience, which in a
            federation is that of all sites.
        replay_capacity: transitions kept, oldest overwritten.
        rare_first: exponent of the inverse frequency of ``rare-first``.
        importance: exponent of the importance-weight correction of ``rare-first`` and
            ``wrong-first``.
        priority_alpha: exponent of the error in ``prioritised`` and ``wrong-first``.
        priority_beta: exponent of ``prioritised``'s importance-weight correction at first;
            it grows linearly to 1 over the planned updates.
        learning_rate: Adam's at first.
        learning_rate_end: the share of it that is left at the end.
        learning_rate_schedule: ``linear`` and ``cosine`` fall over the planned updates,
            ``step`` falls by equal factors after each of ``learning_rate_steps`` equal
            parts, ``constant`` stays.
        learning_rate_steps: see there.
        gradient_clip: largest L2 norm of a gradient.
        epsilon_start, epsilon_end: share of random actions, from one to the other
            linearly over ``epsilon_over``, a share of the planned updates.
    """

    method: Literal["dqn", "displacement", "partial-policy"] = "dqn"
    updates: Annotated[int, Field(ge=0, le=100_000_000)] = 2000
    batch: Annotated[int, Field(ge=1, le=4096)] = 64
    searches: Annotated[int, Field(ge=1, le=1024)] = 32
    episode_steps: Annotated[int, Field(ge=2, le=1000)] = 20
    warmup: Annotated[int, Field(ge=1, le=10_000_000)] = 1000
    gamma: Annotated[float, Field(ge=0, lt=1)] = 0.9
    double: bool = True
    loss: Literal["huber", "squared"] = "huber"
    warm_start: Share = 0.0
    path_supervision_only: bool = False
    entropy: Annotated[float, Field(ge=0, le=1)] = _ENTROPY
    target: Literal["ema", "hard"] = "ema"
    target_decay: Annotated[float, Field(gt=0, le=1)] = 0.01
    target_period: Annotated[int, Field(ge=1, le=1_000_000)] = 2500
    replay: Literal["uniform", "prioritised", "rare-first", "wrong-first"] = "uniform"
    replay_capacity: Annotated[int, Field(ge=100, le=10_000_000)] = 60_000
    rare_first: Annotated[float, Field(gt=0, le=2)] = 0.5
    importance: Share = 0.5
    priority_alpha: Annotated[float, Field(gt=0, le=2)] = 0.6
    priority_beta: Share = 0.4
    learning_rate: Positive = 1e-3
    learning_rate_end: Annotated[float, Field(gt=0, le=1)] = 0.1
    learning_rate_schedule: Literal["linear", "cosine", "step", "constant"] = "linear"
    learning_rate_steps: Annotated[int, Field(ge=2, le=1000)] = 4
    gradient_clip: Positive = 10.0
    epsilon_start: Share = 1.0
    epsilon_end: Share = 0.1
    epsilon_over: Annotated[float, Field(gt=0, le=1)] = 0.5

    @model_validator(mode="after")
    def _schedules_make_sense(self) -> Self:
        if self.epsilon_end > self.epsilon_start:
            raise ValueError("epsilon_end must not be above epsilon_start")
        if self.path_supervision_only and self.warm_start > 0:
            raise ValueError("path_supervision_only makes a warm_start meaningless: leave it at 0")
        return self

    @model_validator(mode="after")
    def _method_has_its_own(self) -> Self:
        if self.method == "displacement":
            for key in ("path_supervision_only", "warm_start", "replay"):
                default = type(self).model_fields[key].default
                if (got := getattr(self, key)) != default:
                    expected = f"{default} with method displacement, which has none"
                    raise MisfitError(key, expected, str(got))
        if self.method == "partial-policy" and self.replay != "uniform":
            expected = "uniform with method partial-policy, which counts nothing"
            raise MisfitError("replay", expected, self.replay)
        if self.method != "partial-policy" and self.entropy != _ENTROPY:
            expected = f"left out with method {self.method}, which has no policy"
            raise MisfitError("entropy", expected, f"{self.entropy:g}")
        return self

    @property
    def moves_all_axes(self) -> bool:
        """True where a search moves along all axes at once."""
        return self.method == "partial-policy"

    @model_serializer(mode="wrap")
    def _without_what_only_some_plans_say(
        self, serialize: SerializerFunctionWrapHandler
    ) -> dict[str, object]:
        """Without the first of the methods: plans that say nothing keep their fingerprint."""
        whole: dict[str, object] = serialize(self)
        silent = {"method": "dqn", "entropy": _ENTROPY}
        return {n: v for n, v in whole.items() if n not in silent or v != silent[n]}


class EvaluationSettings(Frozen):
    """The way greedy searches are run and summarised.

    Attributes:
        starts: searches per case, pose and head; their consensus is reported, too.
        poses: random poses per case.
        native: search the cases as acquired, too.
        most_steps: steps after which a search ends wherever it is.
        visits: visits of one place within the last 20 steps that make an oscillation.
        active_termination: for learner.method dqn: a level also ends where even the best action
            promises a loss, and not only where a search oscillates; fewer steps.
        warm_start: searches begin a few coarse steps from the mean training position (of planes:
            from the mean plane), and not anywhere; for a model that knows it.
        outlier_mads: a start that ended further from the starts' median than this many
            median absolute deviations is left out of their consensus.
    """

    starts: Annotated[int, Field(ge=1, le=100)] = 5
    poses: Annotated[int, Field(ge=1, le=1000)] = 4
    native: bool = True
    most_steps: Annotated[int, Field(ge=1, le=10_000)] = 80
    visits: Annotated[int, Field(ge=2, le=20)] = 3
    active_termination: bool = False
    warm_start: bool = False
    outlier_mads: Positive = 3.0

    @model_serializer(mode="wrap")
    def _without_what_only_some_plans_say(
        self, serialize: SerializerFunctionWrapHandler
    ) -> dict[str, object]:
        """Without what is not switched on: such plans keep their fingerprint."""
        whole: dict[str, object] = serialize(self)
        switches = ("active_termination", "warm_start")
        return {n: v for n, v in whole.items() if n not in switches or v}
