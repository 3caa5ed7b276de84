"""From a task to a network that fits it, and from a constant answer to its parameters."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import InternalError
from site_client.agent.device import pick_device
from site_client.agent.networks import PLAIN, QNetwork, build_network, fastest
from site_client.agent.task import Task
from site_client.agent_app.config import Config


def new_network(task: Task, config: Config) -> QNetwork:
    """Build a network with first weights from the run's seed alone."""
    generator = torch.Generator().manual_seed(config.run.seed)
    execution = fastest() if config.run.execution == "fastest" else PLAIN
    device = pick_device(config.run.device)
    return build_network(config.network, task, generator, execution, device)


def as_parameters(task: Task, prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give a prior float64[heads, agents, d] the axes of the task's parameters.

    Raises:
        InternalError: it is another task's.
    """
    if prior.shape[:2] != (task.heads, task.agents):
        raise InternalError(
            "the constant predictor does not fit the task",
            expected=str((task.heads, task.agents)),
            got=str(prior.shape[:2]),
        )
    return prior if task.agents > 1 else prior[:, 0]
