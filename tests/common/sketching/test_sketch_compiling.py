"""Compiling is quiet, and works where nothing can be written."""

import os
import subprocess
import sys

import pytest

from common.sketching import compiling

PROGRAM = """
import numpy as np
from common.sketching import CountSketch, SketchSpec
from common.sketching.dictionary import KeyDictionary
from common.sketching.recovery import RecoverySketch
long = np.arange(600_000, dtype=np.uint64)
keys = long[:200_000]
for columns in (50, 70_000):
    sketch = CountSketch(SketchSpec(3, columns, bytes(16)))
    sketch.update(keys, threads=2)
    sketch.update(long, threads=2)
    sketch.update(keys[:9], np.ones(9, np.int64))
    sketch.estimate(keys[:9])
for limit, some in ((9, keys), (1 << 19, long)):
    exact = KeyDictionary(limit, np.uint64(1))
    exact.count(some)
    exact.items()
views = RecoverySketch(SketchSpec(3, 50, bytes(16)), [60, 60, 60], 2, 1)
views.update(keys)
views.above(10_000)
"""


@pytest.mark.slow
def test_compiling_every_kernel_warns_of_nothing(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env=environment,
        capture_output=True,
        encoding="utf-8",
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert list(tmp_path.rglob("*.nbc")), "a writable cache is used"


def test_kernels_compile_without_a_place_for_a_cache(monkeypatch):
    njit = compiling.njit

    def without_cache(**options):
        if options.pop("cache", False):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    def double(x):
        return 2 * x

    monkeypatch.setattr(compiling, "njit", without_cache)
    assert compiling.compiled(double)(21) == 42
