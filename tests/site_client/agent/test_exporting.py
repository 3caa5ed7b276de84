"""A network for programs of others computes what torch computes, or is not written."""

from __future__ import annotations

import builtins
import dataclasses
import json

import numpy as np
import pytest
import torch

from common.errors import VerificationError
from site_client.agent import exporting
from site_client.agent.exporting import TOLERANCE, export_onnx
from site_client.agent.network import get_weights
from site_client.agent.networks import build_network
from site_client.agent_app.config import parse_config

SMALL = {
    "triplanar": {"task": {"kind": "landmark-3d", "landmarks": ["AC", "PC"], "roi": 13}},
    "planar": {"task": {"kind": "landmark-2d", "landmarks": ["a", "b", "c"], "roi": 15}},
    "box planar": {"task": {"kind": "box-2d", "landmarks": ["1"], "roi": 17}},
    "plane planar": {"task": {"kind": "view-plane", "plane_landmarks": ["a", "b", "c"], "roi": 21}},
    "paper2d": {"task": {"kind": "landmark-2d", "landmarks": ["a", "b"], "roi": 45}},
    "volume-light": {"task": {"kind": "landmark-3d-cube", "landmarks": ["a", "b"], "roi": 21}},
    "network3d": {"task": {"kind": "landmark-3d-cube", "landmarks": ["a", "b"], "roi": 35}},
    "commnet": {"task": {"kind": "multi-agent-3d", "landmarks": ["a", "b", "c"], "roi": 35}},
    "collab": {"task": {"kind": "multi-agent-3d", "landmarks": ["a", "b"], "roi": 35}},
}


def network_of(tables, architecture, **network):
    """A network with random weights, and its settings."""
    config = parse_config(tables | {"network": {"architecture": architecture, **network}})
    made = build_network(config.network, config.space, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(4)
    for parameter in made.parameters():  # biases, too: what is zero shows no mistake
        parameter.data.normal_(0, 0.1, generator=generator)
    return made, config


def export(made, config, folder):
    return export_onnx(config, get_weights(made), "a test", folder / "model.onnx")


def computed(file, *rows):
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    from onnx.reference import ReferenceEvaluator

    model = onnx.load_from_string(file.read_bytes())
    names = ("observations", "level", "head")
    return ReferenceEvaluator(model).run(None, dict(zip(names, rows, strict=True)))[0]


# The onnx package computes three-dimensional convolutions in python.
SLOW = ("network3d", "commnet", "collab")
CASES = [
    *(pytest.param(n, False, marks=[pytest.mark.slow] if n in SLOW else []) for n in SMALL),
    ("triplanar", True),
]


@pytest.mark.parametrize(("name", "dueling"), CASES)
def test_the_file_computes_what_torch_does_for_any_number_of_searches(tmp_path, name, dueling):
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    architecture = name.split()[-1]
    network, config = network_of(SMALL[name], architecture, dueling=dueling, hidden=[16])
    exported = export(network, config, tmp_path)
    assert exported.difference <= TOLERANCE
    space, rng = config.space, np.random.default_rng(5)
    one = space.shape if space.agents == 1 else (space.agents, *space.shape)
    pixels = rng.random((4, *one), dtype=np.float32)
    level, head = rng.integers(0, space.levels, 4), rng.integers(0, space.heads, 4)
    with torch.no_grad():
        expected = network(*(torch.from_numpy(a) for a in (pixels, level, head))).numpy()
    got = computed(tmp_path / "model.onnx", pixels, level, head)
    assert got.shape == expected.shape
    assert (exported.observations, exported.actions) == (one, expected.shape[-1])
    largest = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(got / largest, expected / largest, atol=TOLERANCE)
    assert np.ptp(expected) > 100 * TOLERANCE


def test_the_file_says_what_it_is_and_holds_no_name_of_a_case(tmp_path):
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    made = network_of(SMALL["triplanar"], "triplanar", hidden=[16])
    export(*made, tmp_path)
    model = onnx.load_from_string((tmp_path / "model.onnx").read_bytes())
    told = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert told["cairn.looks_for"] == ["AC", "PC"]
    assert told["cairn.shown"] == "greys"
    assert "not a medical device" in told["cairn.not_for"]


def test_displacements_are_named_with_their_unit(tmp_path):
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    learner = {"learner": {"method": "displacement"}}
    made = network_of(SMALL["planar"] | learner, "planar", hidden=[16])
    exported = export(*made, tmp_path)
    assert exported.actions == 2
    assert exported.reach_mm == made[1].space.reach_mm
    assert "displacements along 2 axes, in 30, 16, 4 mm by level" in exported.says
    model = onnx.load_from_string((tmp_path / "model.onnx").read_bytes())
    told = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert told["cairn.reach_mm"] == [30, 16, 4]


def test_what_computes_something_else_is_not_written(tmp_path, monkeypatch):
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    made = network_of(SMALL["triplanar"], "triplanar", hidden=[16])
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    with pytest.raises(VerificationError, match="computes something else"):
        export(*made, tmp_path)
    assert not (tmp_path / "model.onnx").exists()


def test_without_the_extra_nothing_is_written(tmp_path, monkeypatch):
    made = network_of(SMALL["triplanar"], "triplanar", hidden=[16])
    honest = builtins.__import__

    def absent(name, *words, **more):
        if name.partition(".")[0] == "onnx":
            raise ModuleNotFoundError(name=name)
        return honest(name, *words, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ModuleNotFoundError):
        export(*made, tmp_path)
    assert not (tmp_path / "model.onnx").exists()


def test_what_is_exported_can_be_told_as_json(tmp_path):
    exported = exporting.Exported("m.onnx", 10, (3, 13, 13), 2, 3, 6, 1e-7)
    assert json.loads(json.dumps(exported.as_dict()))["observations"] == [3, 13, 13]
    assert "float32[n, 3, 13, 13]" in exported.says
    assert dataclasses.asdict(exported)["heads"] == 2
