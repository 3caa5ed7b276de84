"""A site's own heads lie in the folder of the model that it came to, and are used with it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from common.checkpoint import loaded_weights
from common.model import initial_weights, own_part, shared_part, weights_digest
from common.plan import parse_plan
from common.policy import read_policy
from site_client.agent_app.checkpoint import read_checkpoint
from site_client.egress.policy import default_policy_text
from site_client.kept import KeptModels
from site_client.worker.models import Models

AT = datetime(2026, 3, 4, tzinfo=UTC)
ASKED = {
    "name": "p",
    "seed": 1,
    "task": {"landmarks": ["A", "B"], "roi": 9},
    "network": {"width": 4, "hidden": [8], "private_heads": True},
}


@pytest.fixture
def plan():
    return parse_plan(ASKED)


@pytest.fixture
def kept(tmp_path):
    return KeptModels(tmp_path / "models")


@pytest.fixture
def keep(kept, plan):
    def of(weights, own=None):
        return Models(kept.root).keep(shared_part(weights, plan), plan, "run-1", AT, own=own)

    return of


def test_a_model_is_whole_with_the_heads_it_was_kept_with(keep, kept, plan):
    weights = initial_weights(plan)
    digest = keep(weights, own_part(weights, plan))
    assert digest == weights_digest(shared_part(weights, plan))
    whole = loaded_weights(kept.weights_file(digest).read_bytes())
    assert all(whole[name].tobytes() == weights[name].tobytes() for name in weights)
    assert read_checkpoint(kept.place(digest), with_state=False).weights.keys() == weights.keys()


def test_heads_of_an_earlier_run_are_not_mixed_into_a_later_one(keep, kept, plan):
    weights = initial_weights(plan)
    digest = keep(weights, own_part(weights, plan))
    assert keep(weights) == digest
    assert (
        loaded_weights(kept.weights_file(digest).read_bytes()).keys()
        == shared_part(weights, plan).keys()
    )


def test_a_later_run_starts_from_what_the_sites_share(keep, kept, plan, tmp_path):
    weights = initial_weights(plan)
    digest = keep(weights, own_part(weights, plan))
    policy = tmp_path / "policy.toml"
    policy.write_text(default_policy_text())
    further = parse_plan(ASKED | {"start": digest})
    start = Models(kept.root).start_of(further, read_policy(policy), None)
    assert weights_digest(start) == digest
    assert start.keys() == shared_part(weights, plan).keys()
