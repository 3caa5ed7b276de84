"""From a task to a network that fits it, with first weights or with those of a checkpoint."""

from __future__ import annotations

import torch

from common.model import Weights
from site_client.agent.device import pick_device
from site_client.agent.network import set_weights
from site_client.agent.networks import PLAIN, QNetwork, build_network, fastest
from site_client.agent.task import Task
from site_client.agent_app.config import Config


def new_network(task: Task, config: Config) -> QNetwork:
    """Build a network with first weights from the run's seed alone."""
    generator = torch.Generator().manual_seed(config.run.seed)
    execution = fastest() if config.run.execution == "fastest" else PLAIN
    device = pick_device(config.run.device)
    network = build_network(config.network, task, generator, execution, device)
    network.moves_all_axes = config.learner.moves_all_axes
    return network


def network_of(task: Task, weights: Weights, config: Config) -> QNetwork:
    """Build a network with a checkpoint's weights.

    Raises:
        InputDataError: they are not those of its configuration.
    """
    network = new_network(task, config)
    set_weights(network, weights)
    return network
