"""Experience over whole runs: what leaves is what the plan's replay reads, and it adds up."""

from __future__ import annotations

import numpy as np
import pytest

from aggregator.rounds.events import SiteReplied
from common.plan import parse_plan
from common.sketching import CountSketch
from common.wire.codes import ReplyCode
from common.wire.envelope import decode
from common.wire.parcel import unwrap
from site_client.worker import training
from site_client.worker.experience import MeanErrors
from site_client.worker.setup import sketch_spec
from tests.conftest import SMALL_PLAN, loosen, write_case

LEARNER = SMALL_PLAN["learner"] | {"updates": 32}
ROUNDS = {"training": 2, "quorum": 2, "deadline_s": 60.0}
ALL = '["ModelUpdate", "SketchTable", "ErrorTables", "RoundReport"]'


def plan_of(replay, **experience):
    sections = {"learner": LEARNER | {"replay": replay}, "rounds": ROUNDS}
    return parse_plan(SMALL_PLAN | sections | {"experience": SMALL_PLAN["experience"] | experience})


@pytest.fixture
def two(federation):
    for name in ("site-a", "site-b"):
        site = federation.add_site(name, images=3)
        loosen(site, allowed=ALL)
        for number in range(3):
            write_case(site.data(), f"case{number}", number)
    return federation


def sent(transport, round_, kind):
    """What each site sent of a kind in a round; {} where it sent none."""
    parts = {node: unwrap(replies[round_]) for node, replies in transport.sent.items()}
    name = f"{kind}.envelope"
    return {node: decode(each[name]) for node, each in parts.items() if name in each}


def test_errors_of_all_sites_come_back_as_what_each_replay_asks(two, monkeypatch):
    plan, asked = plan_of("wrong-first"), []
    real = training.federation_knows

    def watched(*args, **kwargs):
        known = real(*args, **kwargs)
        asked.append(known)
        return known

    monkeypatch.setattr(training, "federation_knows", watched)
    store, transport = two.create_run(plan, min_sites=2), two.transport()
    assert two.conduct(store, transport).verdict == "COMPLETED"
    rounds = [sent(transport, number, "ErrorTables") for number in (1, 2)]
    assert [len(each) for each in rounds] == [2, 2]
    assert not sent(transport, 1, "SketchTable")
    for told in (told for each in rounds for told in each.values()):
        assert told.record.total == plan.updates_in(1) * plan.learner.batch
        assert told.record.errors > 0
    state = store.load(3)
    for name, array in (("table", "replays"), ("errors", "errors")):
        first, second = (sum(np.asarray(e.arrays[array]) for e in r.values()) for r in rounds)
        wanted = np.trunc(first / 2).astype(np.int64) + second
        np.testing.assert_array_equal(state.arrays[f"experience/{name}"], wanted)
    first, second = asked[:2], asked[2:4]
    assert all(isinstance(known, MeanErrors) for known in asked)
    names = np.arange(64, dtype=np.uint64)
    assert all((known(names) == 1).all() for known in first), "before round 1 all are alike"
    spec = sketch_spec(plan, two.key)
    merged = [
        CountSketch.from_table(spec, sum(np.asarray(e.arrays[n]) for e in rounds[0].values()))
        for n in ("replays", "errors")
    ]
    total, error = (
        sum(getattr(e.record, n) for e in rounds[0].values()) for n in ("total", "errors")
    )
    wanted = MeanErrors(*merged, total, error)(names)
    for known in second:
        np.testing.assert_array_equal(known(names), wanted)


def test_a_plan_whose_replay_asks_nobody_sends_no_table(two):
    plan = plan_of("uniform")
    store, transport = two.create_run(plan, min_sites=2), two.transport()
    assert two.conduct(store, transport).verdict == "COMPLETED"
    for replies in transport.sent.values():
        for reply in replies:
            kinds = {name for name in unwrap(reply) if name.endswith(".envelope")}
            assert kinds <= {"ModelUpdate.envelope", "RoundReport.envelope"}
    assert not [name for name in store.load(3).arrays if name.startswith("experience/")]


def test_a_site_that_allows_no_errors_out_declines_the_plan(two):
    loosen(two.sites["site-b"], allowed='["ModelUpdate", "SketchTable", "RoundReport"]')
    store, transport = two.create_run(plan_of("wrong-first"), min_sites=2), two.transport()
    assert two.conduct(store, transport).verdict == "FAILED", "below its quorum"
    told = [
        (e.site, e.code) for e in two.events(store) if isinstance(e, SiteReplied) and e.round == 1
    ]
    assert ("site-b", ReplyCode.REFUSED_BY_POLICY) in told
    assert "ErrorTables" not in str(transport.sent[101])
