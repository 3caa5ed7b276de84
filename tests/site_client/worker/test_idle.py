"""A worker that waits for an order holds nothing that only work needs: it waits day and night."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "scipy", "numba", "SimpleITK", "tifffile", "gymnasium", "matplotlib")


@pytest.mark.parametrize(
    "module", ["site_client.worker.loop", "site_client.worker.noop", "site_client.simulation.hub"]
)
def test_what_a_worker_waits_in_has_not_read_torch_or_any_reader_of_images(module):
    program = f"import {module}, sys; print(*sorted(set({HEAVY!r}) & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout.split() == []
