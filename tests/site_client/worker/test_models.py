"""A run begins at the plan's seed, or at a model that this site computed or its staff named."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import safetensors.numpy

from common.model import initial_weights, weights_digest
from common.policy import read_policy
from common.wire.codes import ReplyCode
from site_client.agent_app.checkpoint import read_checkpoint
from site_client.kept import KeptModels
from site_client.worker.failures import UnknownStartError
from site_client.worker.models import KEPT, Models
from tests.aggregated import Past
from tests.conftest import loosen
from tests.site_client.worker.asking import UPDATE, ask, came_to, refused, report, told

LATER = "run-2"


def weights_of(plan, number=0):
    """Weights of the plan's network that no run came to."""
    rng = np.random.default_rng(number)
    return {
        name: rng.normal(0, 0.1, array.shape).astype(np.float32)
        for name, array in initial_weights(plan).items()
    }


def starting_at(site, digest, run=LATER, **changes):
    """A plan that begins at a model; orders of ``run`` have the past that follows from it."""
    plan = site.with_plan(kind=site.plan.kind, start=digest, **changes)
    past = Past(plan, run, site.roster, site.key, start=digest)
    site.pasts[run, plan.fingerprint] = past
    return plan


@pytest.fixture
def known(quick):
    """The digest of what a run at this site ended with."""
    last = report(ask(quick, quick.order(5, "evaluate")))
    assert last.weights_sha256 == came_to(quick.plan, list(quick.past().sums.values()))
    return last.weights_sha256


@pytest.fixture
def brought(quick):
    """A model from elsewhere: its bytes and its digest."""
    weights = weights_of(quick.plan)
    return safetensors.numpy.save(weights), weights_digest(weights)


def name_in_policy(site, *digests):
    loosen(site.folder, start_models=str(list(digests)).replace("'", '"'))


def test_a_model_that_nobody_here_knows_is_refused(quick, worked, brought):
    data, digest = brought
    plan = starting_at(quick, digest)
    for beside in ({}, {"start": data}):
        order = quick.order(plan=plan, run=LATER, beside=beside)
        refused(quick, order, ReplyCode.UNKNOWN_START, worked, field="start")
    train = quick.order(1, "train", plan=plan, run=LATER, beside={"start": data})
    refused(quick, train, ReplyCode.UNKNOWN_START, worked, field="start")


def test_a_run_starts_from_what_an_earlier_one_came_to_here(quick, known):
    plan = starting_at(quick, known)
    begun = report(ask(quick, quick.order(plan=plan, run=LATER)))
    past = quick.past(plan, LATER)
    assert (begun.weights_sha256, begun.link) == (known, past.links[0])
    first = ask(quick, quick.order(1, "train", plan=plan, run=LATER))
    assert report(first).weights_sha256 == known
    second = report(ask(quick, quick.order(2, "train", plan=plan, run=LATER)))
    assert second.link == past.links[1]
    assert second.weights_sha256 not in (known, came_to(plan, [past.sums[1]]))


def test_only_what_a_run_ended_with_is_kept(quick):
    """Not the weights of a round on the way: nobody has measured them."""
    told(quick, 1, ask(quick, quick.order(1, "train")))
    ask(quick, quick.order(2, "train"))
    assert not (quick.folder.worker / "models").exists()


def test_a_model_that_the_staff_named_and_that_came_beside_the_order_is_started_from(
    quick, brought
):
    data, digest = brought
    name_in_policy(quick, "ab" * 32, digest)
    plan = starting_at(quick, digest)
    order = quick.order(plan=plan, run=LATER, beside={"start": data})
    begun = report(ask(quick, order))
    assert (begun.weights_sha256, begun.link) == (digest, quick.past(plan, LATER).links[0])
    # From now on the chain knows it: orders of later rounds need not bring it.
    assert UPDATE in ask(quick, quick.order(1, "train", plan=plan, run=LATER))


def test_a_named_model_trains_from_its_own_weights(make_site):
    site = make_site()
    weights = weights_of(site.plan)
    data, digest = safetensors.numpy.save(weights), weights_digest(weights)
    name_in_policy(site, digest)
    plan = starting_at(site, digest)
    seeded = ask(site, site.order(1, "train"))
    started = ask(site, site.order(1, "train", plan=plan, run=LATER, beside={"start": data}))
    assert report(started).weights_sha256 == digest
    assert any(
        not np.array_equal(started[UPDATE].arrays[n], seeded[UPDATE].arrays[n]) for n in weights
    )


def test_other_bytes_than_those_of_the_named_model_are_refused(quick, worked, brought):
    data, digest = brought
    name_in_policy(quick, digest)
    plan = starting_at(quick, digest)
    other = weights_of(quick.plan, 1)
    nearly = weights_of(quick.plan)
    nearly["fc1.bias"][0] += np.float32(1e-6)
    smaller = weights_of(quick.plan) | {"fc1.bias": other["fc1.bias"][:-1]}
    broken = weights_of(quick.plan) | {"fc1.bias": np.full_like(other["fc1.bias"], np.nan)}
    for bent in (other, nearly, smaller, broken):
        beside = {"start": safetensors.numpy.save(bent)}
        order = quick.order(plan=plan, run=LATER, beside=beside)
        refused(quick, order, ReplyCode.UNKNOWN_START, worked, field="start")
    for junk in (b"", b"junk", data[:-1]):
        order = quick.order(plan=plan, run=LATER, beside={"start": junk})
        refused(quick, order, ReplyCode.UNKNOWN_START, worked, field="start")
    missing = quick.order(plan=plan, run=LATER)
    refused(quick, missing, ReplyCode.UNKNOWN_START, worked, field="start")
    right = quick.order(plan=plan, run=LATER, beside={"start": data})
    assert report(ask(quick, right)).weights_sha256 == digest


def test_a_model_that_was_altered_on_the_disk_is_not_started_from(quick, worked, known):
    (folder,) = (quick.folder.worker / "models").iterdir()
    path = folder / "model.safetensors"
    weights = dict(safetensors.numpy.load(path.read_bytes()))
    weights["fc1.bias"] = weights["fc1.bias"] + np.float32(1)
    plan = starting_at(quick, known)
    for data in (safetensors.numpy.save(weights), path.read_bytes()[:-1], b""):
        path.write_bytes(data)
        order = quick.order(plan=plan, run=LATER, beside={"start": data})
        refused(quick, order, ReplyCode.UNKNOWN_START, worked, field="start")


def test_a_site_whose_state_was_wiped_starts_from_the_same_model_again(quick, known):
    import shutil

    plan = starting_at(quick, known)
    ask(quick, quick.order(1, "train", plan=plan, run=LATER))
    shutil.rmtree(quick.folder.worker / "state")
    late = report(ask(quick, quick.order(3, "train", plan=plan, run=LATER)))
    assert late.link == quick.past(plan, LATER).links[2]


# The folder.


@pytest.fixture
def keep(quick, tmp_path):
    """Keep the model of a number as of a moment; its digest."""
    models = Models(tmp_path / "models")

    def keep(number, at=None):
        moment = datetime(2030, 1, 1, tzinfo=UTC) + timedelta(hours=number if at is None else at)
        return models.keep(weights_of(quick.plan, number), quick.plan, "run-1", moment)

    return keep


def kept_in(folder):
    return {path.name for path in folder.iterdir()}


def test_the_newest_models_are_kept_and_no_more(quick, tmp_path, keep):
    models, policy = Models(tmp_path / "models"), read_policy(quick.folder.policy_file)
    digests = [keep(number) for number in range(KEPT + 3)]
    assert kept_in(tmp_path / "models") == set(digests[3:])
    for digest in digests[3:]:
        plan = quick.with_plan(start=digest)
        assert weights_digest(models.start_of(plan, policy, None)) == digest
    gone = quick.with_plan(start=digests[0])
    with pytest.raises(UnknownStartError):
        models.start_of(gone, policy, None)


def test_a_model_that_is_come_to_again_counts_as_new(tmp_path, keep):
    first = keep(0)
    for number in range(1, KEPT):
        keep(number)
    assert keep(0, at=KEPT) == first
    keep(KEPT + 1)
    kept = kept_in(tmp_path / "models")
    assert first in kept
    assert len(kept) == KEPT


def test_what_a_crash_left_half_written_is_cleared_away_and_never_listed(tmp_path, keep):
    torn = tmp_path / "models" / f".{'ab' * 32}.1234"
    torn.mkdir(parents=True)
    (torn / "model.safetensors").write_bytes(b"half")
    digest = keep(1)
    assert kept_in(tmp_path / "models") == {digest}


def test_a_kept_model_is_a_checkpoint_of_the_plans_agent_with_this_sites_errors(quick, known):
    (path,) = (quick.folder.worker / "models").iterdir()
    assert path.name == known
    checkpoint = read_checkpoint(path)
    assert weights_digest(checkpoint.weights) == known
    assert checkpoint.landmarks == quick.plan.task.landmarks
    assert checkpoint.config.network == quick.plan.network
    (kept,) = KeptModels.of_site(quick.folder.root).each()
    assert (kept.weights, kept.plan) == (known, quick.plan.fingerprint)
    assert kept.looks_for == quick.plan.task.landmarks
