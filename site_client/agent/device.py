"""The one place that decides where networks compute.

Everything defaults to the processor: its sums are the ones that figures were frozen
with. A graphics card adds up in another order, and gives other weights in the last bits.
"""

from __future__ import annotations

import os
from typing import Final, Literal, get_args

import torch

from common.errors import InputDataError

DeviceName = Literal["cpu", "cuda", "auto"]
VARIABLE: Final = "CAIRN_DEVICE"
"""Environment of a worker: where it computes. Unset means the processor."""


def pick_device(name: str) -> torch.device:
    """Choose a device by name; ``auto`` takes a graphics card where there is one.

    Raises:
        InputDataError: no such name, or no card that torch can use.
    """
    if name not in get_args(DeviceName):
        raise InputDataError(
            "no such device", field="device", expected=" or ".join(get_args(DeviceName)), got=name
        )
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise InputDataError(
            "no graphics card that torch can use",
            field="device",
            expected="one, with a build of torch for it",
            got=f"torch {torch.__version__}, which sees none",
            advice="Use cpu, or auto to take a card only where there is one",
        )
    if name == "cpu" or not there:
        return torch.device("cpu")
    # Deterministic matrix products ask for this before the first of them.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return torch.device("cuda")


def worker_device() -> torch.device:
    """Choose the device of a worker, by its environment.

    Raises:
        InputDataError: see `pick_device`.
    """
    return pick_device(os.environ.get(VARIABLE, "cpu"))
