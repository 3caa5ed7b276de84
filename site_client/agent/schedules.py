"""Schedules of exploration and learning rate, over the planned updates."""

from __future__ import annotations

import math

from common.settings import LearnerSettings


def epsilon(settings: LearnerSettings, progress: float) -> float:
    """Share of random actions after ``progress`` (0..1) of the planned updates."""
    done = min(1.0, progress / settings.epsilon_over)
    return settings.epsilon_start - (settings.epsilon_start - settings.epsilon_end) * done


def learning_rate(settings: LearnerSettings, progress: float) -> float:
    """Adam's learning rate after ``progress`` (0..1) of the planned updates."""
    done, end = min(1.0, progress), settings.learning_rate_end
    match settings.learning_rate_schedule:
        case "constant":
            factor = 1.0
        case "linear":
            factor = 1 - (1 - end) * done
        case "cosine":
            factor = end + (1 - end) * (1 + math.cos(math.pi * done)) / 2
        case "step":
            parts = settings.learning_rate_steps
            factor = end ** (min(parts - 1, int(parts * done)) / (parts - 1))
    return settings.learning_rate * factor
