"""A site that lies about what it has moves a head by its share at most, and no other site's.

Whole federations in memory, under a plan whose sites may lack labels: the sites say which
label they trained, and what belongs to one label is divided by the samples of those that
say they have it. A lie there would otherwise weigh as much as it likes.
"""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from aggregator.intake.outliers import BOUND
from aggregator.rounds.events import SiteRejected
from common.errors import RefusedError
from common.model import initial_weights, shared_shapes
from common.plan import parse_plan
from common.sums.addition import add_records, verify_sum
from common.sums.summand import Summand
from common.wire.envelope import Envelope
from common.wire.labels import LABELS, branch_rows
from site_client.egress import gate
from site_client.worker.noop import NoOpStudy
from tests.attacks.test_no_more_than_its_share import HONEST, direction, scaled
from tests.common.sums.conftest import KEY, LINK, records, tag
from tests.federation.conftest import Federation

LIAR = "site-d"
HAS = {"site-a": [1, 1], "site-b": [1, 1], "site-c": [1, 0], LIAR: [1, 0]}


@pytest.fixture
def plan():
    return parse_plan(
        {
            "name": "no-op",
            "kind": "no-op",
            "seed": 3,
            "task": {"landmarks": ["AC", "PC"], "roi": 9, "missing": "allow"},
            "network": {"width": 4, "hidden": [8]},
            "experience": {"rows": 3, "columns": 64},
            "rounds": {"training": 1, "quorum": 2, "deadline_s": 5.0},
        }
    )


def lacking(plan, arrays, has):
    """Honest arrays: what belongs to labels that a site lacks does not move."""
    kept = {name: array.copy() for name, array in arrays.items()}
    for name, rows in branch_rows(plan).items():
        kept[name][np.repeat(np.array(has) == 0, rows)] = 0
    return kept


@pytest.fixture
def liars(monkeypatch, plan):
    """By site: what it makes of its honest update; no door stands in its way."""
    lies, honest = {}, NoOpStudy.answer

    def answer(study, asked):
        envelopes = honest(study, asked)
        if asked.header.phase != "train":
            return envelopes
        site = study._subject.site
        shapes = {name: np.zeros(shape) for name, shape in shared_shapes(plan).items()}
        drawn = direction(shapes, [zlib.crc32(site.encode()), asked.header.round])
        arrays = scaled(lacking(plan, drawn, HAS[site]), HONEST)
        arrays[LABELS] = np.array(HAS[site], np.int32)
        if site in lies:
            arrays = lies[site](arrays)
        return [Envelope(envelopes[0].record, arrays), *envelopes[1:]]

    def lenient(envelope, expected, check=gate.check_record):
        if envelope.record.site not in lies:
            check(envelope, expected)

    monkeypatch.setattr(NoOpStudy, "answer", answer)
    monkeypatch.setattr(gate, "check_record", lenient)
    return lies


def run(tmp_path, plan):
    tmp_path.mkdir(exist_ok=True)
    federation = Federation(tmp_path)
    for name in HAS:
        federation.add_site(name, images=3)
    store = federation.create_run(plan, min_sites=4)
    finished = federation.conduct(store, federation.transport())
    rejected = {e.site for e in federation.events(store) if isinstance(e, SiteRejected)}
    return store, finished, rejected


def moved(plan, store, label):
    """How far the rows of one label went, by array."""
    start, after = initial_weights(plan), store.load(1).below("model")
    ways = {}
    for name, rows in branch_rows(plan).items():
        way = np.float64(after[name]) - start[name]
        ways[name] = way[label * rows : (label + 1) * rows]
    return ways


def length(ways):
    return np.sqrt(sum(np.square(way).sum() for way in ways.values()))


def telling(*labels, dtype=np.int32):
    return lambda arrays: arrays | {LABELS: np.array(labels, dtype)}


def pushing(arrays):
    """Moves the head that it says it lacks: of no sample, so at no price."""
    heads = arrays["heads.weight"].copy()
    heads[-1] = 1
    return arrays | {"heads.weight": heads}


@pytest.mark.parametrize(
    "lie",
    [
        telling(1, 2),
        telling(1, -1),
        telling(1, -7),
        telling(2**31 - 1, 1),
        telling(0, 0),
        telling(1, 1, 1),
        telling(1, 0, dtype=np.int64),
        lambda arrays: {name: array for name, array in arrays.items() if name != LABELS},
        pushing,
    ],
)
def test_forged_labels_are_left_out_whole_and_the_others_go_on(tmp_path, plan, liars, lie):
    liars[LIAR] = lie
    store, finished, rejected = run(tmp_path, plan)
    assert finished.verdict == "DEGRADED"
    assert rejected == {LIAR}
    assert store.sum_of(1) is not None
    assert length(moved(plan, store, 1)) < HONEST


def test_a_site_that_claims_a_label_and_moves_nothing_only_dilutes_it(tmp_path, plan, liars):
    honest, _, rejected = run(tmp_path / "honest", plan)
    assert rejected == set()
    liars[LIAR] = telling(1, 1)
    diluted, finished, rejected = run(tmp_path / "diluted", plan)
    assert (finished.verdict, rejected) == ("COMPLETED", set())
    for name, way in moved(plan, honest, 1).items():
        np.testing.assert_allclose(moved(plan, diluted, 1)[name], way * 2 / 3, atol=2e-7)
        np.testing.assert_array_equal(moved(plan, diluted, 0)[name], moved(plan, honest, 0)[name])


@pytest.mark.parametrize("factor", [1.0, 2.9])
def test_a_liar_moves_a_head_by_its_share_of_those_that_say_they_have_it(
    tmp_path, plan, liars, factor
):
    def all_into_one_head(arrays):
        only = {name: np.zeros(array.shape) for name, array in arrays.items() if name != LABELS}
        for name, rows in branch_rows(plan).items():
            only[name][rows:] = 1.0
        return scaled(only, HONEST * factor) | {LABELS: np.array([1, 1], np.int32)}

    honest, _, _ = run(tmp_path / "honest", plan)
    liars[LIAR] = all_into_one_head
    store, _, rejected = run(tmp_path / "lied", plan)
    assert rejected == set()
    # Two honest sites have the label; with the liar, three say so.
    honest_part = length(moved(plan, honest, 1)) * 2 / 3
    assert length(moved(plan, store, 1)) <= honest_part + BOUND * HONEST / 3 + 1e-6


def test_labels_lie_under_the_tag_of_a_sum():
    def with_labels(site, *labels):
        update, table = records(site)
        arrays = {**update.arrays, LABELS: np.array(labels, np.int32)}
        return [tag(Envelope(update.record, arrays)), table]

    answers = {"east": with_labels("east", 1, 0), "north": with_labels("north", 1, 1)}
    total = add_records("run-1", 4, answers)
    verify_sum(total, KEY, LINK)
    group = total.groups["ModelUpdate"]
    assert group.summand.arrays[LABELS].tolist() == [6, 3]
    arrays = {**group.summand.arrays, LABELS: np.array([6, 1])}
    bent = type(group)(group.members, Summand(group.summand.counts, arrays), group.tag)
    lied = type(total)(total.run, total.round, {**total.groups, "ModelUpdate": bent})
    with pytest.raises(RefusedError, match="ModelUpdate"):
        verify_sum(lied, KEY, LINK)
