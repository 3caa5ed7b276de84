"""``[bounds]`` and ``[budget]``: how far any plan may go, and how much all runs together.

Every field has a safe value, so that a policy written before a bound existed has it.
A plan may be bent in many ways to make one gradient speak of one picture: a batch of
one, a handful of searches that never move, samples so near each other that a cut is a
single voxel, replay that draws one transition again and again. What closes each of
them is said beside the field.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field

from common.settings import Frozen

Whole = Annotated[int, Field(ge=0, lt=2**53)]
Measure = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Ends = TypeVar("_Ends", tuple[int, int], tuple[float, float])


def _ordered(ends: _Ends) -> _Ends:
    if ends[1] < ends[0]:
        raise ValueError("the least, then the most")
    return ends


WholeRange = Annotated[tuple[Whole, Whole], Field(strict=False), AfterValidator(_ordered)]
MeasureRange = Annotated[tuple[Measure, Measure], Field(strict=False), AfterValidator(_ordered)]


class Bounds(Frozen):
    """``[bounds]``: the least and the most that a plan may ask for, both allowed.

    Those that say what training is are not asked of plans that train nothing.

    Attributes:
        batch, updates: transitions behind a gradient, and gradients behind an update.
        warmup: transitions gathered before the first gradient.
        replay_capacity: transitions held, out of which a batch is drawn.
        searches: searches stepped together.
        episode_steps: steps of a search; long ones make few searches of many transitions.
        episodes: the least number of searches behind what a batch is drawn from. Each draws
            its image anew, so a gradient speaks of many images and not of one.
        learning_rate, gradient_clip: gradients clipped to almost nothing pass Adam undivided,
            and can be read back out of the update.
        rare_first: a large exponent draws the one rarest transition again and again.
        scales, spacing_mm, view_mm: a cut whose samples lie within one voxel, or all but one
            outside of the image, is one grey value instead of a picture; ``view_mm`` is the
            side of a cut.
        steps_mm: a search whose steps are tiny, or all lead out of the image, stays where
            it is.
        scale_fraction, shift_mm: the same, by way of random poses.
        evaluation_starts: searches per image and landmark in an evaluation.
        angles_deg, reach_mm: steps and reach of searches for planes and motions, likewise.
        evaluation_poses, evaluation_steps: random poses per image, and steps of a search.
        priority_alpha: as ``rare_first``, of replay by temporal-difference error.
        roi, width, hidden, landmarks: size of the network; many neurons can be made to tell
            one crop each.
        experience_rows, experience_columns, position_bins: size and fineness of the table.
        training_rounds, quorum, deadline_s, server_momentum: course of a run.
        update_l2: the largest norm of an update.
        max_cells_per_input: table cells that may leave per transition counted; more make
            the table a list of them.
        min_transitions: the floor that a plan may ask for; what trains nothing makes up
            as many.
        pixel_rows, pixel_columns, pixel_top: size of the sketches of pixels, and how many
            of their keys may be recovered.
    """

    batch: WholeRange = (16, 1024)
    updates: WholeRange = (10, 5000)
    warmup: WholeRange = (100, 1_000_000)
    replay_capacity: WholeRange = (1000, 1_000_000)
    searches: WholeRange = (4, 256)
    episode_steps: WholeRange = (5, 200)
    episodes: Annotated[int, Field(ge=1, lt=2**31)] = 16
    learning_rate: MeasureRange = (1e-6, 1e-2)
    gradient_clip: MeasureRange = (1e-3, 100.0)
    rare_first: MeasureRange = (0.0, 0.5)
    priority_alpha: MeasureRange = (0.0, 0.7)
    scales: MeasureRange = (0.5, 8.0)
    spacing_mm: MeasureRange = (0.5, 4.0)
    view_mm: MeasureRange = (8.0, 400.0)
    steps_mm: MeasureRange = (0.5, 30.0)
    angles_deg: MeasureRange = (0.5, 30.0)
    reach_mm: MeasureRange = (1.0, 150.0)
    scale_fraction: MeasureRange = (0.0, 0.5)
    shift_mm: MeasureRange = (0.0, 100.0)
    evaluation_starts: WholeRange = (1, 20)
    evaluation_poses: WholeRange = (1, 10)
    evaluation_steps: WholeRange = (5, 400)
    roi: WholeRange = (9, 65)
    width: WholeRange = (4, 32)
    hidden: WholeRange = (8, 512)
    landmarks: WholeRange = (1, 32)
    experience_rows: WholeRange = (1, 32)
    experience_columns: WholeRange = (16, 200_000)
    position_bins: WholeRange = (2, 32)
    training_rounds: WholeRange = (1, 500)
    quorum: WholeRange = (2, 1000)
    deadline_s: MeasureRange = (1.0, 86_400.0)
    server_momentum: MeasureRange = (0.0, 0.9)
    update_l2: MeasureRange = (0.0, 100.0)
    max_cells_per_input: MeasureRange = (0.01, 100.0)
    min_transitions: WholeRange = (1, 1_000_000)
    pixel_rows: WholeRange = (3, 32)
    pixel_columns: WholeRange = (16, 500_000)
    pixel_top: WholeRange = (1, 100_000)


class Budget(Frozen):
    """``[budget]``: what may leave within any ``days`` days, over all runs together.

    Attributes:
        days: length of the window, which moves with the clock.
        runs: different runs answered.
        rounds: rounds of work answered: training, or the pixels of slides.
        evaluations: evaluations answered on their own.
        bytes: envelope bytes.
    """

    days: Annotated[int, Field(ge=1, le=3660)] = 30
    runs: Whole = 40
    rounds: Whole = 600
    evaluations: Whole = 60
    bytes: Whole = 8 * 2**30
