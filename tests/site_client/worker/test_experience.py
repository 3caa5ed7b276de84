"""What the sum of all sites' tables tells of a situation, and how far it is believed."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import InputDataError
from common.keys import PlaceCodec
from common.model import initial_weights
from common.plan import parse_plan
from common.plan.experience import ERROR_UNITS
from common.sketching import CountSketch, SketchSpec
from common.sums.addition import add_records
from common.sums.training import ModelState, advance
from common.wire.envelope import Envelope
from common.wire.records import ErrorTables, ModelUpdate
from site_client.worker.experience import (
    Frequencies,
    MeanErrors,
    Nothing,
    federation_knows,
    places_met,
    usual_error,
)
from tests.conftest import SMALL_PLAN

SPEC = SketchSpec(5, 2000, bytes(range(16)))


def sketched(keys, weights=None, spec=SPEC):
    sketch = CountSketch(spec)
    sketch.update(keys, weights)
    return sketch


def replays(rng, situations=600):
    """Situations, how often each was replayed, how wrong each replay was on average."""
    names = rng.integers(0, 2**64, situations, dtype=np.uint64)
    counts = rng.integers(1, 60, situations)
    wrong = rng.integers(5, 2 * ERROR_UNITS, situations)
    return names, counts, wrong


def test_mean_errors_are_told_as_well_as_the_sketch_can():
    names, counts, wrong = replays(np.random.default_rng(1))
    keys = np.repeat(names, counts)
    errors = np.repeat(wrong, counts)
    merged = MeanErrors(sketched(keys), sketched(keys, errors), len(keys), int(errors.sum()))
    often = counts > 20
    told = merged(names)[often] * ERROR_UNITS
    assert np.corrcoef(told, wrong[often])[0, 1] > 0.95
    assert np.median(np.abs(told - wrong[often])) < 0.15 * wrong.mean()


def test_of_what_was_never_met_the_mean_of_all_is_believed():
    names, counts, wrong = replays(np.random.default_rng(2))
    keys, errors = np.repeat(names, counts), np.repeat(wrong, counts)
    merged = MeanErrors(sketched(keys), sketched(keys, errors), len(keys), int(errors.sum()))
    strangers = np.random.default_rng(3).integers(0, 2**64, 400, dtype=np.uint64)
    mean = errors.sum() / len(keys) / ERROR_UNITS
    assert abs(np.median(merged(strangers)) - mean) < 0.3 * mean
    assert np.array_equal(MeanErrors()(strangers), np.ones(400))


def test_the_error_of_an_estimate_is_known_from_the_table_alone():
    rng = np.random.default_rng(4)
    for columns in (500, 4000):
        spec = SketchSpec(5, columns, bytes(range(16)))
        keys = np.repeat(rng.integers(0, 2**64, 3000, dtype=np.uint64), 9)
        sketch = sketched(keys, spec=spec)
        strangers = rng.integers(0, 2**64, 4000, dtype=np.uint64)
        assert usual_error(sketch) == pytest.approx(sketch.estimate(strangers).std(), rel=0.25)


def plan_of(replay, **experience):
    sections = {"learner": SMALL_PLAN["learner"] | {"replay": replay}}
    cells = SMALL_PLAN["experience"] | experience
    return parse_plan(SMALL_PLAN | sections | {"experience": cells})


@pytest.mark.parametrize(
    ("replay", "kind"),
    [("uniform", Nothing), ("rare-first", Frequencies), ("wrong-first", MeanErrors)],
)
def test_each_replay_asks_what_it_draws_by(replay, kind):
    plan = plan_of(replay)
    spec = SketchSpec(3, 64, bytes(16))
    known = federation_knows(plan, spec, ModelState(initial_weights(plan)), first=True)
    assert isinstance(known, kind)
    assert known(np.arange(5, dtype=np.uint64)).tolist() == [1.0] * 5
    known.load_state(known.state_dict())


def told(plan, site, table, errors):
    common = {"plan_fingerprint": "ab" * 32, "site": site, "run": "run-1", "round": 1}
    update = ModelUpdate(**common, images=3, samples=3, transitions=9, updates=1)
    zeros = {n: np.zeros(a.shape, np.int32) for n, a in initial_weights(plan).items()}
    record = ErrorTables(
        **common,
        rows=3,
        columns=64,
        key_id="0" * 16,
        codec="c" * 64,
        total=int(table.sum() // 3),
        errors=int(errors.sum() // 3),
    )
    return [Envelope(update, zeros), Envelope(record, {"replays": table, "errors": errors})]


def test_errors_of_all_sites_add_up_and_older_rounds_count_half():
    plan, rng = plan_of("wrong-first"), np.random.default_rng(5)
    state = ModelState(initial_weights(plan))
    wanted = {"table": np.zeros((3, 64), np.int64), "errors": np.zeros((3, 64), np.int64)}
    for number in (1, 2, 3):
        sent = {
            site: (rng.integers(-9, 30, (3, 64)), rng.integers(-99, 300, (3, 64)))
            for site in ("east", "west")
        }
        records = {site: told(plan, site, *tables) for site, tables in sent.items()}
        state = advance(state, plan, add_records("run-1", number, records))
        for k, name in enumerate(wanted):
            halved = np.trunc(wanted[name] / 2).astype(np.int64)
            wanted[name] = halved + sum(tables[k] for tables in sent.values())
    np.testing.assert_array_equal(state.table, wanted["table"])
    np.testing.assert_array_equal(state.errors, wanted["errors"])
    assert 0 < state.total < state.error


def test_places_come_back_from_the_merged_sketch_as_they_were_met():
    rng, codec = np.random.default_rng(6), PlaceCodec(2, 3, 8)
    heads, levels, where = rng.integers(0, 2, 9000), rng.integers(0, 3, 9000), rng.random((9000, 3))
    where[:, 0] = 0.05
    # Thing 1 lies in one corner; the coarsest level is met everywhere.
    where[(heads == 1) & (levels > 0), 1:] *= 0.25
    spec = SketchSpec(5, 4096, bytes(range(16)))
    sketch = sketched(codec.encode(heads, levels, where), spec=spec)
    places = places_met(sketch, codec, (2, 3, 8), flat=True)
    wanted = np.zeros((2, 1, 8, 8))
    bins = (where * 8).astype(int)
    fine = levels > 0
    np.add.at(wanted, (heads[fine], 0, bins[fine, 1], bins[fine, 2]), 1)
    assert places.shape == wanted.shape
    assert np.abs(places - wanted).max() <= 8 * usual_error(sketch) + 1
    assert places[1, 0, 4:].sum() == 0


@pytest.mark.parametrize(
    ("sections", "field"),
    [
        ({"experience": {"kept": True}}, "experience.key"),
        (
            {
                "experience": {"kept": True, "key": "place"},
                "task": {"kind": "multi-agent-3d", "landmarks": ["A", "B"]},
                "network": {"architecture": "commnet"},
            },
            "task.kind",
        ),
        (
            {
                "experience": {"kept": True, "key": "place"},
                "learner": {"method": "displacement"},
            },
            "learner.method",
        ),
    ],
)
def test_a_table_that_no_model_could_be_asked_by_is_no_plan(sections, field):
    whole = {"name": "p", "seed": 1, "task": {"landmarks": ["A", "B"]}} | sections
    with pytest.raises(InputDataError) as refused:
        parse_plan(whole)
    assert refused.value.field == field
