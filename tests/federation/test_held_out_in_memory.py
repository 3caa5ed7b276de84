"""A federated run whose sites hold cases out: both errors arrive, and nobody learns those cases."""

from __future__ import annotations

from collections import defaultdict

import pytest

from aggregator.report.extras import ReportExtras
from aggregator.report.html import render, summary_json
from aggregator.report.live import status_json
from aggregator.report.run import mean_mm, prior_mm
from aggregator.report.state import fold
from aggregator.rounds.events import SiteReplied
from common.plan import parse_plan
from site_client.agent import federated
from site_client.heldout.memory import read_memory
from site_client.heldout.parts import look_at_parts
from site_client.kinds.landmarks import LandmarkKind
from tests.conftest import SMALL_PLAN, write_case

PLAN = parse_plan(SMALL_PLAN | {"rounds": {"training": 1, "quorum": 2, "deadline_s": 60.0}})
IMAGES = {"site-a": 6, "site-b": 7, "site-c": 3}
"""Scans of each site; of three, none is held out."""


@pytest.fixture
def learned(monkeypatch):
    """Names of the cases that any learner was made of, by number of scans at its site."""
    made: dict[int, set[str]] = defaultdict(set)
    names: dict[int, list[str]] = {}
    real, build = federated.planned_learner, LandmarkKind.build

    def built(kind, cases, *words, **more):
        done = build(kind, cases, *words, **more)
        names[id(done.task)] = [case.name for case in cases.each]
        return done

    def planned_learner(plan, task, seed, *rest):
        made[seed] |= set(names[id(task)])
        return real(plan, task, seed, *rest)

    monkeypatch.setattr(LandmarkKind, "build", built)
    monkeypatch.setattr(federated, "planned_learner", planned_learner)
    return made


def conduct(federation, name):
    """The events of a run to its end."""
    store = federation.create_run(PLAN, name=name, min_sites=3)
    finished = federation.conduct(store, federation.transport())
    assert finished.verdict == "COMPLETED", finished.reason
    return federation.events(store)


def test_held_out_and_training_errors_arrive_and_held_out_cases_are_never_learned(
    federation, learned
):
    for name, images in IMAGES.items():
        site = federation.add_site(name, images=0)
        for number in range(images):
            write_case(site.data(), f"{name}-{number}", number)
    events = conduct(federation, "run-1")
    held_out = {name: look_at_parts(site).held_out for name, site in federation.sites.items()}
    assert {name: len(cases) for name, cases in held_out.items()} == {
        "site-a": 2,
        "site-b": 2,
        "site-c": 0,
    }
    trained = set().union(*learned.values())
    everybody = {f"{name}-{n}" for name, images in IMAGES.items() for n in range(images)}
    assert trained == everybody - frozenset().union(*held_out.values())

    replies = [e for e in events if isinstance(e, SiteReplied) and e.errors]
    assert len(replies) == 2 * 3, "a round of training and the evaluation"
    for reply in replies:
        parts = {error.part for error in reply.errors}
        assert parts == ({"training"} if reply.site == "site-c" else {"held-out", "training"})
        assert reply.images == IMAGES[reply.site] - len(held_out[reply.site])

    state = fold(events)
    last = state.evaluated("held-out")[-1]
    assert set(state.parts) == {"held-out", "training"}
    for part in state.parts:
        assert mean_mm(last.errors, part) > 0
        assert prior_mm(last.errors, part) > 0
    told = status_json(state)["error_mm"]
    assert told["part"] == "held-out"
    assert [n for n, _ in told["by_round"]] == [0, 1]
    summary = summary_json(state)["error_mm"]
    assert summary["federated"] == pytest.approx(mean_mm(last.errors, "held-out"), abs=1e-3)
    page = render(state, ReportExtras())
    assert "Held out at each site" in page
    assert "Training cases of each site" in page

    # The next run holds the same cases out, and learns no others.
    before = {name: read_memory(site.held_out) for name, site in federation.sites.items()}
    learned_before = {seed: set(names) for seed, names in learned.items()}
    conduct(federation, "run-2")
    assert {n: read_memory(s.held_out) for n, s in federation.sites.items()} == before
    assert learned == learned_before
