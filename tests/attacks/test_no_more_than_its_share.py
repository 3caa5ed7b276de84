"""A lying site must not get to move the model by more than its share, nor pass unnoticed.

Whole federations in memory: everything is real but the transport and what the liar says.
Honest sites send updates of one length in directions of their own; equal counts.
"""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from aggregator.intake.outliers import BOUND
from aggregator.rounds.events import SiteRejected
from common.model import initial_weights
from common.plan import parse_plan
from common.wire.envelope import Envelope
from common.wire.records import RoundReport
from common.wire.rules import FIXED_POINT
from site_client.egress import gate
from site_client.worker.noop import NoOpStudy
from tests.federation.conftest import Federation

HONEST = 0.05
LIAR = "site-d"


def plan_of(sites, training=1):
    return parse_plan(
        {
            "name": "no-op",
            "kind": "no-op",
            "seed": 3,
            "task": {"landmarks": ["AC", "PC"], "roi": 9},
            "network": {"width": 4},
            "experience": {"rows": 3, "columns": 64},
            "rounds": {"training": training, "quorum": 2, "deadline_s": 5.0},
        }
    )


def scaled(arrays, norm):
    """Fixed-point arrays of this L2 norm, in units of the weights."""
    length = np.sqrt(sum(float(np.square(a.astype(np.float64)).sum()) for a in arrays.values()))
    return {
        n: np.rint(a * (norm * FIXED_POINT / length)).astype(np.int32) for n, a in arrays.items()
    }


def direction(shapes, seed):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(array.shape) for name, array in sorted(shapes.items())}


@pytest.fixture
def liars(monkeypatch):
    """By site: what it makes of its honest answer to an order; no door stands in its way."""
    lies = {}
    honest = NoOpStudy.answer

    def answer(study, asked):
        envelopes = honest(study, asked)
        if asked.header.phase != "train":
            return envelopes
        site = study._subject.site
        seed = [zlib.crc32(site.encode()), asked.header.round]
        update = scaled(direction(envelopes[0].arrays, seed), HONEST)
        envelopes[0] = Envelope(envelopes[0].record, update)
        return lies[site](envelopes) if site in lies else envelopes

    monkeypatch.setattr(NoOpStudy, "answer", answer)
    for rule in ("check_record", "check_together"):
        honest_rule = getattr(gate, rule)

        def lenient(first, *rest, honest_rule=honest_rule):
            one = first[0] if isinstance(first, list) else first
            if one.record.site not in lies:
                honest_rule(first, *rest)

        monkeypatch.setattr(gate, rule, lenient)
    return lies


def run(tmp_path, sites=4, training=1):
    tmp_path.mkdir(exist_ok=True)
    federation = Federation(tmp_path)
    for letter in "abcdefgh"[:sites]:
        federation.add_site(f"site-{letter}", images=3)
    plan = plan_of(sites, training)
    store = federation.create_run(plan, min_sites=sites)
    finished = federation.conduct(store, federation.transport())
    rejected = {e.site for e in federation.events(store) if isinstance(e, SiteRejected)}
    return plan, store, finished, rejected


def moved_by(plan, store, round_=1):
    """How far a round moved the model from the start."""
    start, after = initial_weights(plan), store.load(round_).below("model")
    return np.sqrt(sum(np.square(np.float64(after[n]) - start[n]).sum() for n in start))


def pushed(norm, **words):
    def lie(envelopes):
        update = envelopes[0]
        record = update.record.model_copy(update=words)
        ones = {n: np.ones(a.shape) for n, a in update.arrays.items()}
        return [Envelope(record, scaled(ones, norm)), *envelopes[1:]]

    return lie


def restated(kind, **words):
    """One record of the answer says something else than it should."""

    def lie(envelopes):
        return [
            Envelope(e.record.model_copy(update=words), e.arrays)
            if e.record.record_type == kind
            else e
            for e in envelopes
        ]

    return lie


def one_cell(value, total):
    def lie(envelopes):
        table = np.zeros((3, 64), np.int64)
        table[:, 0] = value
        sketch = envelopes[1].record.model_copy(update={"total": total})
        return [envelopes[0], Envelope(sketch, {"table": table}), envelopes[2]]

    return lie


def test_honest_sites_complete_and_move_the_model_by_the_mean(tmp_path, liars):
    plan, store, finished, rejected = run(tmp_path)
    assert (finished.verdict, rejected) == ("COMPLETED", set())
    assert moved_by(plan, store) == pytest.approx(HONEST / np.sqrt(4), rel=0.1)


@pytest.mark.parametrize(
    "lie",
    [
        pushed(HONEST * 9.9),
        pushed(HONEST * 11),
        pushed(99.0),
        pushed(HONEST, images=1_000_000),
        pushed(HONEST, samples=1_000_000),
        pushed(HONEST * 9.9, images=1_000_000, samples=1_000_000),
        restated("RoundReport", images=1_000_000),
        restated("ModelUpdate", transitions=10**9),
        restated("RoundReport", transitions=7),
        restated("SketchTable", total=10**9),
        one_cell(2**53 - 100, 2**53 - 1),
        one_cell(-(2**62), 2**53 - 1),
    ],
)
def test_a_lie_is_left_out_named_and_never_completed(tmp_path, liars, lie):
    liars[LIAR] = lie
    plan, store, finished, rejected = run(tmp_path)
    assert finished.verdict == "DEGRADED"
    assert rejected == {LIAR}
    assert LIAR in finished.reason
    assert moved_by(plan, store) == pytest.approx(HONEST / np.sqrt(3), rel=0.1)


@pytest.mark.parametrize("factor", [1.0, 2.0, 2.9])
@pytest.mark.parametrize("sites", [2, 4])
def test_a_liar_that_stays_within_the_bound_moves_the_model_by_its_share(
    tmp_path, liars, factor, sites
):
    liars["site-b"] = pushed(HONEST * factor)
    plan, store, _, rejected = run(tmp_path, sites)
    assert rejected == set()
    honest_part = HONEST * np.sqrt(sites - 1) / sites
    largest = honest_part + BOUND * HONEST / sites
    assert moved_by(plan, store) <= largest * 1.02


def test_of_two_sites_the_longer_update_cannot_carry_the_model_off(tmp_path, liars):
    liars["site-b"] = pushed(99.0)
    plan, store, finished, rejected = run(tmp_path, 2)
    assert finished.verdict != "COMPLETED"
    assert rejected
    assert finished.rounds == 0 or moved_by(plan, store) <= BOUND * HONEST


def test_where_most_sites_send_nothing_one_cannot_send_much(tmp_path, liars):
    """A median of zero: it used to let everything pass."""

    def nothing(envelopes):
        zeros = {n: np.zeros(a.shape, np.int32) for n, a in envelopes[0].arrays.items()}
        return [Envelope(envelopes[0].record, zeros), *envelopes[1:]]

    liars |= {"site-a": nothing, "site-b": nothing, "site-c": pushed(90.0)}
    plan, store, finished, rejected = run(tmp_path, 3)
    assert "site-c" in rejected
    assert finished.verdict != "COMPLETED"
    assert moved_by(plan, store) == 0


def test_sybils_that_are_most_of_the_sites_are_held_to_what_was_usual(tmp_path, liars):
    """Three of five from the second round on: the rounds before say how long updates are."""
    sizes = {}

    def growing(site):
        def lie(envelopes):
            sizes[site] = sizes.get(site, 0) + 1
            return pushed(HONEST * (50 if sizes[site] > 1 else 1))(envelopes)

        return lie

    liars |= {f"site-{letter}": growing(f"site-{letter}") for letter in "cde"}
    plan, store, finished, rejected = run(tmp_path, 5, training=2)
    assert finished.verdict != "COMPLETED"
    assert {"site-c", "site-d", "site-e"} <= rejected
    assert plan.rounds.training == 2
    assert store.finished_rounds()[:2] == [0, 1]


def test_invented_figures_are_the_sites_own_and_change_no_weight(tmp_path, liars):
    """A report is a site's word; what follows from it is the report's table and nothing else."""

    def brag(envelopes):
        report = envelopes[2].record
        assert isinstance(report, RoundReport)
        return [*envelopes[:2], Envelope(report.model_copy(update={"train_ms": 0}), {})]

    honest = run(tmp_path / "a")
    liars[LIAR] = brag
    bragging = run(tmp_path / "b")
    assert (honest[2].verdict, bragging[2].verdict) == ("COMPLETED", "COMPLETED")
    assert honest[1].load(1).digest == bragging[1].load(1).digest
