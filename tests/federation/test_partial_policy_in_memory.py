"""Partial policies through a federation and the commands: plans, doors, sums, play."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from common.model import initial_weights, weights_digest
from common.wire.rules import ANSWERS
from site_client.agent.federated import planned_learner
from site_client.cli import cli
from site_client.exposure.examine import RehearsedRound, examine
from site_client.exposure.findings import LEAST_CASES
from site_client.worker.site_cases import read_site_cases
from tests.federation.conftest import Federation
from tests.federation.test_sums_in_memory import reports
from tests.site_client.agent_app.conftest import run_line, write_config, write_pictures
from tests.site_client.agent_app.test_every_kind_federates import WITHIN_BOUNDS
from tests.site_client.agent_app.test_one_vocabulary import small

LEARNER = WITHIN_BOUNDS["learner"] | {"method": "partial-policy"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two sites, a plan of partial policies, and what its run came to."""
    root = tmp_path_factory.mktemp("partial")
    federation = Federation(root)
    for seed, name in enumerate(("site-a", "site-b"), start=4):
        site = federation.add_site(name)
        shutil.rmtree(site.data())
        shutil.copytree(write_pictures(root, f"made-{name}", count=4, seed=seed), site.data())
        site.data_file.write_text("pixel_mm = 0.5\n")
    plan = small("landmark-2d", task={"roi": 17}, **{**WITHIN_BOUNDS, "learner": LEARNER})
    transport = federation.transport()
    store = federation.create_run(plan, min_sites=2)
    return federation, plan, store, federation.conduct(store, transport), transport


def test_a_plan_of_partial_policies_is_trained_by_a_federation(finished):
    _, plan, store, run, transport = finished
    assert (run.verdict, run.reason) == ("COMPLETED", "")
    assert run.model_sha256 != weights_digest(initial_weights(plan))
    assert all(np.isfinite(array).all() for array in store.load(2).below("model").values())
    assert [len(report.errors) > 0 for report in reports(transport, "site-a")][-1]


def test_no_experience_leaves_a_site_whose_policies_count_none(finished):
    _, plan, store, _, _ = finished
    assert plan.counts is None
    assert not [name for name in store.load(2).arrays if name.startswith("table")]
    assert "SketchTable" in {kind.__name__ for kind in ANSWERS["train"]}, "of other plans"


def test_a_site_plays_the_model_along_all_axes(finished, tmp_path):
    federation, _, _, run, _ = finished
    site = federation.sites["site-a"]
    image = sorted(site.data().glob("*.png"))[0]
    line = ["play", str(image), "--model", run.model_sha256[:12], "--site-dir", str(site.root)]
    result = CliRunner().invoke(
        cli, [*line, "--json", "-o", str(tmp_path), "--gif"], catch_exceptions=False
    )
    found = json.loads(result.stdout)["found"]
    assert [entry["landmark"] for entry in found] == ["spot", "corner"]
    assert len(list(tmp_path.glob("*.gif"))) == 2


def test_the_commands_train_measure_and_resume_partial_policies(tmp_path):
    config = write_config(tmp_path, learner={"method": "partial-policy", "entropy": 0.02})
    images = write_pictures(tmp_path)
    run_line("train", "--config", config, "--data", images, "-o", tmp_path / "run")
    figures = json.loads(run_line("evaluate", "--checkpoint", tmp_path / "run", "--json").stdout)
    assert figures["posed"][-1]["mean_mm"] > 0
    assert 'method = "partial-policy"' in (tmp_path / "run" / "config.toml").read_text()
    resumed = run_line("train", "--resume", "-o", tmp_path / "run", "--json")
    assert json.loads(resumed.stdout)["finished"]


def test_the_attacks_of_a_rehearsal_are_tried_on_policies_too(finished, tmp_path):
    federation, _, _, _, _ = finished
    images = write_pictures(tmp_path, count=LEAST_CASES)
    learner = LEARNER | {"updates": 4, "batch": 4}
    plan = small("landmark-2d", task={"roi": 17, "crops": 1}, learner=learner)
    settings = federation.sites["site-a"].data_file
    cases = read_site_cases(images, plan, lambda *_: None, settings=settings)
    before, watched = initial_weights(plan), []
    site = planned_learner(plan, cases.to_learn_from, 3, watch=watched.append)
    site.train(plan.updates_in(1))
    delta = {name: value - before[name] for name, value in site.weights().items()}
    exposure = examine(RehearsedRound(plan, before, delta, cases, watched, 3))
    found = exposure.as_dict()["membership"]
    assert 0 <= found["low"] <= found["auc"] <= found["high"] <= 1
