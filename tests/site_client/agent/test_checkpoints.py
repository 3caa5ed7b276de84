from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy

from common.errors import InputDataError
from common.model import weights_digest
from site_client.agent.checkpoints import Checkpoints, read_checkpoint

SETTINGS = {"learner": {"gamma": 0.9, "scales": (3.0, 1.0)}, "seed": 1}


@pytest.fixture
def kept(tmp_path):
    return Checkpoints(tmp_path / "run", SETTINGS)


@pytest.mark.parametrize("replay", ["uniform", "prioritised", "rare-first"])
@pytest.mark.parametrize("target", ["ema", "hard"])
@pytest.mark.parametrize("warm_start", [0.0, 0.6], ids=["cold", "warm"])
def test_going_on_from_a_file_equals_never_having_stopped(
    kept, line_learner, replay, target, warm_start
):
    asked = {
        "replay": replay,
        "target": target,
        "target_period": 5,
        "warm_start": warm_start,
        "learning_rate_schedule": "cosine",
    }
    straight, first = line_learner(**asked), line_learner(**asked)
    straight.train(34)
    first.train(17)
    kept.keep_latest(first.state_dict(), {})
    resumed = line_learner(seed=99, **asked)
    resumed.load_state(kept.read("latest").arrays)
    resumed.train(17)
    wanted, got = straight.state_dict(), resumed.state_dict()
    assert set(wanted) == set(got)
    for name, value in wanted.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


def test_a_federations_learner_goes_on_from_a_file_too(kept, plan, cases):
    from site_client.agent.federated import planned_learner

    straight, first = (planned_learner(plan, cases, seed=1) for _ in range(2))
    straight.train(6)
    first.train(3)
    kept.keep_latest(first.state_dict(), {})
    resumed = planned_learner(plan, cases, seed=2)
    resumed.load_state(kept.read("latest").arrays)
    resumed.train(3)
    assert weights_digest(resumed.weights()) == weights_digest(straight.weights())
    np.testing.assert_array_equal(straight.new_experience_keys(), resumed.new_experience_keys())


def test_the_best_is_the_one_with_the_least_error_also_after_a_restart(
    tmp_path, kept, line_learner
):
    learner = line_learner()
    digests = []
    for error in (3.0, 5.0, 2.0, float("nan"), 2.0):
        learner.train(2)
        weights = learner.weights()
        digests.append(weights_digest(weights))
        Checkpoints(tmp_path / "run", SETTINGS).offer_best(weights, learner.updates, error, {})
    best = kept.read("best")
    assert weights_digest(best.weights) == digests[2]
    assert best.updates == 6
    assert best.figures == {"error": 2.0}
    assert not any("replay" in name or "searches" in name for name in best.arrays)


def test_weights_can_be_taken_from_either_kind(kept, line_learner):
    learner = line_learner()
    learner.train(3)
    kept.keep_latest(learner.state_dict(), {})
    kept.offer_best(learner.weights(), 3, 1.0, {})
    digests = {weights_digest(kept.read(kind).weights) for kind in ("latest", "best")}
    assert digests == {weights_digest(learner.weights())}


def test_the_json_beside_it_says_what_the_file_says(kept, line_learner):
    learner = line_learner()
    learner.train(3)
    kept.keep_latest(learner.state_dict(), {"loss": 0.5})
    told = json.loads(kept.path("latest").with_suffix(".json").read_bytes())
    assert told["updates"] == 3
    assert told["figures"] == {"loss": 0.5}
    assert told["settings"]["learner"]["scales"] == [3.0, 1.0]
    assert told["weights_sha256"] == weights_digest(learner.weights())


def test_none_kept_is_none_found(kept):
    assert kept.read("latest") is None
    assert kept.read("best") is None


def test_a_checkpoint_of_other_settings_is_refused_by_name(tmp_path, kept, line_learner):
    kept.keep_latest(line_learner().state_dict(), {})
    other = Checkpoints(tmp_path / "run", SETTINGS | {"seed": 2})
    with pytest.raises(InputDataError, match="got another seed"):
        other.read("latest")


def test_a_damaged_or_foreign_file_is_refused(tmp_path, kept, line_learner):
    learner = line_learner()
    kept.offer_best(learner.weights(), 0, 1.0, {})
    path = kept.path("best")
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(InputDataError, match="whole checkpoint"):
        kept.read("best")
    path.write_bytes(whole[:-3] + bytes(b ^ 1 for b in whole[-3:]))
    with pytest.raises(InputDataError, match="other arrays"):
        kept.read("best")
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(safetensors.numpy.save({"a": np.ones(2, np.float32)}))
    with pytest.raises(InputDataError, match="whole checkpoint"):
        read_checkpoint(foreign)
    with pytest.raises(InputDataError, match="whole checkpoint"):
        read_checkpoint(tmp_path / "nothing.safetensors")


def test_a_failed_write_leaves_the_checkpoint_before(kept, line_learner, monkeypatch):
    learner = line_learner()
    kept.keep_latest(learner.state_dict(), {})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("common.ledger.durable.write_all", full)
    learner.train(1)
    with pytest.raises(InputDataError, match="No space left"):
        kept.keep_latest(learner.state_dict(), {})
    assert kept.read("latest").updates == 0
