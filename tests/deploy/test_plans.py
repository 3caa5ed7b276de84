"""The plans that come with Cairn can be started as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from aggregator.start import check_feasible
from common.plan import read_plan
from common.policy import check_plan, read_policy
from site_client.egress.policy import default_policy_text
from site_client.worker.study import weights_bytes

PLANS = sorted((Path(__file__).resolve().parents[2] / "deploy" / "plans").glob("*.toml"))


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_every_plan_is_one_that_can_be_carried_out(path):
    text = path.read_text()
    assert text.startswith("# "), "it says what it is for"
    if path.stem != "pixels-demo-maps":  # its codec and codebook are the run's before it
        check_feasible(read_plan(path))


@pytest.mark.parametrize("name", ["demo", "landmarks", "no-op"])
def test_a_site_that_changed_nothing_may_serve_it(name, tmp_path):
    (tmp_path / "policy.toml").write_text(default_policy_text())
    (path,) = [path for path in PLANS if path.stem == name]
    plan = read_plan(path)
    check_plan(read_policy(tmp_path / "policy.toml"), plan, weights_bytes=weights_bytes(plan))
