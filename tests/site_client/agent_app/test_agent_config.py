"""The configuration: nothing hidden, nothing guessed, and a misspelt key is no default."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InputDataError
from common.settings import FEDERATED, KINDS, sections_of
from site_client.agent_app.commands.changes import configuration
from site_client.agent_app.config import (
    Config,
    parse_config,
    read_tables,
    render_config,
)

NAMES = st.lists(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9 _.+-]{0,12}", fullmatch=True), max_size=4, unique=True
)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_printed_is_read_back_as_it_was(kind):
    config = parse_config({"task": {"kind": kind}})
    assert parse_config(tomllib.loads(render_config(config))) == config
    assert parse_config(tomllib.loads(render_config(config, comments=False))) == config


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_is_visible_with_what_it_means(kind):
    text = render_config(parse_config({"task": {"kind": kind}}))
    lines = text.splitlines()
    for name, field in Config.model_fields.items():
        if name not in sections_of(kind, Config.model_fields):
            assert f"[{name}]" not in lines
            continue
        assert f"[{name}]" in lines
        for key in field.annotation.model_fields:
            if (name, key) in FEDERATED:  # of no use to an agent that trains alone
                assert not any(line.startswith(f"{key} = ") for line in lines)
                continue
            (at,) = [
                k
                for k, line in enumerate(lines)
                if line.startswith(f"{key} = ") and section_of(lines, k) == name
            ]
            assert lines[at - 1].startswith("#") or " = " in lines[at - 1], key
    assert max(len(line) for line in lines) <= 100


def section_of(lines, k):
    return next(line[1:-1] for line in reversed(lines[:k]) if line.startswith("["))


@given(
    names=NAMES,
    share=st.floats(0, 0.9),
    seed=st.integers(0, 2**32 - 1),
    path=st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20),
)
@settings(max_examples=40, deadline=None)
def test_any_valid_configuration_survives_toml(names, share, seed, path):
    given_ = {
        "data": {"images": path, "validation_share": share},
        "task": {"landmarks": names},
        "run": {"seed": seed},
    }
    config = parse_config(given_)
    assert parse_config(tomllib.loads(render_config(config))) == config


@pytest.mark.parametrize(
    ("tables", "field", "expected"),
    [
        ({"learner": {"learning_rat": 1.0}}, "learner.learning_rat", "learner.learning_rate"),
        ({"lerner": {}}, "lerner", "learner"),
        ({"learner": {"batch": 0}}, "learner.batch", "greater"),
        ({"learner": {"batch": "many"}}, "learner.batch", "integer"),
        ({"task": 3}, "task", "a table"),
        ({"task": {"landmarks": ["AC", "AC"]}}, "task", "differ"),
        ({"task": {"kind": "landmark-4d"}}, "task.kind", "landmark-3d"),
        ({"task": {"frames": 4}}, "task", "landmark-2d"),
        ({"network": {"architecture": "paper2d"}}, "network.architecture", "triplanar"),
        ({"box": {"overlap": 0.7}}, "box", "box-2d"),
        ({"task": {"kind": "box-2d"}, "ladder": {"scales": [1.0]}}, "ladder", "same length"),
        ({"task": {"kind": "box-2d"}, "box": {"steps": [0.1, 0.2]}}, "box.steps", "falling"),
        ({"task": {"kind": "view-plane", "plane_landmarks": ["AC", "PC"]}}, "task", "three"),
        ({"task": {"plane_landmarks": ["AC", "PC", "x"]}}, "task", "view-plane"),
        ({"task": {"recontrast": True}}, "task", "registration"),
        ({"task": {"missing": "allow"}}, "task.missing", "plan"),
        ({"network": {"private_heads": True}}, "network.private_heads", "plan"),
        ({"task": {"kind": "registration-2d", "landmarks": ["AC"]}}, "task", "box-2d"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_right(tables, field, expected):
    with pytest.raises(InputDataError) as refused:
        parse_config(tables)
    assert refused.value.field.startswith(field)
    assert expected in refused.value.expected


def test_a_file_that_is_no_toml_is_refused_by_its_line(tmp_path):
    (tmp_path / "train.toml").write_text("[task]\nkind = landmark-3d\n")
    with pytest.raises(InputDataError, match="line 2"):
        parse_config(read_tables(tmp_path / "train.toml"))
    with pytest.raises(InputDataError, match="print-config"):
        parse_config(read_tables(tmp_path / "missing.toml"))


def test_every_kind_has_a_network_that_fits_it():
    for kind, entry in KINDS.items():
        assert parse_config({"task": {"kind": kind}}).network.architecture in entry.networks


def test_how_a_plan_averages_sites_that_differ_means_nothing_to_one_that_trains_alone(tmp_path):
    plan = """
    name = "p"
    seed = 1
    [task]
    landmarks = ["AC", "PC"]
    missing = "allow"
    [network]
    private_heads = true
    """
    (tmp_path / "plan.toml").write_text(plan)
    config = configuration(None, tmp_path / "plan.toml", None, ())
    assert config.task.landmarks == ("AC", "PC")
    assert (config.task.missing, config.network.private_heads) == ("refuse", False)
