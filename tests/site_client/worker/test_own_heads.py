"""A site's own heads lie beside the models that it came to, as long as these are kept."""

from __future__ import annotations

import os

import numpy as np
import pytest

from common.errors import InputDataError
from common.model import initial_weights, own_part, shared_part
from common.plan import parse_plan
from site_client.worker.models import KEPT, Models


@pytest.fixture
def plan():
    return parse_plan(
        {
            "name": "p",
            "seed": 1,
            "task": {"landmarks": ["A", "B"], "roi": 9},
            "network": {"width": 4, "hidden": [8], "private_heads": True},
        }
    )


@pytest.fixture
def models(tmp_path):
    return Models(tmp_path / "models")


def test_a_model_is_whole_with_the_heads_it_was_kept_with(models, plan):
    weights = initial_weights(plan)
    digest = models.keep(shared_part(weights, plan), own_part(weights, plan))
    whole = models.whole(digest)
    assert whole.keys() == weights.keys()
    assert all(whole[name].tobytes() == weights[name].tobytes() for name in weights)


def test_a_model_without_own_heads_is_what_was_kept(models, plan):
    weights = initial_weights(plan)
    digest = models.keep(weights, {})
    assert models.whole(digest).keys() == weights.keys()


def test_heads_of_an_earlier_run_are_not_mixed_into_a_later_one(models, plan):
    weights = initial_weights(plan)
    shared = shared_part(weights, plan)
    digest = models.keep(shared, own_part(weights, plan))
    assert models.keep(shared) == digest
    assert models.whole(digest).keys() == shared.keys()


def test_heads_go_with_the_model_they_belong_to(models, plan, tmp_path):
    weights, digests = initial_weights(plan), []
    own = own_part(weights, plan)
    for number in range(KEPT + 2):
        shared = {n: a + np.float32(number) for n, a in shared_part(weights, plan).items()}
        digests.append(models.keep(shared, own))
        path = tmp_path / "models" / f"{digests[-1]}.safetensors"
        os.utime(path, ns=(number, number))
    kept = {path.stem for path in (tmp_path / "models" / "own").iterdir()}
    assert kept == {path.stem for path in (tmp_path / "models").glob("*.safetensors")}
    assert len(kept) == KEPT
    with pytest.raises(InputDataError, match="cannot be read"):
        models.whole(next(digest for digest in digests if digest not in kept))


def test_a_model_that_was_altered_is_refused(models, plan, tmp_path):
    digest = models.keep(shared_part(initial_weights(plan), plan))
    path = tmp_path / "models" / f"{digest}.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputDataError, match="altered"):
        models.whole(digest)
