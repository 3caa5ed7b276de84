"""Sites that are made up: the usual policy but for people, and images that an agent can open."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import InputDataError, InternalError
from common.plan import parse_plan
from common.policy import read_policy
from site_client.egress.policy import default_policy_text
from site_client.imaging.folders import find_cases
from site_client.imaging.landmarks import read_landmarks
from site_client.imaging.synthesis import read_raw
from site_client.simulation import sites
from site_client.simulation.images import make_images
from site_client.simulation.sites import policy_without_people, simulated_key

PLAN = parse_plan(
    {"name": "p", "seed": 1, "task": {"landmarks": ["AC", "PC"], "roi": 9}, "network": {"width": 4}}
)


def test_only_what_needs_people_or_is_drawn_differs_from_the_usual_policy(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text(default_policy_text())
    usual = read_policy(path)
    path.write_bytes(policy_without_people())
    changed = read_policy(path)
    assert (changed.plans.approval, changed.held_out.share) == ("bounded", 0.0)
    assert (changed.peers.least_known, changed.peers.least_in_sum) == (0, 0)
    back = changed.model_copy(
        update={"plans": usual.plans, "held_out": usual.held_out, "peers": usual.peers}
    )
    assert back == usual


def test_another_usual_policy_is_noticed(monkeypatch):
    monkeypatch.setattr(sites, "default_policy_text", lambda: "version = 1\n")
    with pytest.raises(InternalError, match="other words"):
        policy_without_people()


def test_the_key_follows_from_the_seed():
    assert simulated_key(1) == simulated_key(1)
    assert simulated_key(1) != simulated_key(2)


def test_images_have_the_plans_landmarks_and_follow_from_seed_and_site(tmp_path):
    for name, seed in (("a", (1, "site-a")), ("again", (1, "site-a")), ("b", (1, "site-b"))):
        (tmp_path / name).mkdir()
        make_images(tmp_path / name, PLAN, 2, seed)
    cases = find_cases(tmp_path / "a")
    assert len(cases) == 2
    one, same, other = (read_raw(tmp_path / name / "case-0.nii.gz") for name in ("a", "again", "b"))
    np.testing.assert_array_equal(one.voxels, same.voxels)
    assert np.any(one.voxels != other.voxels)
    for name in ("a", "b"):
        found = read_landmarks(tmp_path / name / "case-0.mrk.json")
        assert set(found) == {"AC", "PC"}
        size = np.array(one.grid.size) * one.grid.spacing_mm
        assert all(np.all((place > 0) & (place < size)) for place in found.values())


def test_a_kind_without_made_up_images_is_refused(tmp_path):
    plan = parse_plan({"name": "p", "seed": 1, "task": {"kind": "landmark-2d", "landmarks": ["A"]}})
    with pytest.raises(InputDataError, match=r"task\.kind"):
        make_images(tmp_path, plan, 2, (1, "site-a"))
