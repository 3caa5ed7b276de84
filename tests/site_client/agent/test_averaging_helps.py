from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from common.plan import read_plan

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        importlib.util.find_spec("nilearn") is None, reason="nilearn's template is not installed"
    ),
]
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def benchmark():
    path = ROOT / "tests" / "benchmarks" / "agent_learning.py"
    spec = importlib.util.spec_from_file_location("agent_learning", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_federation_finds_landmarks_better_than_any_site_alone(benchmark):
    plan = read_plan(ROOT / "deploy" / "plans" / "demo.toml")
    result = benchmark.measure(plan, seed=0)
    assert result["federated_mm"] < min(result["local_mm"])
    assert result["federated_mm"] < result["prior_mm"] / 3
