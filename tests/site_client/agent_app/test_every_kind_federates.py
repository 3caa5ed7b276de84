"""Every kind of task in a federation: real folders, keys, doors and sums; no sockets."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from aggregator.rounds.events import RoundFinished
from aggregator.rounds.training import TABLE
from common.model import initial_weights, weights_digest
from common.settings import KINDS, TEAM
from common.wire.parcel import unwrap
from common.words.leaving import leavings
from tests.federation.conftest import Federation
from tests.federation.test_sums_in_memory import NODES, reports
from tests.site_client.agent_app.test_one_vocabulary import LOOKED_FOR, each_once, small

# What a default policy serves: nothing here is loosened but who must know whom.
WITHIN_BOUNDS = {
    "learner": {
        "updates": 20,
        "batch": 16,
        "searches": 16,
        "warmup": 128,
        "replay_capacity": 1000,
        "episode_steps": 6,
    },
    "experience": {"rows": 3, "columns": 64, "position_bins": 4},
    "rounds": {"training": 2, "quorum": 2, "deadline_s": 60.0},
}


@pytest.fixture
def hospitals(request, tmp_path):
    """Two sites with different made-up images of a kind."""

    def make(kind: str) -> Federation:
        federation = Federation(tmp_path)
        source, _ = LOOKED_FOR[kind]
        for seed, name in enumerate(("site-a", "site-b"), start=4):
            site = federation.add_site(name)
            made = request.getfixturevalue(source)(folder=f"made-{name}", seed=seed)
            shutil.rmtree(site.data())
            shutil.copytree(made, site.data())
            if KINDS[kind].dim == 2:
                site.data_file.write_text("pixel_mm = 0.5\n")
        return federation

    return make


@each_once
def test_a_plan_of_any_kind_is_trained_by_a_federation(kind, hospitals):
    plan = small(kind, task={"roi": 17}, **WITHIN_BOUNDS)
    federation = hospitals(kind)
    store = federation.create_run(plan, min_sites=2)
    finished = federation.conduct(store, federation.transport())
    assert (finished.verdict, finished.reason) == ("COMPLETED", "")
    # The model moved, and is the one that the sites came to themselves.
    assert finished.model_sha256 != weights_digest(initial_weights(plan))
    for site in federation.sites.values():
        assert (site.worker / "models" / finished.model_sha256 / "model.safetensors").is_file()
    rounds = [event for event in federation.events(store) if isinstance(event, RoundFinished)]
    assert [event.phase for event in rounds] == ["begin", "train", "train", "evaluate"]
    weights = store.load(2).below("model")
    assert all(np.isfinite(array).all() for array in weights.values())


def displaced(kind, *, task, learner, **changes):
    """A small plan of a kind that learns displacements."""
    learner = {**learner, "method": "displacement"}
    return small(kind, task={**task, "frames": 1}, learner=learner, **changes)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[] if kind in ("landmark-2d", TEAM) else pytest.mark.slow)
        for kind, entry in KINDS.items()
        if entry.section == "ladder"
    ],
)
def test_displacements_are_learned_by_a_federation_and_no_experience_leaves(kind, hospitals):
    plan = displaced(kind, task={"roi": 17}, **WITHIN_BOUNDS)
    federation = hospitals(kind)
    transport = federation.transport()
    store = federation.create_run(plan, min_sites=2)
    finished = federation.conduct(store, transport)
    assert (finished.verdict, finished.reason) == ("COMPLETED", "")
    assert finished.model_sha256 != weights_digest(initial_weights(plan))
    for name, site in federation.sites.items():
        assert (site.worker / "models" / finished.model_sha256 / "model.safetensors").is_file()
        replies = [unwrap(reply) for reply in transport.sent[NODES[name]]]
        parts = {part for reply in replies for part in reply if part.endswith(".envelope")}
        assert parts == {"ModelUpdate.envelope", "RoundReport.envelope"}
        trained = [r for r in reports(transport, name) if r.updates]
        assert [(r.updates, r.transitions, r.epsilon_milli) for r in trained] == [(10, 160, 0)] * 2
    assert {each.record for each in leavings(plan)} == {"ModelUpdate", "RoundReport"}
    state = store.load(2)
    assert TABLE not in state.arrays
    assert all(np.isfinite(array).all() for array in state.below("model").values())


@pytest.mark.parametrize("kind", ["box-2d", "view-plane", "landmark-2d"])
def test_errors_come_in_the_units_of_the_kind_and_name_what_was_looked_for(kind, hospitals):
    plan = small(kind, task={"roi": 17}, **WITHIN_BOUNDS)
    federation = hospitals(kind)
    transport = federation.transport()
    federation.conduct(federation.create_run(plan, min_sites=2), transport)
    for name in federation.sites:
        errors = [error for report in reports(transport, name) for error in report.errors]
        assert errors
        assert {error.label for error in errors} <= set(plan.space.labels)
        in_mm = KINDS[kind].unit == "mm"
        assert all((error.over_10mm is not None) == in_mm for error in errors)
        if not in_mm:
            assert all(error.mean_milli <= 1000 for error in errors), "1 - IoU, in thousandths"
