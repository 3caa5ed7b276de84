"""Experience over whole runs: what leaves is what the plan's replay reads, and it adds up."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from aggregator.rounds.events import RoundFinished, SiteReplied
from common.errors import InputDataError
from common.plan import parse_plan
from common.sketching import CountSketch
from common.wire.codes import ReplyCode
from common.wire.envelope import decode
from common.wire.parcel import unwrap
from site_client.agent.novelty import FEW, PLACES_FILE, Familiar
from site_client.cli import cli
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
    told = {e.round: e.alike for e in two.events(store) if isinstance(e, RoundFinished)}
    assert set(told[2]) == {"site-a", "site-b"}
    assert told[0] == told[1] == told[3] == {}
    assert all(0 <= share <= 1000 for share in told[2].values())
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


def test_the_places_of_all_sites_go_with_the_model_and_play_warns_of_others(two):
    plan = plan_of("uniform", key="place", kept=True, columns=4096)
    store, transport = two.create_run(plan, min_sites=2), two.transport()
    finished = two.conduct(store, transport)
    assert finished.verdict == "COMPLETED"
    assert len(sent(transport, 1, "SketchTable")) == 2
    site = two.sites["site-a"]
    folder = site.worker / "models" / finished.model_sha256
    familiar = Familiar.from_bytes((folder / PLACES_FILE).read_bytes(), 2)
    assert familiar.places.shape == (2, 8, 8, 8)
    assert familiar.places.sum() > 0
    # Nobody but the sites has the key, and so the map: not the aggregator, nor its releases.
    assert not list(two.folder.root.rglob(PLACES_FILE))
    words = ["play", str(site.data() / "case0.nii.gz"), "--model", "latest"]
    words += ["--site-dir", str(site.root), "--json"]
    played = json.loads(CliRunner().invoke(cli, words, catch_exceptions=False).stdout)
    for found in played["found"]:
        assert 0 <= found["met_share"] <= 1
        assert found["novel"] == (found["met_share"] < FEW)
    assert bool(played["warnings"]) == any(found["novel"] for found in played["found"])
    nowhere = Familiar(np.zeros_like(familiar.places))
    nowhere.places[:, 0, 0, 0] = 1
    (folder / PLACES_FILE).write_bytes(nowhere.to_bytes())
    told = CliRunner().invoke(cli, words[:-1], catch_exceptions=False)
    assert "0.0% (few)" in told.output
    assert "The federation has met few situations like these" in told.output
    (folder / PLACES_FILE).write_bytes(b"none")
    damaged = CliRunner().invoke(cli, words).exception
    assert isinstance(damaged, InputDataError)
    assert damaged.field == PLACES_FILE
