"""Structure and random contrasts through a federation: a plan, doors, sums, and a model that plays.

What an agent sees of an image is part of the plan and goes with the model.
"""

from __future__ import annotations

import re
import shutil

import pytest
from click.testing import CliRunner

from site_client.agent_app.checkpoint import read_checkpoint
from site_client.cli import cli
from site_client.kinds import landmarks
from tests.federation.conftest import Federation
from tests.site_client.agent_app.conftest import write_pictures
from tests.site_client.agent_app.test_every_kind_federates import WITHIN_BOUNDS
from tests.site_client.agent_app.test_one_vocabulary import small


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two sites of X-rays of sorts, a plan that shows their structure, what its run came to."""
    root = tmp_path_factory.mktemp("shown")
    federation = Federation(root)
    for seed, name in enumerate(("site-a", "site-b"), start=4):
        site = federation.add_site(name)
        shutil.rmtree(site.data())
        shutil.copytree(write_pictures(root, f"made-{name}", count=4, seed=seed), site.data())
        site.data_file.write_text("pixel_mm = 0.5\n")
        policy = site.policy_file.read_text()
        site.policy_file.write_text(re.sub(r"(?m)^share = 0\.2$", "share = 0.0", policy))
    plan = small(
        "landmark-2d", task={"roi": 17, "shown": "structure", "contrasts": 2}, **WITHIN_BOUNDS
    )
    store = federation.create_run(plan, min_sites=2)
    run = federation.conduct(store, federation.transport())
    return federation, store, run


def test_copies_in_other_contrasts_do_not_count_as_images(finished):
    federation, store, run = finished
    assert (run.verdict, run.reason) == ("COMPLETED", "")
    told = [event for event in federation.events(store) if hasattr(event, "images")]
    assert told
    assert {event.images for event in told} <= {0, 4, 8}


def test_a_site_plays_the_model_on_what_it_was_trained_on(finished, monkeypatch):
    federation, _, run = finished
    site = federation.sites["site-a"]
    kept = site.worker / "models" / run.model_sha256
    assert read_checkpoint(kept).config.task.shown == "structure"
    shown = []

    def structured(cases):
        shown.append(len(cases))
        return real(cases)

    real = landmarks.structured
    monkeypatch.setattr(landmarks, "structured", structured)
    image = sorted(site.data().glob("*.png"))[0]
    line = ["play", str(image), "--model", run.model_sha256[:12], "--site-dir", str(site.root)]
    result = CliRunner().invoke(cli, [*line, "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    assert shown == [1]
