"""What a coordinator says with ``round start``, here and from afar: how long, and from what."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner

from aggregator.cli import cli
from aggregator.desk.local import LocalDesk
from aggregator.rounds.course import Agreement
from aggregator.rounds.events import RoundFinished
from aggregator.rounds.queue import RunQueue, locked
from aggregator.rounds.store import RoundState, RunOptions, RunStore, within
from aggregator.start import starting_from
from common.desk import desk_pb2 as pb
from common.desk.channel import connected
from common.desk.desk_pb2_grpc import CoordinatorStub
from common.errors import CairnError, InputDataError, RefusedError, UsageError
from common.model import initial_weights, weights_digest
from common.plan import parse_plan
from tests.programs import NO_OP_PLAN

PLAN = NO_OP_PLAN.format(rounds=1, quorum=2, deadline=60)
ASKED = {
    "name": "no-op",
    "kind": "no-op",
    "seed": 3,
    "task": {"landmarks": ["AC", "PC"], "roi": 9},
    "network": {"width": 4},
    "experience": {"rows": 3, "columns": 64},
}


@pytest.fixture
def flower(served):
    """An aggregator that takes every run and begins none."""
    with locked(RunQueue(served.folder.queue).keeper, "taken", ""):
        yield


def options(served) -> RunOptions:
    """Of the newest run."""
    return RunStore(served.folder.run(served.folder.latest_run())).options()


def start(served, where: str, *words: str, plan: str = PLAN):
    """Type ``round start`` at the aggregator or at another machine."""
    file = served.root / "plan.toml"
    file.write_text(plan)
    place = {
        "here": ["--dir", str(served.folder.root)],
        "afar": ["--desk", str(served.folder.root / "coordinator.toml")],
    }[where]
    return CliRunner().invoke(cli, ["round", "start", str(file), *place, *words])


@pytest.fixture
def members(served):
    for name in ("north", "south"):
        served.enrolled(name)
    return served


WHERE = pytest.mark.parametrize("where", ["here", "afar"])


@WHERE
def test_people_have_three_days_unless_the_coordinator_says_otherwise(members, flower, where):
    assert start(members, where).exit_code == 0
    assert options(members).approval_s == 3 * 86_400


@WHERE
@pytest.mark.parametrize("seconds", [0.0, 90.0, 1e6])
def test_how_long_people_have_reaches_the_run(members, flower, where, seconds):
    said = start(members, where, "--approval-wait", str(seconds))
    assert said.exit_code == 0, said.output
    assert options(members).approval_s == seconds


def test_a_desk_that_is_not_told_gives_people_three_days(members, flower):
    """As coordinators of earlier releases ask."""
    request = pb.StartRoundRequest(plan=PLAN.encode(), wait_s=1.0)
    with connected(members.remote._peer) as channel:
        CoordinatorStub(channel).StartRound(request, timeout=20)
    assert options(members).approval_s == 3 * 86_400


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_a_time_that_is_none_is_refused(members, flower, seconds):
    request = pb.StartRoundRequest(plan=PLAN.encode(), approval_s=seconds)
    with (
        pytest.raises(RefusedError, match="approval_s"),
        connected(members.remote._peer) as channel,
    ):
        CoordinatorStub(channel).StartRound(request, timeout=20)
    assert members.folder.run_names() == []


# One after the other.


@WHERE
def test_a_second_run_waits_behind_the_first_is_listed_and_can_be_stopped(members, flower, where):
    assert "Started" in start(members, where).output
    told = start(members, where).output
    first, second = members.folder.run_names()
    assert f"Queued {second}, number 2: it begins by itself after 1 run, {first}." in told
    refused = start(members, where, "--no-queue").exception
    assert isinstance(refused, RefusedError)
    assert first in str(refused)
    place = {
        "here": ["--dir", str(members.folder.root)],
        "afar": ["--desk", str(members.folder.root / "coordinator.toml")],
    }[where]

    def typed(*words: str) -> dict[str, object]:
        done = CliRunner().invoke(cli, ["round", *words, *place, "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.output)

    listed = typed("list")["runs"]
    assert [(run["name"], run["state"]) for run in listed] == [
        (first, "queued"),
        (second, "queued"),
    ]
    stopped = typed("stop", second)
    assert (stopped["run"], stopped["state"]) == (second, "STOPPED")
    by = {"here": "a coordinator at the aggregator", "afar": "coordinator "}[where]
    assert stopped["reason"].startswith(f"stopped by {by}")
    assert RunQueue(members.folder.queue).read().runs == (first,)
    over = CliRunner().invoke(cli, ["round", "stop", second, *place]).exception
    assert isinstance(over, RefusedError)


# From a model.


def model(scale: float) -> tuple[dict[str, np.ndarray], bytes, str]:
    """Weights of the plan's network, their file, their digest."""
    first = initial_weights(parse_plan(ASKED))
    weights = {name: np.float32(scale) * array for name, array in first.items()}
    return weights, safetensors.numpy.save(weights), weights_digest(weights)


def run_that_came_to(folder, name: str, scale: float) -> RunStore:
    """A run whose first round ended with this model."""
    weights, _, digest = model(scale)
    store = RunStore.create(
        folder.runs / name, parse_plan(ASKED), RunOptions(min_sites=1, wait_s=0)
    )
    agreement = Agreement("0" * 16, "d" * 64)
    store.save(RoundState(1, agreement, within("model", weights), digest=digest))
    store.record(RoundFinished(round=1, phase="train", sites=("north",), model_sha256=digest))
    return store


def plan_from(digest: str) -> str:
    return f'start = "{digest}"\n{PLAN}'


@WHERE
def test_a_run_starts_from_the_model_that_an_earlier_one_came_to(members, flower, where):
    _, data, digest = model(0.5)
    run_that_came_to(members.folder, "20250101-000000-first", 0.5)
    said = start(members, where, plan=plan_from(digest))
    assert said.exit_code == 0, said.output
    made = RunStore(members.folder.run(members.folder.latest_run()))
    assert made.attached("start.safetensors") == data
    assert made.plan().start == digest


@WHERE
def test_a_model_that_no_run_here_came_to_is_asked_for_and_no_run_is_made(members, flower, where):
    run_that_came_to(members.folder, "20250101-000000-first", 0.5)
    before = members.folder.run_names()
    said = start(members, where, plan=plan_from(model(2.0)[2]))
    error = said.exception
    assert isinstance(error, InputDataError)
    assert error.exit_code == 6
    assert "the model that the plan starts from is not here" in str(error)
    assert "--model" in str(error)
    assert members.folder.run_names() == before


def test_a_model_can_be_brought_as_a_file(members, flower):
    _, data, digest = model(2.0)
    file = members.root / "brought.safetensors"
    file.write_bytes(data)
    said = start(members, "here", "--model", str(file), plan=plan_from(digest))
    assert said.exit_code == 0, said.output
    made = RunStore(members.folder.run(members.folder.latest_run()))
    assert made.attached("start.safetensors") == data


@pytest.mark.parametrize(
    ("data", "plan", "words"),
    [
        (model(0.5)[1], plan_from(model(2.0)[2]), "not the model that the plan starts from"),
        (b"a picture", plan_from(model(2.0)[2]), "not a model"),
        (model(0.5)[1], PLAN, "the plan starts from no model"),
    ],
)
def test_another_file_than_the_plan_names_is_refused_before_a_run_is_made(
    members, flower, data, plan, words
):
    file = members.root / "brought.safetensors"
    file.write_bytes(data)
    said = start(members, "here", "--model", str(file), plan=plan)
    assert isinstance(said.exception, CairnError)
    assert (said.exception.exit_code, words in str(said.exception)) == (6, True)
    assert members.folder.run_names() == []


def test_a_model_does_not_travel_to_the_desk(members, flower):
    file = members.root / "brought.safetensors"
    file.write_bytes(model(2.0)[1])
    said = start(members, "afar", "--model", str(file), plan=plan_from(model(2.0)[2]))
    assert isinstance(said.exception, UsageError)
    assert "--dir DIR" in str(said.exception)
    request = pb.StartRoundRequest(
        plan=PLAN.encode(), attachments={"start.safetensors": file.read_bytes()}
    )
    with (
        pytest.raises(RefusedError, match="not a document of a plan"),
        connected(members.remote._peer) as channel,
    ):
        CoordinatorStub(channel).StartRound(request, timeout=20)
    assert members.folder.run_names() == []


def test_the_newest_run_that_came_to_a_model_has_it(new_federation):
    digest = model(0.5)[2]
    old = run_that_came_to(new_federation, "20250101-000000-a", 0.5)
    new = run_that_came_to(new_federation, "20250102-000000-b", 0.5)
    run_that_came_to(new_federation, "20250103-000000-c", 0.7)
    plan = parse_plan(ASKED | {"start": digest})
    old.model_file(1).write_bytes(b"spoilt")
    assert starting_from(new_federation, plan) == {"start.safetensors": model(0.5)[1]}
    new.model_file(1).unlink()
    with pytest.raises(InputDataError, match="not a model"):
        starting_from(new_federation, plan)


def test_a_plan_from_its_seed_needs_no_model(new_federation):
    assert starting_from(new_federation, parse_plan(ASKED)) == {}


def test_the_facts_of_a_plan_do_not_need_its_model(served):
    assert LocalDesk(served.folder).facts(plan_from(model(0.5)[2]).encode())
