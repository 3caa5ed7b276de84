"""Absent landmarks through a federation: a plan, doors, sums, and a model that tells them."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from common.model import initial_weights
from site_client.cli import cli
from site_client.worker.site_cases import read_site_cases
from tests.federation.conftest import Federation
from tests.site_client.agent_app.conftest import write_pictures
from tests.site_client.agent_app.test_every_kind_federates import WITHIN_BOUNDS
from tests.site_client.agent_app.test_one_vocabulary import small


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two sites of X-rays of sorts, a plan that crops them, and what its run came to."""
    root = tmp_path_factory.mktemp("absent")
    federation = Federation(root)
    for seed, name in enumerate(("site-a", "site-b"), start=4):
        site = federation.add_site(name)
        shutil.rmtree(site.data())
        shutil.copytree(write_pictures(root, f"made-{name}", count=4, seed=seed), site.data())
        site.data_file.write_text("pixel_mm = 0.5\n")
        policy = site.policy_file.read_text()
        site.policy_file.write_text(re.sub(r"(?m)^share = 0\.2$", "share = 0.0", policy))
    plan = small("landmark-2d", task={"roi": 17, "crops": 2}, **WITHIN_BOUNDS)
    store = federation.create_run(plan, min_sites=2)
    run = federation.conduct(store, federation.transport())
    return federation, plan, store, run


def test_the_sites_average_what_decides(finished):
    federation, plan, store, run = finished
    assert (run.verdict, run.reason) == ("COMPLETED", "")
    assert not initial_weights(plan)["absence.weights"].any()
    assert not store.load(1).below("model")["absence.weights"].any(), "only at the end"
    model = store.load(2).below("model")
    assert model["absence.weights"].any()
    assert (model["absence.shares"] > 0).all()
    priors = [
        read_site_cases(site.data(), plan, lambda *_: None, settings=site.data_file).prior
        for site in federation.sites.values()
    ]
    # Sites of equally many images count equally; a unit of the sums is 2^-24 of 100 m.
    assert np.allclose(100_000 * model["absence.places"], np.mean(priors, axis=0), atol=0.02)


def test_copies_of_images_do_not_count_as_images(finished):
    federation, _, store, _ = finished
    told = [event for event in federation.events(store) if hasattr(event, "images")]
    assert told
    assert {event.images for event in told} <= {0, 4, 8}


def test_a_site_plays_the_model_and_is_told_what_is_absent(finished):
    federation, _, _, run = finished
    site = federation.sites["site-a"]
    image = sorted(site.data().glob("*.png"))[0]
    line = ["play", str(image), "--model", run.model_sha256[:12], "--site-dir", str(site.root)]
    result = CliRunner().invoke(cli, [*line, "--json"], catch_exceptions=False)
    found = json.loads(result.stdout)["found"]
    assert [entry["landmark"] for entry in found] == ["spot", "corner"]
    assert all(0 <= entry["absent_score"] <= 1 for entry in found)
