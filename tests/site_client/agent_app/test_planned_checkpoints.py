"""What a run of any plan comes to opens as a checkpoint of that plan's agent, of every kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.checkpoint import ABOUT_FILE, MODEL_FILE, loaded_weights, planned_checkpoint, saved
from common.model import initial_weights, weights_digest
from common.plan import parse_plan
from common.settings import KINDS, AgentSettings, sections_of
from site_client.agent.network import get_weights, set_weights
from site_client.agent.networks import build_network
from site_client.agent_app.checkpoint import read_checkpoint, write_checkpoint
from site_client.agent_app.config import RunSettings, parse_config
from site_client.imaging.data_settings import DataSettings

NAMES = {"landmarks": ["a", "b"], "plane_landmarks": ["a", "b", "c"], "": []}
WHOLE = [(kind, network) for kind, entry in KINDS.items() for network in entry.networks]


def plan_of(kind, network):
    named = KINDS[kind].named
    task = {"kind": kind} | ({named: NAMES[named]} if named else {})
    return parse_plan(
        {"name": "any", "seed": 1, "task": task, "network": {"architecture": network}}
    )


@pytest.mark.parametrize(("kind", "network"), WHOLE)
def test_a_plans_model_opens_with_the_plans_settings_and_fits_its_network(tmp_path, kind, network):
    plan = plan_of(kind, network)
    model = saved(initial_weights(plan))
    (tmp_path / MODEL_FILE).write_bytes(model)
    (tmp_path / ABOUT_FILE).write_bytes(planned_checkpoint(plan, model, "run-1"))
    checkpoint = read_checkpoint(tmp_path)
    config = checkpoint.config
    for section in sections_of(kind, AgentSettings.model_fields):
        assert getattr(config, section) == getattr(plan, section), section
    assert (config.data, config.run) == (DataSettings(), RunSettings())
    assert config.space == plan.space
    made = build_network(config.network, config.space, torch.Generator())
    set_weights(made, checkpoint.weights)
    assert weights_digest(get_weights(made)) == weights_digest(initial_weights(plan))


def test_what_train_writes_and_what_a_run_writes_is_read_by_the_same_words(tmp_path):
    plan = plan_of("landmark-2d", "planar")
    model = saved(initial_weights(plan))
    place = tmp_path / "one"
    place.mkdir()
    (place / MODEL_FILE).write_bytes(model)
    (place / ABOUT_FILE).write_bytes(planned_checkpoint(plan, model, "run-1"))
    one = read_checkpoint(place)
    write_checkpoint(tmp_path / "two", one)
    other = read_checkpoint(tmp_path / "two")
    assert other.config == one.config == parse_config(one.config.model_dump(mode="json"))
    assert (other.landmarks, other.origin) == (("a", "b"), "federated run run-1")


def test_equal_weights_give_equal_bytes_and_come_back_bit_for_bit():
    weights = {"b": np.array(1.5, np.float32), "a": np.arange(6, dtype=np.float32).reshape(2, 3)}
    turned = {"a": np.asfortranarray(weights["a"]), "b": weights["b"]}
    assert saved(weights) == saved(turned)
    back = loaded_weights(saved(weights))
    assert {name: array.shape for name, array in back.items()} == {"a": (2, 3), "b": ()}
    assert weights_digest(back) == weights_digest(weights)
