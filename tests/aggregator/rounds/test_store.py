"""What a run leaves on disk can be gone on from, or is refused when it was changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aggregator.rounds.course import Agreement
from aggregator.rounds.store import MODEL_FILE, RoundState, RunOptions, RunStore, within
from common.errors import InputDataError
from common.model import initial_weights, weights_digest
from common.plan import parse_plan

PLAN = parse_plan({"name": "p", "seed": 1, "task": {"landmarks": ["AC"], "roi": 9}})


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore.create(tmp_path / "run", PLAN, RunOptions(min_sites=2, wait_s=1.5))


def state() -> RoundState:
    return RoundState(
        2,
        Agreement("k" * 16, "c" * 64),
        {
            **within("model", initial_weights(PLAN)),
            "experience/table": np.arange(6, dtype=np.int64).reshape(2, 3),
        },
        {"sketch_total": 15},
        {"codec.json": b"{}"},
        weights_digest(initial_weights(PLAN)),
    )


def test_a_round_is_read_back_as_it_was_written(store):
    store.save(state())
    back = store.load(2)
    assert back.digest == weights_digest(initial_weights(PLAN))
    assert back.agreement == state().agreement
    assert (back.facts, back.documents) == (state().facts, state().documents)
    assert set(back.arrays) == set(state().arrays)
    for name, array in state().arrays.items():
        np.testing.assert_array_equal(back.arrays[name], array)
    assert set(back.below("model")) == set(initial_weights(PLAN))


def test_plan_and_options_are_read_back_as_they_were_written(store):
    assert store.plan().fingerprint == PLAN.fingerprint
    assert store.options() == RunOptions(min_sites=2, wait_s=1.5)


@pytest.mark.parametrize("name", [MODEL_FILE, "experience.safetensors", "codec.json"])
def test_a_changed_file_is_not_gone_on_from(store, name):
    store.save(state())
    path = store.round_folder(2) / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(InputDataError, match="was changed"):
        store.load(2)


def test_a_missing_round_is_an_error_that_says_so(store):
    with pytest.raises(InputDataError, match="cannot be read"):
        store.load(7)


def test_a_run_is_never_made_over_another(store):
    with pytest.raises(InputDataError, match="exists"):
        RunStore.create(store.folder, PLAN, RunOptions(min_sites=1, wait_s=0))
