"""Collab-DQN: agents that share only how they see, and decide each for themselves.

Source: Vlontzos et al., Multiple Landmark Detection using Multi-Agent Reinforcement
Learning, MICCAI 2019. It differs from `Network3D` by a wide private layer of 512
before the others.
"""

from __future__ import annotations

from site_client.agent.networks.base import Spaces
from site_client.agent.networks.volume import Network3D

_FIRST_PRIVATE = 512


class CollabQ(Network3D):
    """Shared 3D convolutions, private dense layers 512 and `hidden`."""

    def __init__(self, space: Spaces, hidden: tuple[int, ...], *, dueling: bool) -> None:
        super().__init__(space, (_FIRST_PRIVATE, *hidden), dueling=dueling, architecture="collab")
