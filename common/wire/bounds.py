"""The most that can stand behind a record at all, from the plan alone.

Pure: no file, no socket, no clock. A site that says more than its plan lets it
gather lies or is broken, whichever policy it has. Floors are the other end and
lie in ``expected``. What a bound is counted from is the site's own code; the
tests hold one against the other.
"""

from __future__ import annotations

import math
from typing import Final

from common.plan import FederationPlan, Pixels
from common.schedule import Phase

LARGEST_SLIDE: Final = 2**34
"""Pixels of the largest slide that is believed: 131,072 squared, past any scanner's whole slide."""
MAX_PIXELS: Final = 2**40
MAX_IMAGES: Final = 1_000_000
SHARES_OF_A_ROUND: Final = 64
"""Steps in which a round by time tells how much of its training a site has done."""


def most_transitions(plan: FederationPlan, phase: Phase = "train") -> int:
    """Most transitions that a site can have gathered in one round of a plan.

    The first searches fill the replay to its warm-up, a lockstep at a time; one lockstep
    of all searches follows per update. Every round may be a site's first, for a site may
    come late or begin anew, so the warm-up counts in each. Of displacements a transition is a
    place that one update learned from. A no-op draws as many random
    keys as its own floors ask for, and no more.
    """
    if phase != "train":
        return 0
    if plan.kind == "no-op":
        cells = plan.experience.rows * plan.experience.columns
        per_cell = math.ceil(cells / plan.limits.max_cells_per_input)
        return max(plan.limits.min_transitions, per_cell, plan.experience.columns)
    learner = plan.learner
    warmup = math.ceil(min(learner.warmup, learner.replay_capacity) / learner.searches)
    if learner.method == "displacement":
        warmup = 0  # nothing is remembered
    return gathered_per_update(plan) * (warmup + _most_in_a_round(plan))


def draws_behind(plan: FederationPlan) -> int:
    """Fewest different draws of image and place that stand behind the first gradient.

    Of N transitions by S searches at least max(S, N / steps) come from different draws;
    displacements are of one draw each.
    """
    learner = plan.learner
    if learner.method == "displacement":
        return learner.batch
    transitions = min(learner.warmup, learner.replay_capacity)
    return max(learner.searches, transitions // learner.episode_steps)


def gathered_per_update(plan: FederationPlan) -> int:
    """Transitions that one gradient step gathers."""
    learner = plan.learner
    return learner.batch if learner.method == "displacement" else learner.searches


def most_replays(plan: FederationPlan, phase: Phase = "train") -> int:
    """Most transitions that the gradient steps of one round draw, however often each."""
    return plan.learner.batch * most_updates(plan, phase)


def most_updates(plan: FederationPlan, phase: Phase = "train") -> int:
    """Most gradient steps of one round."""
    return _most_in_a_round(plan) if phase == "train" and plan.trains else 0


def _most_in_a_round(plan: FederationPlan) -> int:
    return math.ceil(plan.learner.updates / plan.rounds.training)


def most_searches(plan: FederationPlan, images: int) -> int:
    """Most searches of one label in an evaluation over so many images."""
    return images * plan.evaluation.starts * plan.evaluation.poses


def most_pixels(slides: int) -> int:
    """Most pixels that a number of slides can have."""
    return min(slides * LARGEST_SLIDE, MAX_PIXELS)


def most_present(section: Pixels, pixels: int) -> int:
    """Most keys that can be present in so many pixels: each once, none rarer than the floor."""
    return min(pixels // section.presence_floor, section.keys)


def samples_of(plan: FederationPlan, images: int, updates: int, cap: int) -> int:
    """Count a site's update in the average.

    In rounds by time a site counts by the share of the round's updates that it has made,
    too, in steps of 1/64: who did a twentieth of them has a twentieth of the say.

    Args:
        plan: of the run.
        images: that it trained on, by its own word.
        updates: gradient steps that it made, likewise.
        cap: what the coordinator admitted it for (``AdmittedSite.samples_cap``).
    """
    whole = min(images, cap)
    if not plan.rounds.train_s:
        return whole
    return max(1, whole * SHARES_OF_A_ROUND * updates // _most_in_a_round(plan))
