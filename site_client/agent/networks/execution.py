"""Execution of a network: precision, memory layout, and what becomes of freed memory.

None of it changes what is computed beyond rounding; all of it changes how long it
takes. On a processor with 16-bit matrix instructions a 3D network learns more than
twice as fast; where they would be emulated, `fastest` stays with float32.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

import torch

# Parameters of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


@dataclass(frozen=True)
class Execution:
    """A network's way of computing.

    Attributes:
        channels_last: keep the channels of a voxel side by side, which the
            processor's convolutions prefer.
        bfloat16: convolve and multiply in 16 bits; weights, their gradients and the
            optimiser's state stay float32.
    """

    channels_last: bool = False
    bfloat16: bool = False


PLAIN = Execution()


def fastest() -> Execution:
    """The fastest way this processor offers; `PLAIN` where 16 bits would be emulated."""
    has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    supported = bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    return Execution(channels_last=supported, bfloat16=supported)


def keep_freed_memory() -> bool:
    """Ask the C library to keep freed memory for the next update instead of handing it back.

    A 3D network allocates and frees the same hundreds of megabytes in every update;
    getting them from the system again costs a fifth to a third of the time. For a
    whole process, so a command's decision and not a library's.

    Returns:
        whether the C library understood; others than glibc do not.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))
